import importlib.util
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError, UsageError
from eosin.slides import tissue

_MPP = 8.0
_PENS = {
    "blue": (30, 60, 190),
    "navy": (25, 30, 110),
    "green": (20, 140, 70),
    "red": (210, 30, 40),
    "crimson": (190, 20, 70),
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


@pytest.fixture(scope="module")
def difficult() -> ModuleType:
    path = Path(__file__).with_name("difficult_thumbnails.py")
    spec = importlib.util.spec_from_file_location("difficult_thumbnails", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_CONDITIONS = (
    "clean",
    "pale .25",
    "pale .12",
    "blue pen",
    "green pen",
    "black pen",
    "red pen",
    "shading",
    "tint",
    "dust",
    "black border",
    "adipose",
    "thin biopsy",
)


@pytest.mark.parametrize("condition", _CONDITIONS)
def test_the_default_stands_every_difficulty(
    condition: str, shared_data: Path, difficult: ModuleType
) -> None:
    # Measured on all six held-out cases: 0.91 in the worst condition, 0.87 on the worst picture.
    ious = []
    for case in difficult.HELD_OUT[:3]:
        thumbnail = difficult.build(shared_data, condition, case)
        ious.append(_iou(tissue.find_tissue(thumbnail.rgb, thumbnail.mpp), thumbnail.mask))
    assert np.mean(ious) > 0.88, ious
    assert min(ious) > 0.83, ious


def test_every_difficulty_is_tested(difficult: ModuleType) -> None:
    assert difficult.CONDITIONS == _CONDITIONS


def test_difficult_thumbnails_are_the_same_every_time(
    shared_data: Path, difficult: ModuleType
) -> None:
    first, second = (
        difficult.build(shared_data, "red pen", difficult.HELD_OUT[0]) for _ in range(2)
    )
    assert (first.rgb == second.rgb).all() and (first.mask == second.mask).all()
    other = difficult.build(shared_data, "red pen", difficult.HELD_OUT[1])
    assert (first.mask != other.mask).any()
    solid = {case.solid for case in difficult.TUNING} & {case.solid for case in difficult.HELD_OUT}
    fat = {case.fat for case in difficult.TUNING} & {case.fat for case in difficult.HELD_OUT}
    assert not solid and not fat


def test_a_real_slide(shared_data: Path, difficult: ModuleType) -> None:
    """What nobody would dispute of the region's tissue, glass and dirt, in pixels of 8 µm."""
    rgb = difficult.read_slide(shared_data / "slides" / "CMU-1-Small-Region.svs")
    mask = tissue.find_tissue(rgb, _MPP)
    for top, bottom, left, right in ((50, 90, 58, 70), (125, 180, 56, 66), (140, 165, 80, 94)):
        assert mask[top:bottom, left:right].mean() > 0.95
    for top, bottom, left, right in ((0, 55, 0, 45), (80, 180, 0, 28), (0, 60, 105, 138)):
        assert not mask[top:bottom, left:right].any()


@pytest.mark.parametrize("method", tissue.METHODS)
def test_every_method_finds_plain_tissue_and_none_on_glass(method: str) -> None:
    thumbnail, truth = _thumbnail()
    assert _iou(tissue.find_tissue(thumbnail, _MPP, method), truth) > 0.95
    assert not tissue.find_tissue(thumbnail[:60], _MPP, method).any()


@pytest.mark.parametrize("method", tissue.METHODS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_plain_picture_has_no_tissue(method: str, level: int) -> None:
    plain = np.full((120, 150, 3), level, np.uint8)
    assert not tissue.find_tissue(plain, _MPP, method).any()


def test_the_default_is_the_first_method() -> None:
    thumbnail, _ = _thumbnail()
    first = next(iter(tissue.METHODS))
    same = tissue.find_tissue(thumbnail, _MPP) == tissue.find_tissue(thumbnail, _MPP, first)
    assert first == "optical_density" and same.all()


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


@pytest.mark.parametrize("method", ["hsv", "optical_density"])
@given(
    glass=st.tuples(*[st.integers(200, 250)] * 3).filter(lambda rgb: rgb[1] + 8 > max(rgb)),
    brightness=st.floats(0.7, 1.0),
)
@settings(max_examples=15, deadline=None)
def test_the_colour_and_brightness_of_the_glass_do_not_matter(
    method: str, glass: tuple[int, int, int], brightness: float
) -> None:
    thumbnail, truth = _thumbnail()
    seen = thumbnail / 243 * np.array(glass) * brightness
    mask = tissue.find_tissue(np.clip(seen, 0, 254).astype(np.uint8), _MPP, method)
    assert _iou(mask, truth) > 0.93


@pytest.mark.parametrize("method", tissue.METHODS)
@given(size=st.tuples(st.integers(1, 60), st.integers(1, 60)), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_any_picture_gets_a_mask_that_turns_with_it(
    method: str, size: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    rgb = cv2.GaussianBlur(rgb, (0, 0), 2).reshape(rgb.shape)
    mask = tissue.find_tissue(rgb, _MPP, method)
    assert mask.shape == size and mask.dtype == bool
    turned = tissue.find_tissue(np.ascontiguousarray(rgb.transpose(1, 0, 2)), _MPP, method)
    assert (mask == turned.T).all()


@pytest.mark.parametrize("method", tissue.METHODS)
def test_large_pictures_come_out_as_small_ones(method: str) -> None:
    """The block size must not show: tissue that lies across the blocks' edges is found whole."""
    thumbnail, truth = _thumbnail()
    large = np.tile(thumbnail, (4, 6, 1))
    mask = tissue.find_tissue(large, _MPP, method)
    assert _iou(mask, np.tile(truth, (4, 6))) > 0.95
    # What lies at another place of the blocks differs at most by the border of the picture.
    inner = mask[250:750].reshape(2, 250, 6, 300)[:, :, 1:5]
    assert (inner == inner[:1, :, :1]).all()


def test_a_finer_picture_has_the_same_tissue() -> None:
    thumbnail, truth = _thumbnail()
    fine = cv2.resize(thumbnail, None, fx=5, fy=5, interpolation=cv2.INTER_NEAREST)
    mask = tissue.find_tissue(fine, _MPP / 5)
    assert mask.shape == fine.shape[:2]
    assert _iou(mask[2::5, 2::5], truth) > 0.95


_MEASURE = """
import sys
from pathlib import Path
import numpy as np
from eosin.slides.tissue import find_tissue

def status_mb(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

rng = np.random.default_rng(0)
small = np.full((250, 500, 3), 242, np.uint8)
small[60:200, 60:300] = (215, 140, 185)
small[20:40] = (30, 60, 190)
small = np.clip(small + rng.normal(0, 3, small.shape), 0, 255).astype(np.uint8)
find_tissue(small, 8.0, sys.argv[1])
large = np.tile(small, (8, 8, 1))
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = status_mb("VmRSS")
find_tissue(large, 8.0, sys.argv[1])
print(status_mb("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", tissue.METHODS)
def test_eight_megapixels_take_little_memory(method: str) -> None:
    """The resident peak, since OpenCV allocates what tracemalloc does not see."""
    command = [sys.executable, "-c", _MEASURE, method]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert float(done.stdout) < 120


def test_memory_of_arrays_and_time() -> None:
    large = np.tile(_thumbnail()[0], (8, 13, 1))  # 7.8 megapixels
    tracemalloc.start()
    started = time.process_time()
    tissue.find_tissue(large, _MPP)
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6
    # Measured: 0.08 s per megapixel; a machine that is busy or instrumented may take longer.
    assert seconds < 0.3 * large.size / 3e6


def test_the_users_own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_tissue.py").write_text(
        "import numpy as np\n"
        "def left_half(rgb, mpp):\n"
        "    mask = np.zeros(rgb.shape[:2])\n"
        "    mask[:, : rgb.shape[1] // 2] = mpp\n"
        "    return mask\n"
        "def too_small(rgb, mpp):\n"
        "    return np.zeros((2, 2), bool)\n"
        "def nothing(rgb, mpp):\n"
        "    return None\n"
        "def fails(rgb, mpp):\n"
        "    return 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    thumbnail, _ = _thumbnail()
    mask = tissue.find_tissue(thumbnail, _MPP, "own_tissue:left_half")
    assert mask.dtype == bool and mask[:, :150].all() and not mask[:, 150:].any()
    with pytest.raises(InputError, match=r"mask of shape \(250, 300\), not \(2, 2\)"):
        tissue.find_tissue(thumbnail, _MPP, "own_tissue:too_small")
    with pytest.raises(InputError, match="not NoneType"):
        tissue.find_tissue(thumbnail, _MPP, "own_tissue:nothing")
    with pytest.raises(InputError, match="ZeroDivisionError"):
        tissue.find_tissue(thumbnail, _MPP, "own_tissue:fails")
    with pytest.raises(UsageError, match="cannot be imported"):
        tissue.find_tissue(thumbnail, _MPP, "own_tissue:absent")
    with pytest.raises(UsageError, match="cannot be imported"):
        tissue.load_method("no_such_module_anywhere:find")


@pytest.mark.parametrize("name", ["magic", "", ":", "module:", ":function"])
def test_an_unknown_method_lists_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match="optical_density, hsv, otsu"):
        tissue.load_method(name)
