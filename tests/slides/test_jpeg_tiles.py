import itertools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from eosin.errors import InputError
from eosin.slides.encoding import psnr_db
from eosin.slides.jpeg_tiff import read_layout
from eosin.slides.jpeg_tiles import JpegTilesPixels, first_jpeg
from eosin.slides.reader import open_slide

RGB = npt.NDArray[np.uint8]
_SCALES = (1, 2, 4, 8)
_CACHES = (0, 150_000, 2**26)
"""None, one of three tiles of 128 x 128 px, and one of all that a test reads."""


def _open(path: Path, cache_bytes: int = 0) -> JpegTilesPixels:
    layout = read_layout(path)
    assert layout is not None
    return JpegTilesPixels(path, layout, cache_bytes)


def _whole(pixels: JpegTilesPixels, level: int = 0, scale: int = 1) -> RGB:
    width, height = pixels.level_dimensions[level]
    return pixels.read_level(level, 0, 0, -(-width // scale), -(-height // scale), scale)


def _cut(whole: RGB, x: int, y: int, width: int, height: int) -> RGB:
    """A box of an image that has white all around it."""
    box = np.full((height, width, 3), 255, np.uint8)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, whole.shape[1]), min(y + height, whole.shape[0])
    if right > left and bottom > top:
        box[top - y : bottom - y, left - x : right - x] = whole[top:bottom, left:right]
    return box


@pytest.mark.parametrize("cache_bytes", _CACHES)
@pytest.mark.parametrize("scale", _SCALES)
def test_any_box_is_that_part_of_the_level_and_white_outside(
    write_slide: Callable[..., Path], scale: int, cache_bytes: int
) -> None:
    path = write_slide(missing={(0, 4), (0, 11)}, subsampling="420", levels=1)
    pixels, whole = _open(path, cache_bytes), _whole(_open(path), scale=scale)
    rng = np.random.default_rng(scale)
    for _ in range(100):
        x, y = (int(rng.integers(-150, 850)) // scale for _ in range(2))
        width, height = (int(rng.integers(0, 300)) // scale for _ in range(2))
        box = pixels.read_level(0, x, y, width, height, scale)
        np.testing.assert_array_equal(box, _cut(whole, x, y, width, height))


@pytest.mark.parametrize("scale", _SCALES)
def test_boxes_over_each_edge_and_corner(write_slide: Callable[..., Path], scale: int) -> None:
    path = write_slide(size_px=(256 + 40, 128 + 72), tile_px=128, levels=1)
    pixels, whole = _open(path), _whole(_open(path), scale=scale)
    height, width, _ = whole.shape
    for x, y in itertools.product((-20, 0, width // 2, width - 10), (-20, 0, height - 10)):
        box = pixels.read_level(0, x, y, 40, 40, scale)
        np.testing.assert_array_equal(box, _cut(whole, x, y, 40, 40))
    for x, y in ((-100, 0), (0, -100), (width, 0), (0, height), (10**6, 10**6), (-(10**6), 0)):
        assert (pixels.read_level(0, x, y, 50, 50, scale) == 255).all()
    assert pixels.read_level(0, 5, 5, 0, 10, scale).shape == (10, 0, 3)


@pytest.mark.parametrize("options", [{"subsampling": "420"}, {"is_rgb": True}], ids=str)
@pytest.mark.parametrize("tile_px", [240, 256])
def test_a_reduced_decoding_is_near_the_area_average_of_tissue(
    write_slide: Callable[..., Path],
    tissue_mosaic: Callable[[int, int], RGB],
    tile_px: int,
    options: dict[str, object],
) -> None:
    path = write_slide(
        image=tissue_mosaic(960, 960), tile_px=tile_px, quality=85, levels=1, **options
    )
    pixels = _open(path)
    whole = _whole(pixels)
    for scale in (2, 4, 8):
        edge = 960 // scale
        average = cv2.resize(whole, (edge, edge), interpolation=cv2.INTER_AREA)
        reduced = _whole(pixels, scale=scale)
        assert psnr_db(reduced, average) > 45
        # Off by one pixel it would be far from that.
        assert psnr_db(reduced[1:], average[:-1]) < 35
        assert psnr_db(reduced[:, 1:], average[:, :-1]) < 35


def test_a_reduced_decoding_of_a_real_slide(shared_data: Path) -> None:
    pixels = _open(shared_data / "slides" / "CMU-1-Small-Region.svs")
    whole = _whole(pixels)[:2960, :2216]
    for scale in (2, 4, 8):
        size = (2216 // scale, 2960 // scale)
        average = cv2.resize(whole, size, interpolation=cv2.INTER_AREA)
        assert psnr_db(pixels.read_level(0, 0, 0, *size, scale), average) > 50


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_a_reduced_decoding_shifts_nothing(
    write_slide: Callable[..., Path], subsampling: str, scale: int
) -> None:
    across = np.linspace(20, 230, 512)
    ramps = np.stack(
        [np.tile(across, (384, 1)), np.tile(across[::-1], (384, 1)), np.full((384, 512), 128)], -1
    )
    path = write_slide(
        image=np.round(ramps).astype(np.uint8), quality=100, subsampling=subsampling, levels=1
    )
    expected = ramps.reshape(384 // scale, scale, 512 // scale, scale, 3).mean((1, 3))
    reduced = _whole(_open(path), scale=scale)
    assert reduced.shape == expected.shape
    # libjpeg cannot reduce the two axes of a colour channel by different factors.
    most = 4 if (subsampling, scale) == ("422", 8) else 2.5
    assert np.abs(reduced - expected).max() < most
    assert np.abs((reduced - expected).mean((0, 1))).max() < 0.5


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_a_reduced_level_counts_a_part_of_a_pixel_as_one(
    write_slide: Callable[..., Path], scale: int
) -> None:
    pixels = _open(write_slide(size_px=(130, 257), levels=1))
    reduced = _whole(pixels, scale=scale)
    assert reduced.shape == (-(-257 // scale), -(-130 // scale), 3)
    assert not (reduced == 255).all(-1).any()


def _row_by_row(step: int, edge: int) -> list[tuple[int, int, int]]:
    return [(x, y, edge) for y in range(0, 600, step) for x in range(0, 700, step)]


@pytest.mark.parametrize("cache_bytes", _CACHES)
def test_the_cache_changes_no_pixel_in_whatever_order(
    write_slide: Callable[..., Path], cache_bytes: int
) -> None:
    path = write_slide(subsampling="420", missing={(0, 9)})
    whole = [_whole(_open(path), level) for level in (0, 1)]
    rng = np.random.default_rng(0)
    boxes = [
        *_row_by_row(100, 100),
        *_row_by_row(90, 130),
        *rng.permutation(_row_by_row(70, 90)).tolist(),
        *([(30, 30, 200)] * 4),
    ]
    pixels = _open(path, cache_bytes)
    for x, y, edge in boxes:
        for level in (0, 1):
            box = pixels.read_level(level, x, y, edge, edge)
            np.testing.assert_array_equal(box, _cut(whole[level], x, y, edge, edge))


def test_boxes_belong_to_who_read_them(write_slide: Callable[..., Path]) -> None:
    """What is decoded later, or painted on a box, shows in no other box."""
    pixels = _open(write_slide(levels=1), cache_bytes=2**26)
    first = pixels.read_level(0, 0, 0, 100, 100)
    before = first.copy()
    pixels.read_level(0, 300, 300, 200, 200)
    np.testing.assert_array_equal(first, before)
    first[:] = 0
    np.testing.assert_array_equal(pixels.read_level(0, 0, 0, 100, 100), before)


@pytest.mark.parametrize("cache_bytes", _CACHES)
def test_threads_share_a_slide(write_slide: Callable[..., Path], cache_bytes: int) -> None:
    path = write_slide(subsampling="420", missing={(0, 9)})
    whole = {scale: _whole(_open(path), scale=scale) for scale in _SCALES}
    rng = np.random.default_rng(0)
    boxes = rng.permutation(_row_by_row(60, 150) * 3).tolist()
    pixels = _open(path, cache_bytes)

    def is_right(number: int) -> bool:
        x, y, edge = boxes[number]
        scale = _SCALES[number % 4]
        x, y, edge = x // scale, y // scale, edge // scale
        box = pixels.read_level(0, x, y, edge, edge, scale)
        return np.array_equal(box, _cut(whole[scale], x, y, edge, edge))

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(is_right, range(len(boxes))))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("cache_bytes", _CACHES)
def test_forked_processes_share_a_slide(write_slide: Callable[..., Path], cache_bytes: int) -> None:
    path = write_slide(levels=1)
    whole, pixels = _whole(_open(path)), _open(path, cache_bytes)
    pixels.read_level(0, 30, 30, 200, 200)

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for x, y, edge in rng.permutation(_row_by_row(60, 150)).tolist():
            box = pixels.read_level(0, x, y, edge, edge)
            np.testing.assert_array_equal(box, _cut(whole, x, y, edge, edge))

    context = multiprocessing.get_context("fork")
    children = [context.Process(target=read, args=(seed,)) for seed in range(3)]
    for child in children:
        child.start()
    read(9)
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]


_READ_ALL = """
import resource, sys
from pathlib import Path
from eosin.slides.reader import open_slide

with open_slide(sys.argv[1], mpp=0.5, in_order=True) as slide:
    width, height = slide.dimensions

    def read(step):
        for y in range(0, height, step):
            for x in range(0, width, step):
                slide.read(x, y, 300, 0.5)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    before = read(8000)
    read(290)
    # No box ever uses the rest of these tiles.
    print(read(530) - before)
"""


def test_reading_a_large_slide_takes_no_more_memory_than_its_cache(
    write_slide: Callable[..., Path],
) -> None:
    """Three times as much as the cache may hold goes through it."""
    tile = np.full((512, 512, 3), 200, np.uint8)
    path = write_slide(image=np.tile(tile, (16, 16, 1)), tile_px=256, levels=1)
    command = [sys.executable, "-c", _READ_ALL, str(path)]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 64 * 2**20 + 30 * 2**20


def test_tiles_in_any_order_in_the_file(write_slide: Callable[..., Path], tmp_path: Path) -> None:
    """Neighbours may lie side by side, apart, backwards, or be one and the same."""
    path = write_slide(levels=1)
    layout = read_layout(path)
    assert layout is not None
    whole, level = _whole(_open(path)), layout.levels[0]
    content, shuffled = path.read_bytes(), bytearray()
    rng = np.random.default_rng(0)
    for number in rng.permutation(level.offsets.size):
        offset, length = int(level.offsets.flat[number]), int(level.lengths.flat[number])
        shuffled += rng.bytes(int(rng.choice([0, 1, 50_000])))
        level.offsets.flat[number] = len(shuffled)
        shuffled += content[offset : offset + length]
    (tmp_path / path.name).write_bytes(shuffled)
    np.testing.assert_array_equal(_whole(JpegTilesPixels(tmp_path / path.name, layout)), whole)
    level.offsets[:], level.lengths[:] = level.offsets[1, 1], level.lengths[1, 1]
    same = _whole(JpegTilesPixels(tmp_path / path.name, layout))
    np.testing.assert_array_equal(same[:128, :128], same[128:256, 256:384])


def test_a_tile_of_another_size_than_its_place_is_damage(
    write_slide: Callable[..., Path], by_openslide: Callable[..., RGB]
) -> None:
    """Also where a reduced decoding of a larger one would fit."""
    larger = write_slide("larger.tif", size_px=(256, 256), tile_px=256, levels=1)
    smaller = write_slide("smaller.tif", size_px=(64, 64), tile_px=64, levels=1)
    for other in (larger, smaller):
        layout = read_layout(other)
        assert layout is not None
        jpeg = first_jpeg(other, layout.levels[0])
        assert jpeg is not None

        def put(_level: int, number: int, own: bytes, other: bytes = jpeg) -> bytes:
            return other if number == 7 else own

        pixels = _open(write_slide(change_tile=put, levels=1))
        for scale in _SCALES:
            pixels.read_level(0, 0, 0, 128 // scale, 128 // scale, scale)
            with pytest.raises(InputError, match=r"damaged: no pixels at x 128, y 128 of level 0"):
                pixels.read_level(0, 128 // scale, 128 // scale, 10, 10, scale)


@pytest.mark.parametrize("part", [0.2, 0.5, 0.99])
@pytest.mark.parametrize("scale", _SCALES)
def test_a_half_tile_is_never_given(
    write_slide: Callable[..., Path], scale: int, part: float
) -> None:
    def cut(_level: int, number: int, jpeg: bytes) -> bytes:
        return jpeg[: int(len(jpeg) * part)] if number == 7 else jpeg

    whole = _whole(_open(write_slide("whole.tif", levels=1)), scale=scale)
    pixels = _open(write_slide(change_tile=cut, levels=1))
    with pytest.raises(InputError, match=r"x 128, y 128 of level 0"):
        pixels.read_level(0, 0, 0, 600 // scale, 500 // scale, scale)
    # It spoils no other box.
    beside = pixels.read_level(0, 256 // scale, 128 // scale, 256 // scale, 200 // scale, scale)
    expected = _cut(whole, 256 // scale, 128 // scale, 256 // scale, 200 // scale)
    np.testing.assert_array_equal(beside, expected)


def test_the_place_of_damage_is_in_pixels_of_level_0(write_slide: Callable[..., Path]) -> None:
    path = write_slide(
        levels=2, change_tile=lambda level, number, jpeg: jpeg[:-99] if level else jpeg
    )
    with pytest.raises(InputError, match=r"a\.tif is damaged: no pixels at x 256, y 0 of level 1"):
        _open(path).read_level(1, 128, 0, 10, 10)


def test_tiles_beyond_the_end_of_the_file(write_slide: Callable[..., Path]) -> None:
    path = write_slide(levels=1)
    layout = read_layout(path)
    assert layout is not None
    level = layout.levels[0]
    offset, length = int(level.offsets[0, 0]), int(level.lengths[0, 0])
    size = path.stat().st_size
    for place, count in ((size - 5, 6), (size, 1), (2**62, 2**62), (2**63 - 1, 2**63 - 1)):
        level.offsets[0, 0], level.lengths[0, 0] = place, count
        with pytest.raises(InputError, match="truncated: 1 of its 30 tiles"):
            JpegTilesPixels(path, layout)
    for place, count in ((-1, 5), (5, -1)):
        level.offsets[0, 0], level.lengths[0, 0] = place, count
        with pytest.raises(InputError, match="truncated"):
            JpegTilesPixels(path, layout)
    # What was never scanned is nowhere.
    level.offsets[0, 0], level.lengths[0, 0] = 2**62, 0
    assert (JpegTilesPixels(path, layout).read_level(0, 0, 0, 128, 128) == 255).all()
    level.offsets[0, 0], level.lengths[0, 0] = offset, length
    assert (JpegTilesPixels(path, layout).read_level(0, 0, 0, 128, 128) < 255).any()


def test_a_file_that_shrinks_while_it_is_read(write_slide: Callable[..., Path]) -> None:
    path = write_slide(levels=1)
    pixels = _open(path)
    before = pixels.read_level(0, 0, 0, 128, 128)
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(pixels.read_level(0, 0, 0, 128, 128), before)
    with pytest.raises(InputError, match=r"a\.tif became shorter while it was read"):
        pixels.read_level(0, 500, 500, 128, 128)


def test_a_file_that_is_not_there(write_slide: Callable[..., Path], tmp_path: Path) -> None:
    layout = read_layout(write_slide("gone.tif"))
    assert layout is not None
    with pytest.raises(InputError, match=r"gone\.tif cannot be opened: No such file"):
        JpegTilesPixels(tmp_path / "gone.tif", layout)


def test_a_closed_slide_holds_no_file(write_slide: Callable[..., Path]) -> None:
    path = write_slide()

    def held() -> int:
        links = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        return links.count(str(path.resolve()))

    slides = [open_slide(path) for _ in range(3)]
    assert held() == 3
    for slide in slides:
        slide.close()
    assert held() == 0


def test_the_encoding_is_of_the_first_tile_that_was_scanned(
    write_slide: Callable[..., Path],
) -> None:
    pixels = _open(write_slide(missing={(0, 0), (0, 1)}, subsampling="422", quality=77))
    assert str(pixels.encoding(0)) == "JPEG, quality 77, 4:2:2"
