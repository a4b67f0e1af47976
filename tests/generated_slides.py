"""Generated slides: pyramidal TIFFs of JPEG tiles, written as scanners and converters do."""

import io
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import openslide
import pytest
import simplejpeg
import tifffile
from PIL import Image

RGB = npt.NDArray[np.uint8]

_TIFF_SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2), "411": (4, 1)}


def draw_tissue(width_px: int, height_px: int, seed: int) -> RGB:
    """Glass with an ellipse of pink tissue full of purple dots, all a little noisy."""
    rng = np.random.default_rng(seed)
    image = np.full((height_px, width_px, 3), 242, np.uint8)
    middle, axes = (width_px // 2, height_px // 2), (int(width_px * 0.42), int(height_px * 0.42))
    cv2.ellipse(image, middle, axes, 0, 0, 360, (225, 150, 190), -1)
    places = rng.uniform(-0.6, 0.6, (width_px * height_px // 600, 2)) * axes + middle
    for x, y in places.astype(int).tolist():
        cv2.circle(image, (x, y), int(rng.integers(3, 7)), (110, 60, 140), -1)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def encode_jpeg(
    tile: RGB, quality: int = 90, subsampling: str = "444", is_rgb: bool = False
) -> bytes:
    """Encodes a tile; one that holds RGB has no marker that says so, as in Aperio's slides."""
    if not is_rgb:
        return simplejpeg.encode_jpeg(np.ascontiguousarray(tile), quality, "RGB", subsampling)
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", quality=quality, keep_rgb=True, subsampling=0)
    return b"".join(_segments(file.getvalue(), without={0xE0, 0xEE}))


def _segments(jpeg: bytes, without: Collection[int] = ()) -> Iterator[bytes]:
    """The start, the segments of the header but some, and the rest of a JPEG."""
    yield jpeg[:2]
    at = 2
    while jpeg[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] not in without:
            yield jpeg[at:end]
        at = end
    yield jpeg[at:]


def _split_tables(jpeg: bytes) -> tuple[bytes, bytes]:
    """The tables of a JPEG as a JPEG of their own, and what is left without them."""
    of_tables = {0xDB, 0xC4}
    tables = b"".join(one for one in _segments(jpeg) if one[0] == 0xFF and one[1] in of_tables)
    return b"\xff\xd8" + tables + b"\xff\xd9", b"".join(_segments(jpeg, without={*of_tables, 0xE0}))


def _cut(level: RGB, tile: tuple[int, int]) -> Iterator[RGB]:
    """The tiles of a level, [width, height] each; those at its edges are filled up."""
    height, width, _ = level.shape
    padding = ((0, -height % tile[1]), (0, -width % tile[0]), (0, 0))
    padded = np.pad(level, padding, mode="edge")
    for y in range(0, padded.shape[0], tile[1]):
        for x in range(0, padded.shape[1], tile[0]):
            yield np.ascontiguousarray(padded[y : y + tile[1], x : x + tile[0]])


def _philips_xml(mpps: list[float]) -> str:
    def attribute(name: str, value: str) -> str:
        return f'<Attribute Name="{name}" Group="0x301D" Element="0x1000">{value}</Attribute>'

    def spacing(mpp: float) -> str:
        return attribute(
            "DICOM_PIXEL_SPACING", f"&quot;{mpp / 1e3:.9f}&quot; &quot;{mpp / 1e3:.9f}&quot;"
        )

    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{spacing(mpp)}</DataObject>'
        for mpp in mpps
    )
    image = (
        attribute("PIM_DP_IMAGE_TYPE", "WSI")
        + spacing(mpps[0])
        + attribute("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", f"<Array>{levels}</Array>")
    )
    images = f'<Array><DataObject ObjectType="DPScannedImage">{image}</DataObject></Array>'
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        + attribute("PIM_DP_SCANNED_IMAGES", images)
        + "</DataObject>"
    )


def _svs_description(width_px: int, height_px: int, mpp: float | None) -> str:
    facts = f"|AppMag = 20|MPP = {mpp:.4f}" if mpp is not None else "|AppMag = 20"
    return f"Aperio Image Library v12.0.15\r\n{width_px}x{height_px} (256x256) JPEG/RGB Q=90{facts}"


def write_tiff(
    path: Path,
    image: RGB,
    mpp: float | None = 0.5,
    levels: int = 2,
    *,
    kind: str = "generic",
    factor: int = 2,
    tile_px: int | tuple[int, int] = 128,
    quality: int = 90,
    subsampling: str = "444",
    is_rgb: bool = False,
    shared_tables: bool = False,
    missing: Collection[tuple[int, int]] = (),
    change_tile: Callable[[int, int, bytes], bytes] | None = None,
    bigtiff: bool = False,
    byteorder: str = "<",
) -> Path:
    """Writes an image as a pyramid.

    Args:
        path: the file.
        image: its level 0.
        mpp: resolution of level 0; None writes none, in whatever way the kind has for it.
        levels: how many levels.
        kind: generic, svs, ome or philips; only the first two can be without an mpp.
        factor: by how much each level is smaller than the one before.
        tile_px: edge of the TIFF's tiles, or their width and height.
        quality: of the JPEGs.
        subsampling: of the JPEGs: 444, 422, 420 or 411.
        is_rgb: code red, green and blue as such.
        shared_tables: keep tables in one place of the file instead of in each tile.
        missing: level and number of tiles that the file does not hold.
        change_tile: gets level, number and JPEG of each tile, and gives what is written for it.
        bigtiff: write offsets of 64 bits.
        byteorder: < or >.
    """
    tile = (tile_px, tile_px) if isinstance(tile_px, int) else tile_px
    images = [image]
    for _ in range(1, levels):
        size = (images[-1].shape[1] // factor, images[-1].shape[0] // factor)
        smaller = cv2.resize(images[-1], size, interpolation=cv2.INTER_AREA)
        images.append(np.asarray(smaller, np.uint8))
    if kind == "philips":
        padded = [
            ((0, -one.shape[0] % tile[1]), (0, -one.shape[1] % tile[0]), (0, 0)) for one in images
        ]
        images = [
            np.pad(one, pad, constant_values=255) for one, pad in zip(images, padded, strict=True)
        ]
    tables, _ = _split_tables(
        encode_jpeg(np.zeros((16, 16, 3), np.uint8), quality, subsampling, is_rgb)
    )

    def tiles(number: int) -> Iterator[bytes]:
        for index, pixels in enumerate(_cut(images[number], tile)):
            jpeg = encode_jpeg(pixels, quality, subsampling, is_rgb)
            if shared_tables:
                jpeg = _split_tables(jpeg)[1]
            if change_tile is not None:
                jpeg = change_tile(number, index, jpeg)
            yield b"" if (number, index) in missing else jpeg

    height, width, _ = image.shape
    per_cm = (1e4 / mpp, 1e4 / mpp) if mpp is not None and kind == "generic" else (1.0, 1.0)
    descriptions: list[str | None] = [None] * levels
    if kind == "svs":
        descriptions = [
            _svs_description(width, height, mpp),
            *["Aperio Image Library"] * (levels - 1),
        ]
    elif kind == "philips":
        assert mpp is not None
        descriptions[0] = _philips_xml([mpp * factor**number for number in range(levels)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path, bigtiff=bigtiff, byteorder=byteorder, ome=kind == "ome") as tiff:
        for number, one in enumerate(images):
            options: dict[str, Any] = {"metadata": None}
            if kind == "ome" and number == 0:
                units = {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp} if mpp is not None else {}
                options = {"metadata": {"axes": "YXS", **units}, "subifds": levels - 1}
            tiff.write(
                tiles(number),
                shape=one.shape,
                dtype=np.uint8,
                tile=(tile[1], tile[0]),
                photometric="rgb" if is_rgb else "ycbcr",
                subsampling=(1, 1) if is_rgb else _TIFF_SUBSAMPLING[subsampling],
                compression="jpeg",
                compressionargs={"outcolorspace": "rgb"} if is_rgb else None,
                resolution=per_cm,
                resolutionunit="CENTIMETER" if per_cm != (1.0, 1.0) else "NONE",
                subfiletype=int(number > 0),
                description=descriptions[number],
                software="Philips DP v1.0" if kind == "philips" else None,
                extratags=[(347, 7, len(tables), tables, True)] if shared_tables else [],
                **options,
            )
    return path


WriteSlide = Callable[..., Path]


@pytest.fixture
def write_slide(tmp_path: Path) -> WriteSlide:
    """Writes `tmp_path/slides/<name>`, of 700 x 600 px at 0.5 mpp unless told otherwise.

    Whatever `write_tiff` can do may be asked for by its name there.
    """

    def write(
        name: str = "a.tif",
        *,
        size_px: tuple[int, int] = (700, 600),
        image: RGB | None = None,
        seed: int = 0,
        **options: Any,
    ) -> Path:
        if image is None:
            image = draw_tissue(*size_px, seed)
        return write_tiff(tmp_path / "slides" / name, image, **options)

    return write


@pytest.fixture(scope="session")
def by_openslide() -> Callable[..., RGB]:
    """Reads a box of a level with OpenSlide, on white; by default the whole level."""

    def read(
        path: Path,
        level: int = 0,
        x_px: int = 0,
        y_px: int = 0,
        size_px: tuple[int, int] | None = None,
    ) -> RGB:
        with openslide.OpenSlide(path) as slide:
            corner = (x_px * slide.level_downsamples[level], y_px * slide.level_downsamples[level])
            region = slide.read_region(
                (round(corner[0]), round(corner[1])),
                level,
                size_px or slide.level_dimensions[level],
            )
            white = Image.new("RGBA", region.size, "white")
            return np.asarray(Image.alpha_composite(white, region).convert("RGB"))

    return read


@pytest.fixture(scope="session")
def tissue_mosaic(shared_data: Path) -> Callable[[int, int], RGB]:
    """Real H&E of any size, of fields of 1000 x 1000 px at 0.25 mpp side by side."""

    def lay(width_px: int, height_px: int) -> RGB:
        names = ("test_1", "test_5", "test_9", "test_13")
        folder = shared_data / "consep" / "Test" / "Images"
        fields = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in names]
        pair = np.concatenate(fields[:2], 1), np.concatenate(fields[2:], 1)
        square = np.concatenate(pair, 0)
        return np.ascontiguousarray(square[:height_px, :width_px])

    return lay
