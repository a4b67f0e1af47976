"""Tissue detection on difficult thumbnails with known masks, against the methods that others use.

    python -m bench.tissue --json

The thumbnails are the held-out half of tests/slides/difficult_thumbnails.py: none of their tissue,
fat or seeds was used to tune ours. A condition's figure is the mean intersection over union of its
thumbnails; a method's figure is that of its worst condition. The peers are written from their
published algorithms and parameters, with the thumbnail in place of the level that they would read;
all get the same treatment of specks and small holes as ours, for the truth has none of either.
"""

import argparse
import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from eosin.provenance import stamp
from eosin.slides.tissue import METHODS

Mask = npt.NDArray[np.bool_]
RGB = npt.NDArray[np.uint8]
CHECKOUT = Path(__file__).parents[1]
DEFAULT = next(iter(METHODS))


def find_by_saturation(rgb: RGB, mpp: float) -> Mask:
    """CLAM's default: saturation, median of 7 pixels, above 8, closed with 4 x 4."""
    _, mask = cv2.threshold(_saturation(rgb), 8, 255, cv2.THRESH_BINARY)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((4, 4), np.uint8)) > 0


def find_by_otsu_on_saturation(rgb: RGB, mpp: float) -> Mask:
    """CLAM with `use_otsu`: the same with Otsu's threshold."""
    _, mask = cv2.threshold(_saturation(rgb), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((4, 4), np.uint8)) > 0


def find_by_otsu_on_grey(rgb: RGB, mpp: float) -> Mask:
    """Darker than Otsu's threshold of the grey image, and nothing else."""
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY_INV + cv2.THRESH_OTSU)[1] > 0


def find_by_hsv_range(rgb: RGB, mpp: float) -> Mask:
    """The range of hue, saturation and value that hs2p publishes, and nothing else."""
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    return cv2.inRange(hsv, np.array((90, 8, 103)), np.array((180, 255, 255))) > 0


def _saturation(rgb: RGB) -> npt.NDArray[np.uint8]:
    return cv2.medianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 1], 7)


PEERS: dict[str, Callable[[RGB, float], Mask]] = {
    "CLAM saturation > 8": find_by_saturation,
    "CLAM use_otsu": find_by_otsu_on_saturation,
    "Otsu on grey": find_by_otsu_on_grey,
    "HSV range": find_by_hsv_range,
}


def tidy(mask: Mask, mpp: float) -> Mask:
    """Drops parts below 4,000 µm² and fills holes below 20,000 µm², as our methods do."""
    mask = mask & ~_parts_below(mask, 4_000 / mpp**2)
    return mask | _parts_below(~mask, 20_000 / mpp**2)


def _parts_below(mask: Mask, area_px: float) -> Mask:
    labels, _ = ndimage.label(mask)
    is_small = np.bincount(labels.reshape(-1)) < area_px
    is_small[0] = False
    return is_small[labels]


def load_thumbnails() -> ModuleType:
    """The module of the thumbnails, which lies among the tests and is no package."""
    path = CHECKOUT / "tests" / "slides" / "difficult_thumbnails.py"
    spec = importlib.util.spec_from_file_location("difficult_thumbnails", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(data: Path) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """IoU by method and condition, and median milliseconds by method, peers untidied."""
    thumbnails = load_thumbnails()
    methods = {**METHODS, **PEERS}
    figures: dict[str, dict[str, float]] = {name: {} for name in methods}
    times: dict[str, list[float]] = {name: [] for name in methods}
    for condition in thumbnails.CONDITIONS:
        cases = [thumbnails.build(data, condition, case) for case in thumbnails.HELD_OUT]
        for name, find in methods.items():
            ious = []
            for case in cases:
                started = time.perf_counter()
                mask = find(case.rgb, case.mpp)
                times[name].append(time.perf_counter() - started)
                mask = tidy(mask, case.mpp) if name in PEERS else mask
                ious.append((mask & case.mask).sum() / (mask | case.mask).sum())
            figures[name][condition] = float(np.mean(ious))
    return figures, {name: statistics.median(values) * 1e3 for name, values in times.items()}


def show(figures: dict[str, dict[str, float]], times: dict[str, float]) -> None:
    """Prints a row for each condition and a column for each method."""
    table = Table("IoU", *figures)
    for condition in figures[DEFAULT]:
        table.add_row(condition, *(f"{row[condition]:.3f}" for row in figures.values()))
    table.add_section()
    table.add_row("worst", *(f"{min(row.values()):.3f}" for row in figures.values()))
    table.add_row("mean", *(f"{np.mean(list(row.values())):.3f}" for row in figures.values()))
    table.add_row("ms", *(f"{times[name]:.0f}" for name in figures))
    Console(width=130).print(table)


def main() -> None:
    """Runs the benchmark."""
    beside_checkout = CHECKOUT.parent / "shared" / "data"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    default = Path(os.environ.get("EOSIN_TEST_DATA", beside_checkout))
    parser.add_argument("--data", type=Path, default=default, help="folder of real samples")
    options = parser.parse_args()
    if not (options.data / "SHA256SUMS").is_file():
        sys.exit(f"There is no real data at {options.data}; name its folder with --data.")
    figures, times = measure(options.data)
    show(figures, times)
    if not options.json:
        return
    worst = {name: min(row.values()) for name, row in figures.items()}
    mean = {name: float(np.mean(list(row.values()))) for name, row in figures.items()}
    # Equally bad peers are told apart by their means.
    peer = max(PEERS, key=lambda name: (worst[name], mean[name]))
    line = {
        "name": "tissue",
        "ours": worst[DEFAULT],
        "peer": worst[peer],
        "ratio": worst[DEFAULT] / worst[peer],
        "unit": "worst IoU",
        "peer_name": peer,
        "method": DEFAULT,
        "mean_iou": mean,
        "worst_iou": worst,
        "ms": times,
        "environment": stamp(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
