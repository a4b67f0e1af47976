"""Crops that keep an image and its instances together, and colours that stay near."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.nuclei.augment import (
    SCALE,
    Placed,
    centred,
    crop,
    draw_placement,
    recolour,
)

SIDE = 96


def dotted(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of one colour each, numbered."""
    generator = np.random.default_rng(seed)
    instances = np.zeros((SIDE, SIDE), np.int32)
    image = np.full((SIDE, SIDE, 3), 240, np.uint8)
    for number in range(1, 10):
        y, x = ((number - 1) // 3) * 32 + 6, ((number - 1) % 3) * 32 + 6
        instances[y : y + 20, x : x + 20] = number
        image[y : y + 20, x : x + 20] = generator.integers(0, 200, 3)
    return image, instances


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_image_and_instances_move_together(seed: int) -> None:
    image, instances = dotted()
    rng = np.random.default_rng(seed)
    placed = draw_placement(rng, ((SIDE - 1) / 2, (SIDE - 1) / 2), SIDE)
    pixels, numbers = crop(image, instances, placed, 64, 80)
    assert pixels.shape == (64, 64, 3) and numbers.shape == (80, 80)
    inner = numbers[8:-8, 8:-8]
    for number in np.unique(inner[inner > 0]).tolist():
        colour = image[instances == number][0]
        inside = inner == number
        # Away from the edges, where interpolation mixes.
        eroded = inside[1:-1, 1:-1] & inside[:-2, 1:-1] & inside[2:, 1:-1]
        eroded &= inside[1:-1, :-2] & inside[1:-1, 2:]
        assert np.abs(pixels[1:-1, 1:-1][eroded].astype(int) - colour).max(initial=0) <= 1


def test_the_middle_of_the_crop_is_that_of_the_window() -> None:
    placed = Placed(np.array([[1.0, 0.0, 40.0], [0.0, 1.0, 20.0]]))
    for side in (31, 64):
        middle = (side - 1) / 2
        at = centred(placed, side) @ np.array([middle, middle, 1.0])
        assert at == pytest.approx([40.0, 20.0])
    image, instances = dotted()
    pixels, numbers = crop(image, instances, placed, 21, 11)
    assert np.array_equal(pixels, image[10:31, 30:51])
    assert np.array_equal(numbers, instances[15:26, 35:46])


def test_scales_turns_and_flips_are_those_that_are_published() -> None:
    found = [
        draw_placement(np.random.default_rng(seed), (0.0, 0.0), 540).matrix for seed in range(400)
    ]
    areas = np.array([abs(np.linalg.det(matrix[:, :2])) for matrix in found])
    # Each axis 0.8 to 1.2, and a shear of up to 5 degrees, which shrinks areas by its cosine.
    assert areas.min() >= 1 / SCALE[1] ** 2 - 1e-9
    assert areas.max() <= 1 / SCALE[0] ** 2 / np.cos(np.deg2rad(5)) + 1e-9
    assert {np.sign(np.linalg.det(matrix[:, :2])) for matrix in found} == {-1.0, 1.0}
    turns = np.array([np.arctan2(matrix[1, 0], matrix[0, 0]) for matrix in found])
    assert np.histogram(turns, 8, (-np.pi, np.pi))[0].min() > 20
    shifts = np.array([matrix[:, 2] for matrix in found])
    assert 4 < abs(shifts).max() < 5.4 * 1.25 * np.sqrt(2)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), contrast=st.booleans())
def test_colours_change_a_little_and_stay_uint8(seed: int, contrast: bool) -> None:
    image, _ = dotted(seed)
    before = image.copy()
    changed = recolour(image, np.random.default_rng(seed), contrast=contrast)
    assert changed.dtype == np.uint8 and changed.shape == image.shape
    assert np.array_equal(image, before)
    assert abs(changed.mean() - image.mean()) < 60
    again = recolour(image, np.random.default_rng(seed), contrast=contrast)
    assert np.array_equal(changed, again)


def test_contrast_is_changed_only_where_it_is_asked_for() -> None:
    image, _ = dotted()
    spread = {
        flag: [
            float(recolour(image, np.random.default_rng(seed), contrast=flag).std())
            for seed in range(60)
        ]
        for flag in (False, True)
    }
    assert np.std(spread[True]) > 1.5 * np.std(spread[False])
