import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import rgb2hed

from eosin.images import stain_shift
from eosin.images.stain_shift import density_matrix, shift_stain, transform_density

# Haematoxylin and eosin of Ruifrok and Johnston.
HAEMATOXYLIN, EOSIN = (0.650, 0.704, 0.286), (0.072, 0.990, 0.105)


def one_pixel(*rgb: int) -> np.ndarray:
    return np.array([[rgb]], dtype=np.uint8)


def stained(concentration_h: float, concentration_e: float) -> np.ndarray:
    """A pixel with these concentrations along the unit vectors of the two stains."""
    h, e = (np.array(vector) / np.linalg.norm(vector) for vector in (HAEMATOXYLIN, EOSIN))
    intensity = 255 * np.exp(-(concentration_h * h + concentration_e * e))
    return np.rint(intensity).astype(np.uint8)[None, None]


def test_version_1_never_changes() -> None:
    image = np.array(
        [
            [[255, 255, 255], [240, 240, 240], [0, 0, 0]],
            [[80, 60, 140], [230, 120, 190], [160, 110, 190]],
            [[200, 30, 60], [100, 150, 120], [245, 225, 240]],
        ],
        dtype=np.uint8,
    )
    golden = np.array(
        [
            [[255, 255, 255], [240, 240, 240], [1, 1, 1]],
            [[89, 87, 153], [227, 93, 129], [166, 118, 170]],
            [[172, 9, 15], [102, 184, 157], [245, 218, 228]],
        ]
    )
    assert stain_shift.NAME == "stain-shift-v1"
    assert np.abs(shift_stain(image).astype(int) - golden).max() <= 1


def test_white_glass_and_pigment_stay() -> None:
    greys = np.repeat(np.arange(1, 256, dtype=np.uint8), 3).reshape(1, 255, 3)
    assert (shift_stain(np.full((4, 5, 3), 255, np.uint8)) == 255).all()
    assert np.abs(shift_stain(greys).astype(int) - greys).max() <= 1
    glass = np.array([[[243, 240, 246]]], dtype=np.uint8)
    assert np.abs(shift_stain(glass).astype(int) - glass).max() <= 5


def test_without_a_shift_nothing_changes() -> None:
    same = density_matrix(HAEMATOXYLIN, EOSIN, 1.0, 1.0)
    image = np.random.default_rng(0).integers(1, 256, (64, 64, 3), dtype=np.uint8)
    assert same == pytest.approx(np.eye(3), abs=1e-12)
    assert (transform_density(image, same) == image).all()


def test_pure_stains_become_the_other_laboratory_s() -> None:
    for concentration in (0.5, 1.0, 1.5):
        for pixel, vector, strength in (
            (stained(concentration, 0), (0.780, 0.580, 0.220), 0.75),
            (stained(0, concentration), (0.040, 0.900, 0.430), 1.3),
        ):
            direction = np.array(vector) / np.linalg.norm(vector)
            expected = 255 * np.exp(-concentration * strength * direction)
            assert shift_stain(pixel)[0, 0] == pytest.approx(expected, abs=3)


def test_result_matches_the_definition_in_float64() -> None:
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    matrix = density_matrix((0.780, 0.580, 0.220), (0.040, 0.900, 0.430), 0.75, 1.3)
    density = -np.log(np.maximum(image, 1) / 255.0) @ matrix
    expected = np.clip(255 * np.exp(-density), 0, 255)
    assert np.abs(shift_stain(image) - expected).max() < 0.7


@given(st.integers(0, 12), st.integers(0, 12), st.integers(1, 4))
def test_more_stain_stays_darker(haematoxylin: int, eosin: int, more: int) -> None:
    light = shift_stain(stained(haematoxylin / 10, eosin / 10)).astype(int)
    for dark in (
        stained((haematoxylin + more) / 10, eosin / 10),
        stained(haematoxylin / 10, (eosin + more) / 10),
    ):
        assert (shift_stain(dark) <= light + 3).all()
        assert shift_stain(dark).sum() < light.sum()


def test_structure_in_haematoxylin_is_kept_and_colour_is_not() -> None:
    generator = np.random.default_rng(2)
    h, e = generator.uniform(0, 1.2, (2, 40, 40))
    image = np.array([stained(a, b)[0, 0] for a, b in zip(h.flat, e.flat, strict=True)])
    image = image.reshape(40, 40, 3)
    shifted = shift_stain(image)
    before, after = rgb2hed(image)[..., 0].ravel(), rgb2hed(shifted)[..., 0].ravel()
    assert np.corrcoef(before, after)[0, 1] > 0.9
    assert np.abs(image.mean((0, 1)) - shifted.mean((0, 1))).max() > 15
    assert image.dtype == shifted.dtype == np.uint8 and image.shape == shifted.shape
