"""Crop, resize and flip: Pillow's result, and what must hold for any crop."""

import threading

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage

from eosin.images.resampling import crop_and_resize

RESAMPLING = {
    "bilinear": PillowImage.Resampling.BILINEAR,
    "bicubic": PillowImage.Resampling.BICUBIC,
}
filters = st.sampled_from(sorted(RESAMPLING))


def pillow(image, crop_px, size_px, interpolation):
    left, top, width, height = crop_px
    crop = PillowImage.fromarray(image[top : top + height, left : left + width])
    return np.array(crop.resize((size_px, size_px), RESAMPLING[interpolation]))


@pytest.fixture(scope="module")
def tissue():
    """A stained tissue photograph, `uint8[512, 512, 3]`."""
    return np.ascontiguousarray(skimage.data.immunohistochemistry())


@pytest.mark.parametrize("interpolation", sorted(RESAMPLING))
@pytest.mark.parametrize(
    "crop_px", [(0, 0, 512, 512), (60, 50, 362, 300), (7, 9, 224, 224), (100, 30, 150, 140)]
)
@pytest.mark.parametrize("size_px", [224, 96])
def test_tissue_is_resized_as_by_pillow(tissue, crop_px, size_px, interpolation):
    ours = crop_and_resize(tissue, crop_px, size_px, interpolation)
    difference = np.abs(ours.astype(int) - pillow(tissue, crop_px, size_px, interpolation))
    assert difference.max() <= 2 and difference.mean() < 0.3


@given(st.data(), st.integers(1, 40), filters, st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_noise_is_resized_as_by_pillow(data, size_px, interpolation, seed):
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    # Levels that the bicubic filter does not take out of 8 bits between the two directions.
    image = np.random.default_rng(seed).integers(60, 196, (height, width, 3), dtype=np.uint8)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    crop_px = (
        left,
        top,
        data.draw(st.integers(1, width - left)),
        data.draw(st.integers(1, height - top)),
    )
    ours = crop_and_resize(image, crop_px, size_px, interpolation)
    assert ours.shape == (size_px, size_px, 3) and ours.flags.c_contiguous
    expected = pillow(image, crop_px, size_px, interpolation)
    assert np.abs(ours.astype(int) - expected).max() <= 2


@given(st.integers(0, 255), st.integers(1, 30), filters)
@settings(deadline=None)
def test_a_flat_image_stays_flat(level, size_px, interpolation):
    image = np.full((19, 23, 3), level, np.uint8)
    assert (crop_and_resize(image, (1, 2, 20, 15), size_px, interpolation) == level).all()


@pytest.mark.parametrize("interpolation", sorted(RESAMPLING))
@pytest.mark.parametrize(("edge_px", "size_px"), [(512, 64), (500, 48), (512, 32), (1000, 64)])
def test_a_flat_image_stays_flat_when_much_reduced(edge_px, size_px, interpolation):
    for level in (0, 1, 77, 128, 254, 255):
        image = np.full((edge_px, edge_px, 3), level, np.uint8)
        crop_px = (0, 0, edge_px, edge_px)
        assert (crop_and_resize(image, crop_px, size_px, interpolation) == level).all()


@pytest.mark.parametrize("interpolation", sorted(RESAMPLING))
@pytest.mark.parametrize("size_px", [64, 32])
def test_dark_noise_keeps_its_mean_when_much_reduced(interpolation, size_px):
    image = np.random.default_rng(0).integers(0, 60, (512, 512, 3), dtype=np.uint8)
    crop_px = (0, 0, 512, 512)
    difference = crop_and_resize(image, crop_px, size_px, interpolation).astype(int)
    difference -= pillow(image, crop_px, size_px, interpolation)
    assert np.abs(difference).max() <= 1 and abs(difference.mean()) < 0.1


def test_a_view_into_a_larger_array_and_a_read_only_one_are_taken(tissue):
    expected = crop_and_resize(tissue[:, 100:400].copy(), (10, 20, 200, 220), 64, "bicubic")
    inside = crop_and_resize(tissue[:, 100:400], (10, 20, 200, 220), 64, "bicubic")
    np.testing.assert_array_equal(inside, expected)
    frozen = tissue.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(
        crop_and_resize(frozen, (110, 20, 200, 220), 64, "bicubic"), expected
    )


def test_threads_do_not_share_their_memory(tissue):
    crops = [(k, 2 * k, 200 + k, 300 - k) for k in range(24)]
    expected = [crop_and_resize(tissue, crop, 48, "bilinear") for crop in crops]
    made = {}

    def work(first):
        for _ in range(5):
            for number in range(first, len(crops), 3):
                made[number] = crop_and_resize(tissue, crops[number], 48, "bilinear")

    threads = [threading.Thread(target=work, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, image in made.items():
        np.testing.assert_array_equal(image, expected[number])
