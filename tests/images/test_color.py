"""Colour operations against torchvision's on floats, and what must hold for any image."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.transforms.v2 import functional

from eosin.images import color

images = arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3)))


def smooth_noise(seed, side_px=64):
    """An image with every hue and saturation, and with structure for a blur to act on."""
    noise = np.random.default_rng(seed).random((side_px, side_px, 3))
    blurred = cv2.GaussianBlur(noise, (9, 9), 2)
    low, high = blurred.min((0, 1)), blurred.max((0, 1))
    return np.rint(255 * (blurred - low) / (high - low)).astype(np.uint8)


def on_floats(operation, image, *arguments):
    """Torchvision's result as float grey levels."""
    chw = torch.from_numpy(image).permute(2, 0, 1).double() / 255
    return 255 * operation(chw, *arguments).permute(1, 2, 0).numpy()


PAIRS = [
    (color.adjust_brightness, functional.adjust_brightness, (0.0, 0.6, 1.0, 1.4)),
    (color.adjust_contrast, functional.adjust_contrast, (0.0, 0.6, 1.0, 1.4)),
    (color.adjust_saturation, functional.adjust_saturation, (0.0, 0.6, 1.0, 1.8)),
    (color.adjust_hue, functional.adjust_hue, (-0.5, -0.1, 0.0, 0.05, 0.2, 0.5)),
]


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"), PAIRS, ids=lambda p: getattr(p, "__name__", "")
)
def test_one_operation_is_torchvisions_rounded_once(ours, theirs, factors):
    for factor in factors:
        for seed in range(3):
            image = smooth_noise(seed)
            difference = np.abs(ours(image, factor) - on_floats(theirs, image, factor))
            assert difference.max() < 0.76, factor  # half a level, and the fourth digit of the luma


@given(images, st.floats(-0.5, 0.5))
def test_hue_keeps_the_brightest_and_darkest_channel(image, shift):
    turned = color.adjust_hue(image, shift).astype(int)
    assert np.abs(turned.max(2) - image.max(2)).max() <= 1
    assert np.abs(turned.min(2) - image.min(2)).max() <= 1


def test_hue_is_the_same_in_bands_of_rows():
    image = smooth_noise(0, 256)
    turned = color.adjust_hue(image, 0.1)
    np.testing.assert_array_equal(turned[100:110], color.adjust_hue(image[100:110], 0.1))


@given(images)
def test_neutral_factors_change_nothing(image):
    for name in ("brightness", "contrast", "saturation"):
        np.testing.assert_array_equal(color.JITTER[name](image, 1.0), image)
    assert np.abs(color.adjust_hue(image, 0.0).astype(int) - image).max() <= 1


@given(images)
def test_grayscale_has_equal_channels_and_is_a_projection(image):
    grey = color.to_grayscale(image)
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - image @ [0.299, 0.587, 0.114]).max() <= 0.51
    np.testing.assert_array_equal(color.to_grayscale(grey), grey)


@pytest.mark.parametrize("sigma_px", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_the_true_gaussian_of_torchvision(sigma_px):
    image = smooth_noise(1)
    expected = on_floats(functional.gaussian_blur, image, [23, 23], [sigma_px, sigma_px])
    assert np.abs(color.blur(image, sigma_px) - expected).max() < 1.1


@given(images, st.floats(0.1, 3.0))
def test_blur_stays_within_the_range_of_each_channel(image, sigma_px):
    blurred = color.blur(image, sigma_px)
    assert (blurred.max((0, 1)) <= image.max((0, 1))).all()
    assert (blurred.min((0, 1)) >= image.min((0, 1))).all()


@given(images, st.integers(0, 256))
@settings(max_examples=50)
def test_solarize_inverts_exactly_from_the_threshold(image, threshold):
    expected = np.where(image < threshold, image, 255 - image)
    np.testing.assert_array_equal(color.solarize(image, threshold), expected)
