import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.slides.grid import lay_grid

_SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
_FOOTPRINTS = st.one_of(st.integers(16, 1500), st.floats(16, 1500))


def _mask(draw_from: int, size: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(draw_from)
    return rng.random((max(1, size[1] // 16), max(1, size[0] // 16))) < rng.random()


@settings(deadline=None)
@given(size=_SIZES, footprint=_FOOTPRINTS, least=st.floats(0, 1), seed=st.integers(0, 999))
def test_tiles_lie_inside_do_not_overlap_and_hold_enough_tissue(
    size: tuple[int, int], footprint: float, least: float, seed: int
) -> None:
    grid = lay_grid(_mask(seed, size), size, footprint, least)
    whole_px = math.floor(footprint)
    assert (grid.x_px >= 0).all() and (grid.x_px + whole_px <= size[0]).all()
    assert (grid.y_px >= 0).all() and (grid.y_px + whole_px <= size[1]).all()
    assert (np.diff(np.unique(grid.x_px)) >= whole_px).all()
    assert (np.diff(np.unique(grid.y_px)) >= whole_px).all()
    assert len(set(zip(grid.x_px.tolist(), grid.y_px.tolist(), strict=True))) == len(grid)
    assert (grid.tissue >= least).all() and (grid.tissue <= 1).all()


@settings(deadline=None)
@given(size=_SIZES, footprint=_FOOTPRINTS)
def test_a_slide_full_of_tissue_gives_the_whole_grid(
    size: tuple[int, int], footprint: float
) -> None:
    mask = np.ones((max(1, size[1] // 16), max(1, size[0] // 16)), bool)
    grid = lay_grid(mask, size, footprint, 1.0)
    assert len(grid) == math.floor(size[0] / footprint) * math.floor(size[1] / footprint)
    assert (grid.tissue == 1).all()


@settings(deadline=None)
@given(size=_SIZES, footprint=_FOOTPRINTS)
def test_a_slide_without_tissue_gives_no_tile(size: tuple[int, int], footprint: float) -> None:
    assert len(lay_grid(np.zeros((30, 40), bool), size, footprint, 0.01)) == 0


def test_tiles_come_in_reading_order() -> None:
    grid = lay_grid(np.ones((4, 6), bool), (300, 200), 100, 0.5)
    assert grid.x_px.tolist() == [0, 100, 200, 0, 100, 200]
    assert grid.y_px.tolist() == [0, 0, 0, 100, 100, 100]


def test_the_fraction_counts_parts_of_mask_pixels() -> None:
    mask = np.array([[True, False], [False, False]])
    grid = lay_grid(mask, (100, 100), 40, 0.0)
    assert grid.tissue.tolist() == pytest.approx([1.0, 0.25, 0.25, 0.0625])


def test_a_fractional_footprint_does_not_drift() -> None:
    grid = lay_grid(np.ones((10, 1000), bool), (100_000, 1100), 1013.06, 0.5)
    assert grid.x_px[-1] == round((len(grid) - 1) * 1013.06)
