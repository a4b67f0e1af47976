"""DICOM slides that OpenSlide refuses, written with pydicom; and one real one."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import simplejpeg
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import JPEG2000, ImplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from eosin.errors import InputError
from eosin.slides import dicom, dicom_series
from eosin.slides.openslide_pixels import OpenSlidePixels
from eosin.slides.reader import Slide, open_slide
from eosin.store.tile_store import TileStore
from eosin.tiling.run import Config, tile
from eosin.tiling.sources import find_slides

RGB = npt.NDArray[np.uint8]
_TILE_PX = 64
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_LABEL = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]


@pytest.fixture
def image(write_slide: Callable[..., Path]) -> RGB:
    """700 x 600 px of tissue."""
    with open_slide(write_slide("tissue/image.tif")) as slide:
        return _level(slide)


def _level(slide: Slide, level: int = 0) -> RGB:
    return slide.pixels.read_level(level, 0, 0, *slide.level_dimensions[level])


def _in_ycbcr(tile: RGB) -> bytes:
    return simplejpeg.encode_jpeg(tile, 90, "RGB", "422")


def _in_rgb(tile: RGB) -> bytes:
    """In RGB, though nothing in it says so, as Aperio writes it."""
    jpeg = imagecodecs.jpeg8_encode(tile, level=90, colorspace="RGB", outcolorspace="RGB")
    jpeg = jpeg[:2] + jpeg[18:]
    frame, scan = jpeg.index(b"\xff\xc0"), jpeg.index(b"\xff\xda")
    renamed = bytearray(jpeg)
    for number in range(3):
        renamed[frame + 10 + 3 * number] = renamed[scan + 5 + 2 * number] = number + 1
    return bytes(renamed)


def _cut(image: RGB, encode: Callable[[RGB], bytes] = _in_ycbcr) -> list[bytes]:
    """Cuts an image into frames, row by row; those at the edges are padded."""
    height, width, _ = image.shape
    padding = ((0, -height % _TILE_PX), (0, -width % _TILE_PX), (0, 0))
    padded = np.pad(image, padding, mode="edge")
    return [
        encode(np.ascontiguousarray(padded[y : y + _TILE_PX, x : x + _TILE_PX]))
        for y in range(0, padded.shape[0], _TILE_PX)
        for x in range(0, padded.shape[1], _TILE_PX)
    ]


def _header(image: RGB, frames: int) -> Dataset:
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = _WHOLE_SLIDE
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.StudyInstanceUID = header.FrameOfReferenceUID = "1.2.3"
    header.SeriesInstanceUID = "1.2.3.4"
    header.Modality = "SM"
    header.SamplesPerPixel = 3
    header.PhotometricInterpretation = "YBR_FULL_422"
    header.PlanarConfiguration = header.PixelRepresentation = 0
    header.NumberOfFrames = frames
    header.Rows = header.Columns = _TILE_PX
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit = 7
    height, width, _ = image.shape
    header.DimensionOrganizationType = "TILED_FULL"
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = height, width
    header.ImagedVolumeWidth, header.ImagedVolumeHeight = 0.5e-3 * width, 0.5e-3 * height
    return header


def _items(**values: Any) -> list[Dataset]:
    """A sequence of one item."""
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return [item]


def _write(
    path: Path,
    image: RGB,
    *,
    frames: list[bytes] | None = None,
    table: str = "basic",
    fragments: int = 1,
    **tags: Any,
) -> Path:
    """Writes a level which, for want of an ImageType, OpenSlide refuses."""
    frames = _cut(image) if frames is None else frames
    header = _header(image, len(frames))
    if table == "extended":
        pixels, offsets, lengths = encapsulate_extended(frames)
        tags |= {"ExtendedOffsetTable": offsets, "ExtendedOffsetTableLengths": lengths}
    else:
        pixels = encapsulate(frames, fragments, has_bot=table == "basic")
    for name, value in tags.items():
        setattr(header, name, value)
    header.PixelData = pixels
    header["PixelData"].is_undefined_length = True
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def _sparse(order: list[int], columns: int = 11) -> dict[str, Any]:
    """Says where on the slide each frame of a sparse level lies."""
    groups: list[Dataset] = []
    for number in order:
        row, column = divmod(number, columns)
        position = _items(
            ColumnPositionInTotalImagePixelMatrix=column * _TILE_PX + 1,
            RowPositionInTotalImagePixelMatrix=row * _TILE_PX + 1,
        )
        groups += _items(PlanePositionSlideSequence=position)
    return {
        "DimensionOrganizationType": "TILED_SPARSE",
        "PerFrameFunctionalGroupsSequence": groups,
    }


_FOR_OPENSLIDE: dict[str, Any] = {
    "ImageType": ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
    "TotalPixelMatrixFocalPlanes": 1,
    "NumberOfOpticalPaths": 1,
    "SharedFunctionalGroupsSequence": _items(
        PixelMeasuresSequence=_items(PixelSpacing=[0.5e-3, 0.5e-3], SliceThickness=1e-3)
    ),
}


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_a_series_gives_the_levels_and_pixels_that_openslide_gives(
    tmp_path: Path, image: RGB, table: str
) -> None:
    half = np.ascontiguousarray(image[::2, ::2])
    for folder, tags in (("theirs", _FOR_OPENSLIDE), ("ours", {})):
        _write(tmp_path / folder / "b.dcm", half, **tags, table=table)
        _write(tmp_path / folder / "c.dcm", image, **tags, table=table)
        label = tags | {"ImageType": _LABEL}
        _write(tmp_path / folder / "a.dcm", image[:_TILE_PX, :_TILE_PX], **label)
        _write(tmp_path / folder / "other.dcm", image, SeriesInstanceUID="1.2.3.5")
    with (
        open_slide(tmp_path / "theirs" / "a.dcm") as theirs,
        open_slide(tmp_path / "ours" / "a.dcm") as ours,
    ):
        assert (theirs.back_end, ours.back_end, ours.vendor) == ("openslide", "dicom", "dicom")
        assert ours.level_dimensions == theirs.level_dimensions == ((700, 600), (350, 300))
        assert ours.level_downsamples == theirs.level_downsamples
        assert ours.mpp == pytest.approx(theirs.mpp, rel=1e-6)
        for level in range(2):
            assert np.array_equal(_level(ours, level), _level(theirs, level))
        box = (0, -5, 590, 20, 30)
        assert np.array_equal(ours.pixels.read_level(*box), theirs.pixels.read_level(*box))


def test_sparse_frames_lie_where_they_say(tmp_path: Path, image: RGB) -> None:
    whole = _write(tmp_path / "whole.dcm", image)
    frames, columns = _cut(image), 11
    order = [number for number in range(len(frames)) if number != 13][::-1]
    sparse = _write(
        tmp_path / "sparse" / "a.dcm",
        image,
        frames=[frames[number] for number in order],
        **_sparse(order, columns),
    )
    with open_slide(whole) as one, open_slide(sparse) as other:
        expected, found = _level(one), _level(other)
    y, x = 13 // columns * _TILE_PX, 13 % columns * _TILE_PX
    assert expected[y : y + _TILE_PX, x : x + _TILE_PX].min() < 200
    expected[y : y + _TILE_PX, x : x + _TILE_PX] = 255
    assert np.array_equal(found, expected)


def test_frames_whose_order_is_not_said_are_laid_as_they_fit(tmp_path: Path, image: RGB) -> None:
    frames = _cut(image)
    by_column = [frames[11 * row + column] for column in range(11) for row in range(10)]
    said = _write(tmp_path / "0" / "a.dcm", image)
    paths = [
        _write(tmp_path / str(number) / "a.dcm", image, frames=some, DimensionOrganizationType="")
        for number, some in enumerate((frames, by_column), 1)
    ]
    with open_slide(said) as slide:
        expected = _level(slide)
    for path in paths:
        with open_slide(path) as slide:
            assert np.array_equal(_level(slide), expected)
    noise = np.random.default_rng(0).integers(0, 256, image.shape, np.uint8)
    row = _write(tmp_path / "4" / "a.dcm", noise[:_TILE_PX], DimensionOrganizationType="")
    with open_slide(row) as slide:
        assert slide.dimensions == (700, 64)
    scrambled = _write(tmp_path / "3" / "a.dcm", noise, DimensionOrganizationType="")
    with pytest.raises(InputError, match="does not say how its frames lie"):
        open_slide(scrambled)


def test_colours_are_what_the_header_says_unless_the_frames_say_it(
    tmp_path: Path, image: RGB
) -> None:
    unmarked = _write(
        tmp_path / "1" / "a.dcm",
        image,
        frames=_cut(image, _in_rgb),
        PhotometricInterpretation="RGB",
    )
    # As in the real file: JFIF is YCbCr, whatever the header says.
    marked = _write(tmp_path / "2" / "a.dcm", image, PhotometricInterpretation="RGB")
    for path in (unmarked, marked):
        with open_slide(path) as slide:
            difference = np.abs(_level(slide).astype(int) - image)
            assert slide.encoding(slide.reading(0.5)) is not None
        assert difference.mean() < 6


def test_a_real_slide_has_the_pixels_of_its_frames(shared_data: Path) -> None:
    path = shared_data / "slides" / "small_dicom.dcm"
    with pytest.raises(InputError, match="Couldn't get image flavor"):
        OpenSlidePixels(path)
    content = pydicom.dcmread(path)
    frames = list(generate_frames(content.PixelData, number_of_frames=42))
    with open_slide(path) as slide:
        assert (slide.dimensions, slide.back_end, slide.vendor) == ((3236, 2638), "dicom", "dicom")
        assert slide.pixels.scales == ((1, 2, 4),)
        # Its volume of 15 x 15 mm is made up.
        with pytest.raises(InputError, match="no usable mpp"):
            _ = slide.mpp
        for number in (0, 20, 41):
            # Its frames go on column by column.
            x, y = number // 6 * 500, number % 6 * 500
            box = slide.pixels.read_level(0, x, y, 500, 500)
            inside = np.s_[: 2638 - y, : 3236 - x]
            decoded = np.asarray(Image.open(io.BytesIO(frames[number])).convert("RGB"))
            assert np.array_equal(box[inside], decoded[inside])
        edge = slide.pixels.read_level(0, 3200, 2600, 100, 100)
        assert (edge[38:] == 255).all() and (edge[:, 36:] == 255).all()
        assert edge[:38, :36].mean() < 254
        level = _level(slide).astype(int)
        steps = np.abs(np.diff(level[:, 1000:2000], axis=0)).mean((1, 2))
        assert steps[499:2600:500].max() < 2 * steps[:2600].mean()
    with open_slide(path, mpp=0.25) as slide:
        reduced, read = slide.read(1000, 1000, 250, 0.5), slide.read(1000, 1000, 500, 0.25)
    average = read.reshape(250, 2, 250, 2, 3).mean((1, 3))
    assert np.abs(reduced - average).mean() < 2


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20_000])


def _break_header(path: Path) -> None:
    content = path.read_bytes()
    start = content.index(b"\x48\x00\x06\x00UL\x04\x00")
    path.write_bytes(content[:start] + b"\xff" * 6 + content[start + 6 :])


def _break_items(path: Path) -> None:
    content = path.read_bytes()
    start = content.rindex(b"\xfe\xff\x00\xe0")
    path.write_bytes(content[:start] + bytes(4) + content[start + 4 :])


@pytest.mark.parametrize(
    ("options", "damage", "message"),
    [
        ({}, _truncate, "truncated"),
        ({"table": "extended"}, _truncate, "truncated"),
        ({}, _break_header, "is damaged"),
        ({}, _break_items, "is damaged: there is no frame at byte"),
        ({"fragments": 2}, None, "several fragments"),
        ({"NumberOfFrames": 109}, None, "has 109 frames for 110 tiles"),
        ({"TotalPixelMatrixRows": 0}, None, "TotalPixelMatrixRows is 0"),
        ({"TotalPixelMatrixRows": 2**31, "Rows": 1}, None, "too many"),
        (
            {"Columns": 70, "TotalPixelMatrixColumns": 770},
            None,
            "first frame is 64 x 64 px of YCbCr instead of 70 x 64",
        ),
        ({"PhotometricInterpretation": "MONOCHROME2"}, None, "is in MONOCHROME2"),
        ({"NumberOfOpticalPaths": 3}, None, "3 optical paths"),
        ({"TotalPixelMatrixFocalPlanes": 2}, None, "2 focal planes"),
        ({"ConcatenationUID": "1.2"}, None, "a concatenation"),
        ({"SpecimenLabelInImage": "YES"}, None, "leave it out of --slides"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, None, "leave it out of --slides"),
        ({"frames": [b"no JPEG!"] * 110}, None, "first frame is no JPEG"),
        (_sparse([0] * 110), None, "at one place"),
        (_sparse([0] * 109), None, "109 places"),
        (_sparse([*range(109), 999]), None, "the grid"),
    ],
)
def test_what_cannot_be_read_is_an_input_error(
    tmp_path: Path,
    image: RGB,
    options: dict[str, Any],
    damage: Callable[[Path], None] | None,
    message: str,
) -> None:
    path = _write(tmp_path / "a.dcm", image, **options)
    if damage is not None:
        damage(path)
    with pytest.raises(InputError, match=message) as raised:
        open_slide(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_other_encodings_are_named(tmp_path: Path, image: RGB) -> None:
    path = _write(tmp_path / "a.dcm", image)
    content = pydicom.dcmread(path)
    content.file_meta.TransferSyntaxUID = JPEG2000
    content.save_as(path)
    with pytest.raises(InputError, match=r"a\.dcm.*frames are JPEG 2000 Image Compression"):
        open_slide(path)


def test_files_cut_anywhere_never_break_the_reader(tmp_path: Path, image: RGB) -> None:
    path = _write(tmp_path / "a.dcm", image[:100, :100])
    content = path.read_bytes()
    for length in [*range(0, 1500, 37), *range(1500, len(content), 997)]:
        path.write_bytes(content[:length])
        dicom_series.series_uid(path)
        with pytest.raises(InputError):
            open_slide(path)


def test_without_pydicom_its_extra_is_named(
    tmp_path: Path, image: RGB, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path / "a.dcm", image)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r'image flavor.*; pip install "eosin\[dicom\]" reads'):
        open_slide(path)


def test_two_images_of_one_size_are_refused(tmp_path: Path, image: RGB) -> None:
    path = _write(tmp_path / "a.dcm", image)
    _write(tmp_path / "b.dcm", image)
    with pytest.raises(InputError, match=r"a\.dcm and b\.dcm are of one series and one size"):
        open_slide(path)


def test_the_files_of_a_slide_are_tiled_once(tmp_path: Path, image: RGB) -> None:
    slides = tmp_path / "slides" / "dicom"
    _write(slides / "a.dcm", image[::2, ::2])
    _write(slides / "b.dcm", image)
    _write(slides / "c.dcm", image, SeriesInstanceUID="1.2.9")
    _write(slides / "deeper" / "a.dcm", image)
    (slides / "d.dcm").write_text("no DICOM")
    (slides / "e.dcm").write_text("no DICOM")
    found = [source.relative_path.as_posix() for source in find_slides([slides])]
    assert found == ["a.dcm", "c.dcm", "d.dcm", "deeper/a.dcm", "e.dcm"]
    assert [one.path.name for one in find_slides([slides / "b.dcm", slides / "a.dcm"])] == ["b.dcm"]
    assert dicom.read_layout(slides / "d.dcm") is None
    report = tile(Config(slides=(slides,), out=tmp_path / "store", tile_px=128, workers=1))
    assert {one.path for one in report.quarantined} == {"d.dcm", "e.dcm"}
    tiles = TileStore(tmp_path / "store")
    assert tiles.verify() == []
    first, *others = [one for one in tiles.slides if one.reason is None]
    assert (first.path, first.width_px, first.back_end) == ("a.dcm", 700, "dicom")
    assert all(abs(one.tiles - first.tiles) <= 1 for one in others)


def test_the_series_is_found_behind_any_elements(tmp_path: Path, image: RGB) -> None:
    inner = _items(SeriesInstanceUID="9.9", ReferencedSOPSequence=_items(StudyID="x"))
    nested = {"ReferencedSeriesSequence": inner}
    path = _write(tmp_path / "a.dcm", image[:_TILE_PX, :_TILE_PX], **nested)
    assert dicom_series.series_uid(path) == "1.2.3.4"
    content = pydicom.dcmread(path)
    for is_implicit in (False, True):
        for is_open in (False, True):
            sequence = content["ReferencedSeriesSequence"]
            sequence.is_undefined_length = is_open
            sequence.value[0].is_undefined_length_sequence_item = is_open
            content.save_as(path, enforce_file_format=True)
            assert dicom_series.series_uid(path) == "1.2.3.4", (is_implicit, is_open)
        if "PixelData" in content:
            del content.PixelData
            content.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    del content.SeriesInstanceUID
    content.save_as(path)
    assert dicom_series.series_uid(path) is None
    assert dicom_series.files_of_series(path) == [path]
