import math

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from eosin.slides.grid import MCU_PX, lay_grid, step_px
from eosin.slides.resolution import choose_reading

_SIZES = st.tuples(st.integers(1, 3000), st.integers(1, 3000))
_FOOTPRINTS = st.one_of(st.integers(16, 1500), st.floats(16, 1500))
_STEPS = st.floats(0.3, 1.5)
"""As a fraction of the footprint: less than 1 overlaps, more leaves gaps."""


def _mask(draw_from: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(draw_from)
    return rng.random((max(1, size[1] // 16), max(1, size[0] // 16))) < rng.random()


@settings(deadline=None)
@given(
    size=_SIZES,
    footprint=_FOOTPRINTS,
    step=_STEPS,
    least=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_tiles_lie_inside_a_step_apart_and_hold_enough_tissue(
    size: tuple[int, int], footprint: float, step: float, least: float, seed: int
) -> None:
    grid = lay_grid(_mask(seed, size), size, footprint, footprint * step, least)
    whole_px, step_whole_px = math.floor(footprint), math.floor(footprint * step)
    assert (grid.x_px >= 0).all() and (grid.x_px + whole_px <= size[0]).all()
    assert (grid.y_px >= 0).all() and (grid.y_px + whole_px <= size[1]).all()
    assert (np.diff(np.unique(grid.x_px)) >= step_whole_px).all()
    assert (np.diff(np.unique(grid.y_px)) >= step_whole_px).all()
    assert len(set(zip(grid.x_px.tolist(), grid.y_px.tolist(), strict=True))) == len(grid)
    assert (grid.tissue >= least).all() and (grid.tissue <= 1).all()


@settings(deadline=None)
@given(size=_SIZES, footprint=_FOOTPRINTS)
@example(size=(16, 16), footprint=16.000000000000004)
def test_a_slide_full_of_tissue_gives_the_whole_grid(
    size: tuple[int, int], footprint: float
) -> None:
    mask = np.ones((max(1, size[1] // 16), max(1, size[0] // 16)), bool)
    grid = lay_grid(mask, size, footprint, footprint, 1.0)
    # A footprint that is too large by a rounding error fits all the same.
    across, down = (math.floor(side / footprint + 1e-6) for side in size)
    assert len(grid) == across * down
    assert (grid.tissue == 1).all()


@settings(deadline=None)
@given(size=_SIZES, footprint=_FOOTPRINTS, step=_STEPS)
def test_as_many_tiles_as_fit(size: tuple[int, int], footprint: float, step: float) -> None:
    assume(min(size) > footprint + 1)
    grid = lay_grid(np.ones((30, 40), bool), size, footprint, footprint * step, 0.0)
    last = (grid.x_px.max() + footprint, grid.y_px.max() + footprint)
    assert all(end > edge - footprint * step - 1 for end, edge in zip(last, size, strict=True))


@settings(deadline=None)
@given(size=_SIZES, footprint=_FOOTPRINTS)
def test_a_slide_without_tissue_gives_no_tile(size: tuple[int, int], footprint: float) -> None:
    mask = np.zeros((30, 40), bool)
    assert len(lay_grid(mask, size, footprint, footprint, 0.01)) == 0


def test_tiles_come_in_reading_order() -> None:
    grid = lay_grid(np.ones((4, 6), bool), (300, 200), 100, 100, 0.5)
    assert grid.x_px.tolist() == [0, 100, 200, 0, 100, 200]
    assert grid.y_px.tolist() == [0, 0, 0, 100, 100, 100]


def test_overlapping_tiles_and_tiles_with_gaps() -> None:
    mask = np.ones((4, 6), bool)
    assert lay_grid(mask, (300, 100), 100, 50, 0.5).x_px.tolist() == [0, 50, 100, 150, 200]
    assert lay_grid(mask, (300, 100), 100, 120, 0.5).x_px.tolist() == [0, 120]


def test_the_fraction_counts_parts_of_mask_pixels() -> None:
    mask = np.array([[True, False], [False, False]])
    grid = lay_grid(mask, (100, 100), 40, 40, 0.0)
    assert grid.tissue.tolist() == pytest.approx([1.0, 0.25, 0.25, 0.0625])


def test_a_fractional_footprint_does_not_drift() -> None:
    grid = lay_grid(np.ones((10, 1000), bool), (100_000, 1100), 1013.06, 1013.06, 0.5)
    assert grid.x_px[-1] == round((len(grid) - 1) * 1013.06)


@given(tile_px=st.integers(16, 8192), overlap=st.floats(0, 0.999), is_native=st.booleans())
def test_neighbours_overlap_as_asked_but_for_the_blocks_of_jpeg(
    tile_px: int, overlap: float, is_native: bool
) -> None:
    overlap_px = math.floor(tile_px * overlap)
    step = step_px(tile_px, overlap_px, is_native)
    assert step > 0
    if is_native:
        assert step % MCU_PX == 0
        # Never more overlap than asked for, and less by less than a block.
        assert tile_px - overlap_px <= step < tile_px - overlap_px + MCU_PX
    else:
        assert step == tile_px - overlap_px
    if tile_px % MCU_PX == 0 or overlap_px >= MCU_PX - 1:
        assert step <= tile_px


@settings(deadline=None)
@given(
    error=st.floats(0.985, 1.015),
    ratio=st.floats(0.999, 1.001),
    level=st.integers(0, 2),
    mpp=st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0]),
    tile_px=st.integers(16, 600),
    overlap_px=st.integers(0, 15),
)
def test_native_tiles_start_where_blocks_of_jpeg_start(
    error: float, ratio: float, level: int, mpp: float, tile_px: int, overlap_px: int
) -> None:
    downsamples = [1.0, 4 * ratio, 16 * ratio]
    slide_mpp = mpp / downsamples[level] * error
    reading = choose_reading(slide_mpp, downsamples, [(1, 2, 4, 8)] * 3, mpp)
    assert reading is not None and reading.is_native and reading.level == level
    step = step_px(tile_px, overlap_px, reading.is_native)
    grid = lay_grid(
        np.ones((1, 10), bool),
        (50_000, 600),
        tile_px * reading.downsample,
        step * reading.downsample,
        0.0,
    )
    assert len(grid) > 0 or tile_px * reading.downsample > 600
    starts = np.round(np.unique(grid.x_px) / reading.downsample).astype(int)
    np.testing.assert_array_equal(starts, np.arange(len(starts)) * step)
