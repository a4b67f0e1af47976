"""The watershed gives what scikit-image's gives, wherever that is not left to chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from eosin.nuclei.flooding import flood


def flooded(levels, numbers, mask):
    """Our result, which must not change what it was given."""
    pieces = ndimage.label(mask)[0].astype(np.int32)
    before = levels.copy(), numbers.copy(), pieces.copy()
    found, has_pixels = flood(levels, numbers, pieces)
    for array, copy in zip((levels, numbers, pieces), before, strict=True):
        np.testing.assert_array_equal(array, copy)
    assert len(has_pixels) == numbers.max() + 1
    np.testing.assert_array_equal(np.flatnonzero(has_pixels), np.unique(found[found > 0]))
    return found


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    heights=st.sampled_from([1, 2, 5, 100, 0]),
    share=st.floats(0.3, 1),
    markers=st.floats(0, 0.3),
    kinds=st.integers(1, 9),
)
def test_it_equals_scikit_image(seed, height, width, heights, share, markers, kinds):
    generator = np.random.default_rng(seed)
    levels = generator.normal(size=(height, width))
    chosen = generator.random((height, width)) < markers
    if heights:
        # Many pixels of the same level, where their age decides; no two of markers.
        levels = np.floor(levels * heights / 3)
        levels[chosen] += generator.permutation(int(chosen.sum())) / 4096
    mask = generator.random((height, width)) < share
    numbers = (chosen * generator.integers(1, kinds + 1, (height, width))).astype(np.int32)
    expected = watershed(levels, numbers, mask=mask)
    np.testing.assert_array_equal(flooded(levels, numbers, mask), expected)


def test_a_marker_of_the_level_of_what_was_reached_goes_first():
    levels = np.array([[0.0, 1, 1, 1, 1, 1, 1]])
    numbers = np.array([[1, 0, 0, 0, 0, 0, 2]], np.int32)
    mask = np.ones(levels.shape, bool)
    expected = watershed(levels, numbers, mask=mask)
    np.testing.assert_array_equal(flooded(levels, numbers, mask), expected)


def test_of_equal_markers_the_upper_left_goes_first():
    levels, mask = np.zeros((5, 5)), np.ones((5, 5), bool)
    numbers = np.zeros((5, 5), np.int32)
    numbers[0, 0], numbers[4, 4] = 7, 3
    found = flooded(levels, numbers, mask)
    y, x = np.mgrid[:5, :5]
    np.testing.assert_array_equal(found[y + x <= 4], 7)
    np.testing.assert_array_equal(found[y + x > 4], 3)


def test_a_large_image_in_which_many_wait():
    generator = np.random.default_rng(0)
    levels = ndimage.gaussian_filter(generator.normal(size=(300, 320)), 2)
    numbers = np.zeros(levels.shape, np.int32)
    numbers[tuple(generator.integers(0, 300, (2, 900)))] = np.arange(1, 901)
    mask = ndimage.gaussian_filter(generator.normal(size=levels.shape), 3) > -0.06
    expected = watershed(levels, numbers, mask=mask)
    np.testing.assert_array_equal(flooded(levels, numbers, mask), expected)


def test_several_sizes_are_refused():
    with pytest.raises(ValueError, match="several sizes"):
        flood(np.zeros((3, 3)), np.zeros((3, 4), np.int32), np.ones((3, 3), np.int32))
