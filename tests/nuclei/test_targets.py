"""Targets: symmetric, the same wherever a nucleus lies, and on request those of the authors."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from eosin.nuclei.targets import make_targets

Map = NDArray[np.int32]


def draw_map(seed: int, side: int = 48, margin: int = 2) -> Map:
    """Ellipses over each other, so that some are cut in two; none within the margin."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    drawn = np.zeros((side, side), np.int32)
    for number in range(1, int(generator.integers(2, 12))):
        middle_y, middle_x = generator.uniform(0, side, 2)
        long, short = generator.uniform(2, 10, 2)
        drawn[((y - middle_y) / long) ** 2 + ((x - middle_x) / short) ** 2 <= 1] = number
    drawn[:margin] = drawn[-margin or side :] = 0
    drawn[:, :margin] = drawn[:, -margin or side :] = 0
    return drawn


def types_of(drawn: Map) -> NDArray[np.int64]:
    return np.arange(int(drawn.max()), dtype=np.int64) % 3


def parts_of(drawn: Map) -> list[NDArray[np.bool_]]:
    """The connected parts of each number, as masks."""
    masks: list[NDArray[np.bool_]] = []
    for number in np.unique(drawn[drawn > 0]):
        labels, count = ndimage.label(drawn == number)
        masks += [labels == each for each in range(1, count + 1)]
    return masks


def slow_official(drawn: Map, out_px: int) -> NDArray[np.float32]:
    """The authors' maps, by another road: one nucleus and one axis at a time, in float32."""
    side = drawn.shape[0]
    begin = (side - out_px) // 2
    middle = slice(begin, begin + out_px)
    hv = np.zeros((2, side, side), np.float32)
    for mask in parts_of(drawn):
        if mask[middle, middle].sum() < 30:
            continue
        ys, xs = np.nonzero(mask)
        if ys.min() < 2 or xs.min() < 2:
            continue
        for channel, places in ((0, xs), (1, ys)):
            inside = places - places.min() + 2
            centre = int(float(inside.sum()) / len(inside) + 0.5)
            distance = (inside + 1 - centre).astype(np.float32)
            low, high = distance.min(), distance.max()
            scaled = [
                value / -low if value < 0 else value / high if value > 0 else value
                for value in distance
            ]
            hv[channel, ys, xs] = scaled
    return hv[:, middle, middle]


def slow_centred(drawn: Map, out_px: int) -> NDArray[np.float64]:
    """Distances to the centre of mass, as the definition has them."""
    begin = (drawn.shape[0] - out_px) // 2
    middle = slice(begin, begin + out_px)
    hv = np.zeros((2, *drawn.shape))
    for mask in parts_of(drawn):
        if mask[middle, middle].sum() < 30:
            continue
        ys, xs = np.nonzero(mask)
        for channel, places in ((0, xs), (1, ys)):
            distance = places - places.mean()
            reach = np.where(distance < 0, -distance.min(), distance.max())
            near = np.abs(distance) < 1e-9
            hv[channel, ys, xs] = np.where(near, 0, distance / np.where(near, 1, reach))
    return hv[:, middle, middle]


@pytest.mark.parametrize("radius", [4, 4.5, 5, 7.5])
def test_a_disc_has_symmetric_maps(radius: float) -> None:
    side = 20 if radius % 1 else 21
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    disc = (y**2 + x**2 <= radius**2).astype(np.int32)
    horizontal, vertical = make_targets(disc, np.zeros(1, np.int64), side).hv
    assert np.array_equal(horizontal, -horizontal[:, ::-1])
    assert np.array_equal(horizontal, horizontal[::-1])
    assert np.array_equal(vertical, horizontal.T)
    inside = disc > 0
    assert horizontal[inside].min() == -1 and horizontal[inside].max() == 1
    assert (horizontal[inside & (x > 0)] > 0).all() and not horizontal[~inside].any()
    official = make_targets(disc, np.zeros(1, np.int64), side, official=True).hv[0]
    assert not np.array_equal(official, -official[:, ::-1])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), out_px=st.sampled_from([48, 47, 24, 10]))
