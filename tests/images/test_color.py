"""Colour operations against torchvision's on floats, and what must hold for any image."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.transforms.v2 import functional

from eosin.images.color import JITTER, recolor

sides = st.integers(1, 24)
images = sides.flatmap(lambda side: arrays(np.uint8, (side, side, 3)))


def smooth_noise(seed, side_px=64):
    """An image with every hue and saturation, and with structure for a blur to act on."""
    noise = np.random.default_rng(seed).random((side_px, side_px, 3))
    blurred = cv2.GaussianBlur(noise, (9, 9), 2)
    low, high = blurred.min((0, 1)), blurred.max((0, 1))
    return np.rint(255 * (blurred - low) / (high - low)).astype(np.uint8)


def recolored(image, *jitter, **rest):
    """The result as an image [S, S, 3]."""
    return recolor(image, jitter, **rest).transpose(1, 2, 0)


def on_floats(operation, image, *arguments):
    """Torchvision's result as float grey levels."""
    chw = torch.from_numpy(image).permute(2, 0, 1).double() / 255
    return 255 * operation(chw, *arguments).permute(1, 2, 0).numpy()


FACTORS = {
    "brightness": (0.0, 0.6, 1.0, 1.4),
    "contrast": (0.0, 0.6, 1.0, 1.4),
    "saturation": (0.0, 0.6, 1.0, 1.8),
    "hue": (-0.5, -0.1, 0.0, 0.05, 0.2, 0.5),
}


@pytest.mark.parametrize("name", JITTER)
def test_one_operation_is_torchvisions_rounded_once(name):
    theirs = getattr(functional, f"adjust_{name}")
    for factor in FACTORS[name]:
        for seed in range(3):
            image = smooth_noise(seed)
            difference = np.abs(recolored(image, (name, factor)) - on_floats(theirs, image, factor))
            assert difference.max() < 0.76, factor  # half a level, and the fourth digit of the luma


@given(st.permutations(JITTER), st.lists(st.floats(0.2, 1.8), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_four_operations_in_any_order_are_rounded_once(names, factors):
    image = smooth_noise(4, 50)
    drawn = [(n, f - 1.0 if n == "hue" else f) for n, f in zip(names, factors, strict=True)]
    drawn = [(n, min(max(f, -0.5), 0.5) if n == "hue" else f) for n, f in drawn]
    chw = torch.from_numpy(image).permute(2, 0, 1).double() / 255
    for name, factor in drawn:
        chw = getattr(functional, f"adjust_{name}")(chw, factor)
    difference = np.abs(recolored(image, *drawn) - 255 * chw.permute(1, 2, 0).numpy())
    assert difference.max() < 1.3  # the luma's fourth digit, magnified by what follows


@given(images, st.floats(-0.5, 0.5))
def test_hue_keeps_the_brightest_and_darkest_channel(image, shift):
    turned = recolored(image, ("hue", shift)).astype(int)
    assert np.abs(turned.max(2) - image.max(2)).max() <= 1
    assert np.abs(turned.min(2) - image.min(2)).max() <= 1


@given(images)
def test_neutral_factors_change_nothing(image):
    for name in JITTER:
        factor = 0.0 if name == "hue" else 1.0
        np.testing.assert_array_equal(recolored(image, (name, factor)), image)
    np.testing.assert_array_equal(recolored(image), image)


@given(images)
def test_grayscale_has_equal_channels_and_is_a_projection(image):
    grey = recolored(image, grayscale=True)
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - image @ [0.299, 0.587, 0.114]).max() <= 0.51
    again = recolored(np.ascontiguousarray(grey), grayscale=True)
    np.testing.assert_array_equal(again, grey)


@pytest.mark.parametrize("grayscale", [False, True])
@pytest.mark.parametrize("sigma_px", [0.1, 0.5, 0.9, 1.0, 1.4, 2.0])
def test_blur_is_the_true_gaussian_of_torchvision(sigma_px, grayscale):
    image = smooth_noise(1)
    if grayscale:
        image = np.ascontiguousarray(recolored(image, grayscale=True))
    expected = on_floats(functional.gaussian_blur, image, [23, 23], [sigma_px, sigma_px])
    blurred = recolored(image, blur_sigma_px=sigma_px, grayscale=grayscale)
    difference = np.abs(blurred - expected)
    assert difference.max() < 0.85 and difference.mean() < 0.3


@given(images, st.floats(0.1, 3.0))
def test_blur_stays_within_the_range_of_each_channel(image, sigma_px):
    blurred = recolored(image, blur_sigma_px=sigma_px)
    assert (blurred.max((0, 1)) <= image.max((0, 1))).all()
    assert (blurred.min((0, 1)) >= image.min((0, 1))).all()


@given(images, st.integers(0, 256))
@settings(max_examples=50)
def test_solarize_inverts_exactly_from_the_threshold(image, threshold):
    expected = np.where(image < threshold, image, 255 - image)
    np.testing.assert_array_equal(recolored(image, solarize_threshold=threshold), expected)


def test_the_result_lands_where_it_is_asked_for():
    batch = np.zeros((3, 3, 64, 64), np.uint8)
    image = smooth_noise(2)
    assert recolor(image, [("hue", 0.1)], into=batch[1]) is not None
    np.testing.assert_array_equal(batch[1].transpose(1, 2, 0), recolored(image, ("hue", 0.1)))
    assert not batch[0].any() and not batch[2].any()
