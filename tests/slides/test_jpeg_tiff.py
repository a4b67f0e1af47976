import io
import multiprocessing
import os
import resource
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openslide
import pytest
import tifffile
from PIL import Image

from eosin.errors import InputError
from eosin.slides.openslide_pixels import OpenSlidePixels
from eosin.slides.reader import Slide, open_slide

RGB = npt.NDArray[np.uint8]
_KINDS = ("generic", "svs", "ome", "philips")
_COLOURS = {
    "444": {"subsampling": "444"},
    "422": {"subsampling": "422"},
    "420": {"subsampling": "420"},
    "RGB": {"is_rgb": True},
}


def _whole(slide: Slide, level: int) -> RGB:
    return slide.pixels.read_level(level, 0, 0, *slide.level_dimensions[level])


def _levels(path: Path) -> list[RGB]:
    with open_slide(path) as slide:
        assert slide.back_end == "jpeg_tiff"
        return [_whole(slide, level) for level in range(len(slide.level_dimensions))]


def _assert_equal(ours: Iterable[RGB], theirs: Iterable[RGB]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shared_tables", [False, True], ids=["own-tables", "shared-tables"])
@pytest.mark.parametrize("colour", _COLOURS)
@pytest.mark.parametrize("tile_px", [240, 256, 512, 1024])
@pytest.mark.parametrize("kind", _KINDS)
def test_pixels_are_openslides(
    write_slide: Callable[..., Path],
    by_openslide: Callable[..., RGB],
    kind: str,
    tile_px: int,
    colour: str,
    shared_tables: bool,
) -> None:
    options: dict[str, Any] = {
        "size_px": (521, 377),
        "levels": 3,
        "factor": 4 if kind == "svs" else 2,
        "tile_px": tile_px,
        "shared_tables": shared_tables,
        **_COLOURS[colour],
    }
    path = judged = write_slide(kind=kind, **options)
    if kind == "ome":
        # OpenSlide sees no level in a sub-directory; a plain pyramid holds the very same tiles.
        np.testing.assert_array_equal(_levels(path)[0], by_openslide(path))
        judged = write_slide("judged.tif", kind="generic", **options)
    _assert_equal(_levels(path), (by_openslide(judged, level) for level in range(3)))


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "form",
    [
        {"bigtiff": True},
        {"byteorder": ">", "bigtiff": True},
        {"tile_px": (128, 64), "subsampling": "420"},
        {"tile_px": (64, 256), "subsampling": "422"},
        {"subsampling": "411"},
        {"quality": 5},
        {"quality": 100},
        {"size_px": (1, 1), "levels": 1},
        {"size_px": (128, 128), "levels": 1},
        {"size_px": (129, 127), "levels": 1},
    ],
    ids=str,
)
def test_pixels_are_openslides_in_every_form_of_tiff(
    write_slide: Callable[..., Path],
    by_openslide: Callable[..., RGB],
    kind: str,
    form: dict[str, Any],
) -> None:
    path = write_slide(kind=kind, **{"size_px": (301, 299), "levels": 2, **form})
    np.testing.assert_array_equal(_levels(path)[0], by_openslide(path))