def test_distances_are_those_of_the_definition(seed: int, out_px: int) -> None:
    drawn = draw_map(seed, margin=0)
    found = make_targets(drawn, types_of(drawn), out_px)
    assert np.allclose(found.hv, slow_centred(drawn, out_px), atol=1e-6)
    begin = (48 - out_px) // 2
    output = drawn[begin : begin + out_px, begin : begin + out_px]
    assert np.array_equal(found.foreground, output > 0) and found.foreground.dtype == np.uint8
    assert np.array_equal(found.types, np.where(output > 0, (output - 1) % 3 + 1, 0))
    assert found.types.dtype == np.int64 and found.hv.dtype == np.float32


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), out_px=st.sampled_from([48, 47, 24, 10]))
def test_official_maps_are_those_of_the_authors_to_the_last_bit(seed: int, out_px: int) -> None:
    drawn = draw_map(seed, margin=seed % 3)
    ends = [mask.any(axis).nonzero()[0][[0, -1]] for mask in parts_of(drawn) for axis in (0, 1)]
    assume(all(low > 1 or high < 43 for low, high in ends))
    found = make_targets(drawn, types_of(drawn), out_px, official=True)
    assert np.array_equal(found.hv, slow_official(drawn, out_px))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_mirrored_window_has_mirrored_maps(seed: int) -> None:
    drawn = draw_map(seed)
    types = types_of(drawn)
    hv = make_targets(drawn, types, 24).hv
    mirrored = make_targets(drawn[:, ::-1], types, 24).hv
    assert np.array_equal(mirrored[0], -hv[0][:, ::-1])
    assert np.array_equal(mirrored[1], hv[1][:, ::-1])
    turned = make_targets(drawn.T, types, 24).hv
    assert np.array_equal(turned[0], hv[1].T) and np.array_equal(turned[1], hv[0].T)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    down=st.integers(-8, 8),
    right=st.integers(-8, 8),
    official=st.booleans(),
)
def test_a_translated_window_has_translated_targets(
    seed: int, down: int, right: int, official: bool
) -> None:
    drawn = np.pad(draw_map(seed), 10)
    types = types_of(drawn)
    before = make_targets(drawn, types, 68, official=official)
    after = make_targets(np.roll(drawn, (down, right), (0, 1)), types, 68, official=official)
    for name in ("foreground", "hv", "types"):
        moved = np.roll(getattr(before, name), (down, right), (-2, -1))
        assert np.array_equal(getattr(after, name), moved)


def test_parts_with_the_same_number_are_nuclei_of_their_own() -> None:
    once = np.zeros((32, 32), np.int32)
    once[4:12, 4:12] = 1
    twice = once.copy()
    twice[18:26, 18:26] = 1
    hv = make_targets(twice, np.zeros(1, np.int64), 32).hv
    assert np.array_equal(hv[:, :16, :16], make_targets(once, np.zeros(1), 32).hv[:, :16, :16])
    assert np.array_equal(hv[:, 18:26, 18:26], hv[:, 4:12, 4:12])
    diagonal = once.copy()
    diagonal[12:20, 12:20] = 1  # touches at a corner
    assert make_targets(diagonal, np.zeros(1), 32).hv[0, 11, 11] == 1


def test_few_pixels_in_the_output_have_no_distances_but_a_type() -> None:
    drawn = np.zeros((40, 40), np.int32)
    drawn[16:22, 5:15] = 1  # 6 x 5 pixels of it are in the output
    drawn[27:35, 20:24] = 2  # 3 x 4 pixels
    found = make_targets(drawn, np.array([1, 0]), 20)
    assert found.hv[0, 6:12, :5].all() and not found.hv[:, 17:].any()
    assert found.foreground.sum() == 30 + 12
    assert set(found.types[6:12, :5].ravel()) == {2} and set(found.types[17:, 10:14].ravel()) == {1}
    assert not make_targets(drawn, np.array([1, 0]), 20, min_px=31).hv.any()
    assert make_targets(drawn, np.array([1, 0]), 20, min_px=0).hv[1, 17:].any()


@pytest.mark.parametrize("official", [False, True])
def test_a_window_without_nuclei_or_without_background_has_targets(official: bool) -> None:
    empty = make_targets(np.zeros((20, 20), np.int32), np.empty(0), 10, official=official)
    assert not empty.hv.any() and not empty.foreground.any() and not empty.types.any()
    full = make_targets(np.ones((20, 20), np.int64), np.array([4]), 10, official=official)
    assert full.foreground.all() and (full.types == 5).all()
    assert full.hv.any() != official


def test_what_is_no_window_is_refused() -> None:
    drawn = np.ones((20, 20), np.int32)
    with pytest.raises(ValueError, match="output of 21"):
        make_targets(drawn, np.zeros(1), 21)
    with pytest.raises(ValueError, match="0 types"):
        make_targets(drawn, np.empty(0), 20)
    with pytest.raises(ValueError, match="-1"):
        make_targets(-drawn, np.zeros(1), 20)
    with pytest.raises(ValueError, match="float64"):
        make_targets(drawn.astype(np.float64), np.zeros(1), 20)
