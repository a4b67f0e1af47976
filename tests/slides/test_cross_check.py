from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from eosin.errors import InputError
from eosin.slides import cross_check
from eosin.slides.cross_check import check_pixels
from eosin.slides.reader import Slide, open_slide

RGB = npt.NDArray[np.uint8]
_PLACES = [(x, y) for y in range(0, 384, 128) for x in range(0, 512, 128)]


class _Wrong:
    """A back end that errs in one place, or everywhere."""

    def __init__(self, pixels: Any, err: Callable[[RGB], RGB], place: tuple[int, int] | None):
        self._pixels, self._err, self._place = pixels, err, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pixels, name)

    def read_level(self, level: int, x_px: int, y_px: int, *size: int) -> RGB:
        box = self._pixels.read_level(level, x_px, y_px, *size)
        return box if self._place not in (None, (x_px, y_px)) else self._err(box)


def _check(slide: Slide, mpp: float, count: int = 12) -> None:
    check_pixels(slide, _PLACES, 128, mpp, count, "seed")


@pytest.mark.parametrize("kind", ["generic", "svs", "philips", "ome"])
def test_slides_that_are_read_rightly_pass(write_slide: Callable[..., Path], kind: str) -> None:
    path = write_slide(kind=kind, size_px=(2051, 1029), factor=4, levels=2, subsampling="420")
    with open_slide(path) as slide:
        for mpp in (0.5, 0.75, 1.0, 2.0, 3.1, 8.0):
            check_pixels(slide, [(100, 36), (500, 0), (0, 0)], 64, mpp, 3, "seed")


def test_tissue_passes_at_levels_of_a_fractional_downsample(
    write_slide: Callable[..., Path], tissue_mosaic: Callable[[int, int], RGB]
) -> None:
    path = write_slide(image=tissue_mosaic(1001, 1999), mpp=0.25, subsampling="420")
    places = [(x, y) for y in range(0, 1500, 130) for x in range(0, 700, 130)]
    with open_slide(path) as slide:
        assert not slide.level_downsamples[1].is_integer()
        for mpp in (0.25, 0.4, 0.5, 0.7, 1.0):
            check_pixels(slide, places, 64, mpp, 40, "seed")


@pytest.mark.parametrize(
    "err",
    [
        lambda box: np.roll(box, 1, 0),
        lambda box: np.roll(box, 1, 1),
        lambda box: box[..., ::-1],
        lambda box: box ^ 1,
        lambda box: np.full_like(box, 255),
        np.transpose,
    ],
    ids=["down", "right", "BGR", "last bit", "white", "turned"],
)
def test_wrong_pixels_are_found(
    write_slide: Callable[..., Path], err: Callable[[RGB], RGB]
) -> None:
    if err is np.transpose:

        def err(box: RGB) -> RGB:
            return box.swapaxes(0, 1)

    with open_slide(write_slide(size_px=(1024, 768), levels=2)) as slide:
        for mpp in (0.5, 1.0, 1.3):
            _check(slide, mpp)
        slide.pixels = _Wrong(slide.pixels, err, None)  # pyright: ignore
        for mpp in (0.5, 1.0, 1.3):
            with pytest.raises(InputError, match="is not what OpenSlide reads"):
                _check(slide, mpp)


def test_a_wrong_reduced_decoding_is_found(write_slide: Callable[..., Path]) -> None:
    def err(box: RGB) -> RGB:
        return np.roll(box, 20, 1) if len(box) == 128 else box

    with open_slide(write_slide(size_px=(1024, 768), levels=1)) as slide:
        slide.pixels = _Wrong(slide.pixels, err, None)  # pyright: ignore
        with pytest.raises(InputError, match=r"of 1\.0 mpp is not what OpenSlide reads"):
            _check(slide, 1.0)


def test_one_wrong_tile_is_found_where_all_are_compared(
    write_slide: Callable[..., Path],
) -> None:
    place = _PLACES[7]
    with open_slide(write_slide(size_px=(512, 384), levels=1)) as slide:
        slide.pixels = _Wrong(slide.pixels, lambda box: box ^ 1, place)  # pyright: ignore
        with pytest.raises(InputError, match=f"the tile at x {place[0]}, y {place[1]} of level 0"):
            _check(slide, 0.5, count=100)


def _compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    places: list[tuple[int, int]] = []
    monkeypatch.setattr(
        cross_check, "_check_tile", lambda _slide, _oracle, place, *_: places.append(place)
    )
    return places


def test_the_choice_depends_on_the_seed_alone(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = _compared(monkeypatch)
    with open_slide(write_slide()) as slide:
        for seed in ("a", "a", "b"):
            check_pixels(slide, _PLACES, 128, 0.5, 4, seed)
        assert places[:4] == places[4:8] != places[8:]
        assert len(set(places[:4])) == 4 and set(places) <= set(_PLACES)
        check_pixels(slide, [], 128, 0.5, 4, "a")
        check_pixels(slide, _PLACES, 128, 0.5, 0, "a")
        assert len(places) == 12


def test_what_openslide_reads_or_does_not_see_is_passed_over(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    places = _compared(monkeypatch)
    with open_slide(write_slide("b.tif", kind="svs", missing={(1, 0)})) as slide:
        assert slide.back_end == "openslide"
        _check(slide, 0.5)
    assert not places
    with open_slide(write_slide("c.tif", kind="ome")) as slide:
        # Level 1 lies in a sub-directory, which OpenSlide does not look into.
        _check(slide, 1.0)
        assert not places
        _check(slide, 0.5)
        assert places


def test_damage_is_not_taken_for_an_error_of_the_reader(
    write_slide: Callable[..., Path],
) -> None:
    path = write_slide(
        levels=1,
        change_tile=lambda _level, number, jpeg: bytes(len(jpeg)) if number == 7 else jpeg,
    )
    with open_slide(path) as slide:
        _check(slide, 0.5)


def test_a_real_slide(shared_data: Path) -> None:
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        places = [(x, y) for y in range(0, 2400, 300) for x in range(0, 1600, 300)]
        for mpp in (0.499, 0.7, 1.0, 2.0):
            check_pixels(slide, places, 128, mpp, 10, "seed")
