"""The functions of a clone of vqdang/hover_net, and maps of nuclei to try them on.

The clone is imported as it is, but for what has gone since: matplotlib, which it imports for
pictures, is stood in for where it is missing, and `scipy.ndimage.measurements` is `scipy.ndimage`.
"""

import argparse
import importlib
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

Map = NDArray[np.int32]


def add_peer(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names a clone."""
    parser.add_argument(
        "--peer",
        type=Path,
        metavar="PATH",
        help="clone of vqdang/hover_net, whose own functions are then timed",
    )


def load(clone: Path, name: str) -> ModuleType:
    """Imports a module of the clone, such as `metrics.stats_utils`."""
    if not (clone / f"{name.replace('.', '/')}.py").is_file():
        raise SystemExit(f"{clone} has no {name}: --peer wants a clone of vqdang/hover_net.")
    for missing in ("matplotlib", "matplotlib.pyplot", "matplotlib.cm"):
        try:
            importlib.import_module(missing)
        except ImportError:
            sys.modules[missing] = ModuleType(missing)
    sys.path.insert(0, str(clone))
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    module = importlib.import_module(name)
    for each in list(sys.modules.values()):
        contents = vars(each)
        if str(contents.get("__file__")).startswith(str(clone)) and "measurements" in contents:
            contents["measurements"] = scipy.ndimage
    return module


def draw_nuclei(px: int, count: int, generator: np.random.Generator) -> Map:
    """Draws ellipses of 5 to 12 pixels' half-axes that may touch, each at least 30 pixels large.

    Returns:
        Numbers from 1 to n without gaps, [px, px]; n is about `count`.
    """
    y, x = np.mgrid[-13:14, -13:14]
    drawn = np.zeros((px + 26, px + 26), np.int32)
    for number in range(1, count + 1):
        top, left = generator.integers(0, px, 2)
        long, short = generator.uniform(5, 12, 2)
        turn = generator.uniform(0, np.pi)
        along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        box = drawn[top : top + 27, left : left + 27]
        box[((along / long) ** 2 + (across / short) ** 2 <= 1) & (box == 0)] = number
    drawn = drawn[13:-13, 13:-13]
    drawn[np.bincount(drawn.ravel(), minlength=count + 1)[drawn] < 30] = 0
    _, numbered = np.unique(drawn, return_inverse=True)
    return numbered.reshape(drawn.shape).astype(np.int32)
