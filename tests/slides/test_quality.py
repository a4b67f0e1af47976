import cv2
import numpy as np

from eosin.slides.quality import score

_NOISE = np.random.default_rng(0).integers(60, 220, (256, 256, 3)).astype(np.uint8)


def _plain(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((256, 256, 3), (red, green, blue), np.uint8)


def test_blur_lowers_the_score_of_sharpness() -> None:
    blurred = cv2.GaussianBlur(_NOISE, (0, 0), 2)
    assert score(blurred).blur < 0.1 * score(_NOISE).blur
    assert score(_plain(200, 150, 180)).blur == 0


def test_fractions_of_glass_black_and_ink() -> None:
    tile = np.concatenate([_plain(245, 244, 246), _plain(10, 12, 9)])
    scores = score(tile)
    assert scores.white == 0.5
    assert scores.black == 0.5
    half_inked = np.concatenate([_plain(220, 150, 190), _plain(20, 140, 70)])
    assert score(half_inked).ink == 0.5


def test_stained_tissue_is_neither_glass_nor_black_nor_ink() -> None:
    for stained in (_plain(230, 150, 190), _plain(110, 60, 140), _plain(200, 100, 160)):
        assert score(stained)[1:] == (0, 0, 0)
