import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openslide
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.slides import openslide_pixels
from eosin.slides.openslide_pixels import OpenSlidePixels, detect_vendor, mean_mpp

RGB = npt.NDArray[np.uint8]
_DAMAGED = 7
"""A tile in the second row and column."""


def _write_damaged(write_slide: Callable[..., Path]) -> Path:
    return write_slide(
        levels=1,
        change_tile=lambda _level, number, jpeg: bytes(len(jpeg)) if number == _DAMAGED else jpeg,
    )


def test_levels_and_pixels(
    write_slide: Callable[..., Path], by_openslide: Callable[..., RGB]
) -> None:
    path = write_slide(size_px=(700, 600), mpp=0.25, levels=3)
    pixels = OpenSlidePixels(path)
    assert (pixels.name, pixels.vendor) == ("openslide", "generic-tiff")
    assert pixels.mpp == pytest.approx(0.25)
    assert pixels.level_dimensions == ((700, 600), (350, 300), (175, 150))
    assert pixels.level_downsamples == (1.0, 2.0, 4.0)
    assert pixels.scales == ((1,), (1,), (1,))
    assert pixels.encoding(0) is None
    for level in range(3):
        box = pixels.read_level(level, 20, 30, 100, 90)
        np.testing.assert_array_equal(box, by_openslide(path, level, 20, 30, (100, 90)))
        assert box.flags.c_contiguous


def test_outside_is_white_on_every_side(write_slide: Callable[..., Path]) -> None:
    pixels = OpenSlidePixels(write_slide(size_px=(300, 200), levels=1))
    inside = pixels.read_level(0, 0, 0, 300, 200)
    around = pixels.read_level(0, -50, -50, 400, 300)
    np.testing.assert_array_equal(around[50:250, 50:350], inside)
    around[50:250, 50:350] = 255
    assert (around == 255).all()


def test_half_transparent_pixels_are_laid_on_white() -> None:
    rgba = np.array([[[100, 0, 200, 0], [100, 0, 200, 255], [100, 0, 200, 51]]], np.uint8)
    expected = [[[255, 255, 255], [100, 0, 200], [224, 204, 244]]]
    np.testing.assert_array_equal(openslide_pixels._on_white(rgba), expected)


def test_a_damaged_tile_costs_no_other(
    write_slide: Callable[..., Path], by_openslide: Callable[..., RGB]
) -> None:
    whole = by_openslide(write_slide("whole.tif", levels=1))
    pixels = OpenSlidePixels(_write_damaged(write_slide))
    for _ in range(2):
        with pytest.raises(InputError, match=r"a\.tif is damaged: no pixels at x 140, y 130"):
            pixels.read_level(0, 140, 130, 30, 30)
        np.testing.assert_array_equal(pixels.read_level(0, 256, 0, 99, 99), whole[:99, 256:355])


def test_damage_that_one_thread_meets_is_no_other_threads(
    write_slide: Callable[..., Path],
) -> None:
    """OpenSlide's handle refuses everything after an error, also what others are reading."""
    pixels = OpenSlidePixels(_write_damaged(write_slide))

    def is_sound(number: int) -> bool:
        row, column = divmod(number % 30, 6)
        try:
            pixels.read_level(0, column * 128, row * 128, 100, 100)
        except InputError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        sound = list(threads.map(is_sound, range(30 * 30)))
    assert [number % 30 for number, is_one in enumerate(sound) if not is_one] == [_DAMAGED] * 30


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_opens_its_own_handle(write_slide: Callable[..., Path]) -> None:
    pixels = OpenSlidePixels(write_slide())
    before = pixels.read_level(0, 0, 0, 300, 300)
    context = multiprocessing.get_context("fork")

    def read() -> None:
        theirs = pixels._handle
        np.testing.assert_array_equal(pixels.read_level(0, 0, 0, 300, 300), before)
        assert pixels._handle is not theirs

    children = [context.Process(target=read) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]


def test_all_slides_of_a_process_share_one_cache(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    caches: list[object] = []
    monkeypatch.setattr(openslide.OpenSlide, "set_cache", lambda _, cache: caches.append(cache))
    for _ in range(3):
        OpenSlidePixels(write_slide())
    assert len(caches) == 3 and len(set(map(id, caches))) == 1


def test_a_slide_without_a_usable_resolution(write_slide: Callable[..., Path]) -> None:
    assert OpenSlidePixels(write_slide(mpp=None)).mpp is None
    assert OpenSlidePixels(write_slide(mpp=352.8)).mpp is None
    assert OpenSlidePixels(write_slide(kind="svs", mpp=None)).mpp is None


def test_files_that_are_no_slides(tmp_path: Path) -> None:
    (tmp_path / "text.svs").write_text("not a slide")
    with pytest.raises(InputError, match=r"text\.svs is not a slide that OpenSlide knows"):
        OpenSlidePixels(tmp_path / "text.svs")
    with pytest.raises(InputError, match=r"absent\.svs"):
        OpenSlidePixels(tmp_path / "absent.svs")
    assert detect_vendor(tmp_path / "text.svs") is None
    assert detect_vendor(tmp_path / "absent.svs") is None


@pytest.mark.parametrize("kind", ["generic", "svs", "philips"])
def test_vendors(write_slide: Callable[..., Path], kind: str) -> None:
    vendors = {"generic": "generic-tiff", "svs": "aperio", "philips": "philips"}
    assert detect_vendor(write_slide(kind=kind)) == vendors[kind]


def test_a_forged_header_does_not_end_the_process(write_slide: Callable[..., Path]) -> None:
    """OpenSlide aborts where it cannot allocate a tile."""
    path = write_slide(levels=1)
    content = path.read_bytes()
    for tag in (b"\x42\x01", b"\x43\x01"):
        entry = tag + b"\x04\x00\x01\x00\x00\x00\x80\x00\x00\x00"
        assert content.count(entry) == 1
        content = content.replace(entry, entry[:8] + b"\x00\x00\x10\x00")
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"tiles of 1048576 x 1048576 px"):
        OpenSlidePixels(path)


@given(mpp=st.floats(0.05, 20), ratio=st.floats(0.981, 1.019))
def test_the_mpp_is_the_mean_of_both_axes(mpp: float, ratio: float) -> None:
    mean = mean_mpp(str(mpp), str(mpp * ratio))
    assert mean == pytest.approx(mpp * (1 + ratio) / 2)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        *((None, None), ("0.5", None), (None, "0.5"), ("", "0.5"), ("x", "0.5"), ("0.5", "0.6")),
        *(("0", "0"), ("-1", "-1"), ("nan", "nan"), ("inf", "inf"), ("353", "353"), (0.5, 0.25)),
    ],
)
def test_what_is_no_mpp(x: str | float | None, y: str | float | None) -> None:
    assert mean_mpp(x, y) is None
