from pathlib import Path

import cv2
import numpy as np
import pytest

from eosin.errors import InputError, UsageError
from eosin.slides import tissue

_MPP = 8.0
_PENS = {
    "blue": (30, 60, 190),
    "navy": (25, 30, 110),
    "green": (20, 140, 70),
    "red": (210, 30, 40),
    "black": (25, 25, 28),
}


def _thumbnail() -> tuple[np.ndarray, np.ndarray]:
    """A thumbnail of 2.4 mm x 2 mm and where its tissue is."""
    truth = np.zeros((250, 300), np.uint8)
    cv2.ellipse(truth, (150, 150), (100, 70), 0, 0, 360, 1, -1)
    noise = np.random.default_rng(0).normal(0, 5, (250, 300, 3))
    colour = np.where(truth[..., None] == 1, (215, 140, 185), (243, 242, 244))
    return np.clip(colour + noise, 0, 255).astype(np.uint8), truth.astype(bool)


def _iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


@pytest.mark.parametrize("method", tissue.METHODS)
def test_every_method_finds_plain_tissue_and_none_on_glass(method: str) -> None:
    thumbnail, truth = _thumbnail()
    assert _iou(tissue.find_tissue(thumbnail, _MPP, method), truth) > 0.95
    assert not tissue.find_tissue(thumbnail[:60], _MPP, method).any()


@pytest.mark.parametrize("pen", _PENS)
@pytest.mark.parametrize("method", ["hsv", "optical_density"])
def test_ink_on_glass_is_left_out(method: str, pen: str) -> None:
    thumbnail, truth = _thumbnail()
    stroke = np.zeros(truth.shape, np.uint8)
    line = np.array([[20, 40], [120, 25], [200, 45], [285, 30]])
    cv2.polylines(stroke, [line], isClosed=False, color=255, thickness=8, lineType=cv2.LINE_AA)
    opacity = cv2.GaussianBlur(stroke, (0, 0), 0.8)[..., None] / 255
    inked = thumbnail * (1 - opacity + opacity * np.array(_PENS[pen]) / 255)
    mask = tissue.find_tissue(inked.astype(np.uint8), _MPP, method)
    assert not (mask & (stroke > 128)).any()
    assert _iou(mask, truth) > 0.95


def test_specks_are_dropped_and_small_holes_filled() -> None:
    thumbnail, truth = _thumbnail()
    thumbnail[20:25, 20:25] = (215, 140, 185)
    thumbnail[148:156, 148:156] = (243, 242, 244)
    assert _iou(tissue.find_tissue(thumbnail, _MPP), truth) > 0.95
    assert not tissue.find_tissue(thumbnail, _MPP)[:40].any()
    assert tissue.find_tissue(thumbnail, _MPP)[148:156, 148:156].all()


def test_the_users_own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tissue.py").write_text(
        "import numpy as np\n"
        "def left_half(rgb, mpp):\n"
        "    mask = np.zeros(rgb.shape[:2])\n"
        "    mask[:, : rgb.shape[1] // 2] = mpp\n"
        "    return mask\n"
        "def too_small(rgb, mpp):\n"
        "    return np.zeros((2, 2), bool)\n"
        "def fails(rgb, mpp):\n"
        "    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    thumbnail, _ = _thumbnail()
    mask = tissue.find_tissue(thumbnail, _MPP, "own_tissue:left_half")
    assert mask.dtype == bool and mask[:, :150].all() and not mask[:, 150:].any()
    with pytest.raises(InputError, match=r"mask of shape \(250, 300\), not \(2, 2\)"):
        tissue.find_tissue(thumbnail, _MPP, "own_tissue:too_small")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        tissue.find_tissue(thumbnail, _MPP, "own_tissue:fails")
    with pytest.raises(UsageError, match="cannot be imported"):
        tissue.find_tissue(thumbnail, _MPP, "own_tissue:absent")


def test_an_unknown_method_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="hsv, optical_density, otsu"):
        tissue.load_method("magic")