def _save(tile: RGB, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True, "subsampling": 2},
        {"optimize": True},
        {"restart_marker_blocks": 4},
        {"keep_rgb": True, "subsampling": 0},
        {"comment": "a comment", "icc_profile": b"profile" * 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("is_rgb", [False, True], ids=["YCbCr", "RGB"])
def test_pixels_are_openslides_whatever_the_tiles_say_of_themselves(
    write_slide: Callable[..., Path],
    by_openslide: Callable[..., RGB],
    is_rgb: bool,
    options: dict[str, Any],
) -> None:
    rng = np.random.default_rng(0)
    tiles = [np.full((128, 128, 3), colour, np.uint8) for colour in rng.integers(0, 256, (12, 3))]
    for tile in tiles:
        tile[32:64, 20:90] = rng.integers(0, 256, 3)
    path = write_slide(
        size_px=(500, 300),
        levels=1,
        is_rgb=is_rgb,
        change_tile=lambda _level, number, _jpeg: _save(tiles[number], **options),
    )
    with open_slide(path) as slide:
        np.testing.assert_array_equal(_whole(slide, 0), by_openslide(path))


@pytest.mark.parametrize("kind", _KINDS)
def test_a_slide_says_what_openslide_says(write_slide: Callable[..., Path], kind: str) -> None:
    path = write_slide(kind=kind, size_px=(1003, 707), mpp=0.2527, levels=3)
    theirs = OpenSlidePixels(path)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(0.2527)
        assert slide.pixels.scales == ((1, 2, 4, 8),) * 3
        if kind == "ome":
            assert slide.vendor == "ome-tiff"
            assert slide.level_dimensions == ((1003, 707), (501, 353), (250, 176))
            assert slide.level_downsamples == pytest.approx((1, 2.0024, 4.0145), abs=1e-3)
        else:
            assert slide.vendor == theirs.vendor
            assert slide.level_dimensions == theirs.level_dimensions
            assert slide.level_downsamples == theirs.level_downsamples
            assert slide.file_mpp == theirs.mpp


@pytest.mark.parametrize(
    ("kind", "levels", "missing"),
    [
        ("generic", 2, {(0, 0), (0, 7), (1, 3)}),
        ("philips", 2, {(0, 0), (0, 7), (1, 3)}),
        ("ome", 2, {(0, 0), (0, 7), (1, 3)}),
        ("svs", 1, {(0, 0), (0, 7)}),
    ],
)
def test_tiles_that_were_not_scanned_are_white(
    write_slide: Callable[..., Path],
    by_openslide: Callable[..., RGB],
    kind: str,
    levels: int,
    missing: set[tuple[int, int]],
) -> None:
    path = write_slide(kind=kind, levels=levels, missing=missing)
    ours = _levels(path)
    np.testing.assert_array_equal(ours[0], by_openslide(path))
    assert (ours[0][:128, :128] == 255).all()
    if levels == 2:
        assert (ours[1][128:256, :128] == 255).all()
        assert (ours[1][:128, :128] < 255).any()


@pytest.mark.parametrize("missing", [(0, 8), (1, 3), (2, 0)])
def test_aperios_missing_tiles_are_drawn_as_openslide_draws_them(
    write_slide: Callable[..., Path],
    by_openslide: Callable[..., RGB],
    missing: tuple[int, int],
) -> None:
    path = write_slide(kind="svs", levels=3, missing={missing})
    with open_slide(path) as slide:
        assert slide.back_end == "openslide"
        for level in range(3):
            np.testing.assert_array_equal(_whole(slide, level), by_openslide(path, level))


def _write_plain(path: Path, pixels: npt.NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, tile=(128, 128), metadata=None, **options)
    return path


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.uint8, {"photometric": "rgb"}),
        (np.uint8, {"photometric": "rgb", "compression": "lzw"}),
        (np.uint8, {"photometric": "rgb", "compression": "deflate"}),
        (np.uint8, {"photometric": "rgb", "compression": "deflate", "planarconfig": "separate"}),
        (np.uint16, {"photometric": "rgb", "compression": "lzw"}),
        (np.uint8, {"photometric": "minisblack", "compression": "jpeg"}),
        (np.uint8, {"photometric": "minisblack", "compression": "deflate"}),
    ],
    ids=str,
)
def test_other_tiffs_are_left_to_openslide(
    tmp_path: Path,
    by_openslide: Callable[..., RGB],
    dtype: type,
    options: dict[str, Any],
) -> None:
    rng = np.random.default_rng(0)
    is_grey = options["photometric"] == "minisblack"
    shape = (300, 400) if is_grey else (300, 400, 3)
    if options.get("planarconfig") == "separate":
        shape = (3, 300, 400)
    pixels = rng.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    path = _write_plain(tmp_path / "plain.tif", pixels, **options)
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.back_end, slide.dimensions) == ("openslide", (400, 300))
        assert slide.layout is None
        np.testing.assert_array_equal(slide.read(0, 0, 300, 0.5), by_openslide(path)[:, :300])
        assert slide.encoding(slide.reading(0.5)) is None


def test_aperios_jpeg_2000_is_left_to_openslide(
    tmp_path: Path, by_openslide: Callable[..., RGB]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3)).astype(np.uint8)
    path = _write_plain(
        tmp_path / "a.svs",
        pixels,
        photometric="rgb",
        compression=33005,
        description="Aperio Image Library v1\r\n400x300 |AppMag = 20|MPP = 0.5",
    )
    with open_slide(path) as slide:
        assert (slide.vendor, slide.back_end, slide.mpp) == ("aperio", "openslide", 0.5)
        np.testing.assert_array_equal(_whole(slide, 0), by_openslide(path))


_JFIF = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("is_rgb", "marker"), [(False, _ADOBE_RGB), (True, _JFIF)], ids=["YCbCr", "RGB"]
)
def test_tiles_that_contradict_their_tiff_are_left_to_openslide(
    write_slide: Callable[..., Path],
    by_openslide: Callable[..., RGB],
    is_rgb: bool,
    marker: bytes,
) -> None:
    options = {"is_rgb": is_rgb, "shared_tables": True}
    plain = write_slide("plain.tif", **options)
    path = write_slide(
        **options, change_tile=lambda _level, _number, jpeg: jpeg[:2] + marker + jpeg[2:]
    )
    with open_slide(path) as slide:
        assert slide.back_end == "openslide"
        # OpenSlide believes TIFF.
        np.testing.assert_array_equal(_whole(slide, 0), by_openslide(plain))


def test_of_pages_of_one_size_openslides_is_the_level(
    tmp_path: Path, write_slide: Callable[..., Path], by_openslide: Callable[..., RGB]
) -> None:
    """A page that does not say that it is a reduced one is no level, whatever its size."""
    path = write_slide(size_px=(512, 512), levels=1)
    foreign = np.zeros((256, 256, 3), np.uint8)
    level = np.full((256, 256, 3), 200, np.uint8)
    for pixels, subfiletype in ((foreign, 0), (level, 1)):
        tifffile.imwrite(
            path,
            pixels,
            append=True,
            tile=(128, 128),
            photometric="rgb",
            compression="jpeg",
            subfiletype=subfiletype,
            metadata=None,
        )
    assert by_openslide(path, 1).mean() == pytest.approx(200, abs=1)
    _assert_equal(_levels(path), [by_openslide(path), by_openslide(path, 1)])


@pytest.mark.parametrize(
    ("size", "unit", "mpp"),
    [(0.5, None, 0.5), (0.5, "µm", 0.5), (500, "nm", 0.5), (0.0005, "mm", 0.5), (7, "pixel", None)],
)
def test_the_units_of_ome(tmp_path: Path, size: float, unit: str | None, mpp: float | None) -> None:
    path = tmp_path / "a.ome.tif"
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(
            np.zeros((256, 256, 3), np.uint8),
            tile=(128, 128),
            photometric="rgb",
            compression="jpeg",
            metadata={"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size, **units},
        )
    with open_slide(path) as slide:
        assert slide.vendor == "ome-tiff"
        assert slide.file_mpp == (None if mpp is None else pytest.approx(mpp))


def test_the_first_image_of_an_ome_tiff_is_the_slide(tmp_path: Path) -> None:
    path = tmp_path / "two.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for value, edge, mpp in ((200, 512, 0.5), (50, 640, 2.0)):
            tiff.write(
                np.full((edge, edge, 3), value, np.uint8),
                tile=(128, 128),
                photometric="rgb",
                compression="jpeg",
                metadata={"axes": "YXS", "PhysicalSizeX": mpp, "PhysicalSizeY": mpp},
            )
    with open_slide(path) as slide:
        assert slide.level_dimensions == ((512, 512),)
        assert slide.mpp == 0.5
        assert slide.read(0, 0, 512, 0.5).mean() == pytest.approx(200, abs=1)


def test_a_stack_of_focal_planes_is_left_to_openslide(tmp_path: Path) -> None:
    path = tmp_path / "stack.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(
            np.zeros((3, 256, 256, 3), np.uint8),
            tile=(128, 128),
            photometric="rgb",
            compression="jpeg",
            metadata={"axes": "ZYXS"},
        )
    assert open_slide(path).back_end == "openslide"


def test_aperios_thumbnail_is_no_level(
    tmp_path: Path, write_slide: Callable[..., Path], by_openslide: Callable[..., RGB]
) -> None:
    path = write_slide(kind="svs", levels=1)
    tifffile.imwrite(
        path,
        np.zeros((200, 200, 3), np.uint8),
        append=True,
        photometric="rgb",
        compression="jpeg",
        rowsperstrip=16,
        metadata=None,
    )
    with openslide.OpenSlide(path) as theirs:
        assert set(theirs.associated_images) == {"thumbnail"}
    _assert_equal(_levels(path), [by_openslide(path)])


def test_a_damaged_first_tile_costs_only_itself(
    write_slide: Callable[..., Path], by_openslide: Callable[..., RGB]
) -> None:
    whole = by_openslide(write_slide("whole.tif", levels=1))
    path = write_slide(
        levels=1,
        change_tile=lambda _level, number, jpeg: bytes(len(jpeg)) if number == 0 else jpeg,
    )
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(128, 0, 400, 0.5), whole[:400, 128:528])
        with pytest.raises(InputError, match="x 0, y 0 of level 0"):
            slide.read(0, 0, 64, 0.5)


def test_a_real_slide(shared_data: Path, by_openslide: Callable[..., RGB]) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    _assert_equal(_levels(path), [by_openslide(path)])
    with open_slide(path) as slide:
        layout = slide.layout
    assert layout is not None
    assert (layout.vendor, layout.mpp) == ("aperio", 0.499)
    assert layout.levels[0].lengths.shape == (13, 10)


@pytest.mark.parametrize("name", ["boxes.tiff", "tcga-cr-7395-01a-01-ts1.svs"])
def test_real_files_that_openslide_reads(
    shared_data: Path, by_openslide: Callable[..., RGB], name: str
) -> None:
    path = shared_data / "slides" / name
    with open_slide(path) as slide:
        level = len(slide.level_dimensions) - 1
        np.testing.assert_array_equal(_whole(slide, level), by_openslide(path, level))


# Damage: whatever is done to a file, reading it ends in an `InputError` or in pixels.

_ROOM_BYTES = 3 * 2**30


def _judge(path: Path, levels: dict[tuple[int, int], RGB] | None) -> str | None:
    """Reads a file as a store's maker does; says what is wrong with that, if anything."""
    try:
        with open_slide(path, mpp=0.5) as slide:
            for number, size in enumerate(slide.level_dimensions):
                box = (min(size[0], 300), min(size[1], 300))
                pixels = slide.pixels.read_level(number, 0, 0, *box)
                if pixels.shape != (box[1], box[0], 3):
                    return f"level {number} has shape {pixels.shape}"
                if levels is not None and not np.array_equal(pixels, levels[size]):
                    return f"level {number} has other pixels"
            if levels is not None and len(slide.level_dimensions) != len(levels):
                return "a level is gone"
            slide.encoding(slide.reading(0.5))
    except InputError:
        return None
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return None


def _find_failures(
    cases: list[tuple[str, bytes]], path: Path, levels: dict[tuple[int, int], RGB] | None
) -> list[str]:
    """Tries damaged files in another process, which may crash, and may not take much memory."""
    context = multiprocessing.get_context("fork")
    failures, done = context.SimpleQueue(), context.Value("i", 0)

    def try_all() -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + _ROOM_BYTES, now + _ROOM_BYTES))
        found: list[str] = []
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        for name, content in cases:
            # Much faster than a new file for each.
            os.pwrite(file, content, 0)
            os.ftruncate(file, len(content))
            problem = _judge(path, levels)
            if problem is not None:
                found.append(f"{name}: {problem}")
            done.value += 1
        failures.put(found[:20])

    child = context.Process(target=try_all)
    child.start()
    child.join(300)
    if child.exitcode != 0:
        child.kill()
        return [f"exit code {child.exitcode} at {cases[min(done.value, len(cases) - 1)][0]}"]
    return failures.get()


_SMALL: dict[str, dict[str, Any]] = {
    "svs": {"kind": "svs", "shared_tables": True, "subsampling": "420", "quality": 80},
    "generic": {"kind": "generic", "subsampling": "420"},
    "philips": {"kind": "philips", "tile_px": 128, "missing": {(0, 1)}},
    "ome": {"kind": "ome", "bigtiff": True},
}


def _write_small(write_slide: Callable[..., Path], kind: str) -> Path:
    return write_slide(f"{kind}.tif", **{"size_px": (200, 150), "tile_px": 64, **_SMALL[kind]})


def _parts(path: Path) -> tuple[list[int], list[int]]:
    """Places in a file's header and directories, and in the bodies of its tiles."""
    with tifffile.TiffFile(path) as tiff:
        pages = [*tiff.pages, *(tiff.pages[0].pages or ())]
        in_tile = np.zeros(path.stat().st_size, bool)
        for page in pages:
            for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
                in_tile[offset : offset + length] = True
    return np.flatnonzero(~in_tile).tolist(), np.flatnonzero(in_tile).tolist()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", _SMALL)
def test_a_truncated_file_never_gives_other_pixels(
    write_slide: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    path = _write_small(write_slide, kind)
    with open_slide(path) as slide:
        assert slide.back_end == "jpeg_tiff" and len(slide.level_dimensions) == 2
        levels = {size: _whole(slide, level) for level, size in enumerate(slide.level_dimensions)}
    content = path.read_bytes()
    header, bodies = _parts(path)
    assert len(header) > 500
    cases = [(f"cut at {at}", content[:at]) for at in sorted({*header, *bodies[::11]})]
    failures = _find_failures(cases, tmp_path / "cut.tif", levels)
    assert not failures


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", _SMALL)
def test_a_damaged_header_never_breaks_the_reader(
    write_slide: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    path = _write_small(write_slide, kind)
    content = path.read_bytes()
    header, _ = _parts(path)
    rng = np.random.default_rng(0)
    cases: list[tuple[str, bytes]] = []
    for number in range(500):
        damaged = bytearray(content)
        places = rng.choice(header, int(rng.integers(1, 4)))
        for place in places:
            damaged[place] = int(rng.choice([0, 0xFF, damaged[place] ^ 1 << int(rng.integers(8))]))
        cases.append((f"{number}: changed {places.tolist()}", bytes(damaged)))
    assert not _find_failures(cases, tmp_path / "changed.tif", None)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_damaged_tiles_never_break_the_reader(
    write_slide: Callable[..., Path], tmp_path: Path
) -> None:
    path = _write_small(write_slide, "svs")
    content = path.read_bytes()
    _, bodies = _parts(path)
    rng = np.random.default_rng(0)
    cases: list[tuple[str, bytes]] = []
    for number in range(300):
        damaged = bytearray(content)
        place, length = int(rng.choice(bodies)), int(rng.integers(1, 40))
        damaged[place : place + length] = rng.bytes(min(length, len(damaged) - place))
        cases.append((f"{number}: {length} bytes at {place}", bytes(damaged)))
    assert not _find_failures(cases, tmp_path / "changed.tif", None)


def test_a_header_that_names_no_tile_is_damaged(write_slide: Callable[..., Path]) -> None:
    path = write_slide(levels=1)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = tiff.pages[0]
        for name in ("TileOffsets", "TileByteCounts"):
            page.tags[name].overwrite([0] * len(page.dataoffsets))
    with pytest.raises(InputError, match="names no tile at all of 700 x 600 px"):
        open_slide(path)
