"""HoVer-Net's maps to nuclei with types, against the published algorithm.

    python -m bench.hovernet_postprocess --json
    python -m bench.hovernet_postprocess --peer CLONE --json

The default peer is the published algorithm from OpenCV, SciPy and scikit-image, in our words. With
`--peer` it is `process` of the authors' code, in a clone of github.com/vqdang/hover_net, as it is;
where SciPy no longer has the names it imports (`ndimage.filters`, `measurements`, `morphology`),
they are put back for it. It gets the type of each pixel, which we still have to find.

The maps are those of drawn nuclei that touch and, where there is CoNSeP (`--data`), of the true
nuclei of its test images; all with noise. Before anything is timed the nuclei are compared: they
must differ in their numbers alone, and the types not at all.
"""

import importlib
import os
import sys
import time
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from bench._compare import Contestant, arguments, as_line, measure, show, versions_of
from eosin.datasets import consep
from eosin.datasets._base import Options
from eosin.nuclei.postprocess import separate
from eosin.nuclei.targets import make_targets

Floats = NDArray[np.float32]
Numbers = NDArray[np.int32]
Maps = tuple[Floats, Floats, Floats]
Found = tuple[Numbers, dict[int, int]]
Peer = Callable[[Floats], Found]


def draw_nuclei(side: int) -> tuple[Numbers, NDArray[np.int64]]:
    """Ellipses about shaken places of a grid, cut where they meet, and their types of four."""
    generator = np.random.default_rng(0)
    spacing, half = 34, 24
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    nearest = np.full((side + 2 * half,) * 2, np.inf)
    numbers = np.zeros(nearest.shape, np.int32)
    for number, (row, column) in enumerate(np.ndindex(side // spacing, side // spacing), 1):
        top, left = (int(spacing * place + generator.uniform(5, 29)) for place in (row, column))
        tilt, long, wide = generator.uniform((0, 11, 8), (np.pi, 19, 13))
        along, across = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        distance = np.hypot(along / long, across / wide)
        box = np.s_[top : top + 2 * half + 1, left : left + 2 * half + 1]
        is_own = (distance < 1) & (distance < nearest[box])
        nearest[box][is_own], numbers[box][is_own] = distance[is_own], number
    _, drawn = np.unique(numbers[half:-half, half:-half], return_inverse=True)
    drawn = drawn.reshape(side, side).astype(np.int32)
    return drawn, generator.integers(0, 4, int(drawn.max()))


def make_maps(instances: Numbers, kinds: NDArray[np.int64], n_types: int, noise: float) -> Maps:
    """Targets as a network would give them: smoothed, and with smooth noise."""
    generator = np.random.default_rng(1)
    targets = make_targets(instances, kinds, len(instances))

    def shaken(values: NDArray[Any]) -> Floats:
        grain = generator.standard_normal(values.shape, dtype=np.float32)
        grain = cv2.GaussianBlur(grain, (0, 0), 2.0) * 7  # about 1 of standard deviation
        return cv2.GaussianBlur(values.astype(np.float32), (0, 0), 1.0) + noise * grain

    foreground = shaken(targets.foreground).clip(0, 1)
    hv = np.stack([shaken(each) for each in targets.hv])
    scores = np.stack([shaken(targets.types == place) for place in range(n_types + 1)])
    return foreground, hv, scores


def as_one(maps: Maps) -> Floats:
    """The map [H, W, 4] that the authors' code takes: types, foreground, distances."""
    foreground, hv, scores = maps
    return np.stack([scores.argmax(0).astype(np.float32), foreground, *hv], -1)


def published(maps: Floats) -> Found:
    """The published algorithm, with one look at each nucleus in its own box."""

    def stretched(values: NDArray[Any]) -> Floats:
        return cv2.normalize(values, None, 0, 1, cv2.NORM_MINMAX, cv2.CV_32F)

    def without_small(mask: NDArray[Any]) -> Numbers:
        labels = ndimage.label(mask)[0]
        labels[(np.bincount(labels.ravel()) < 10)[labels]] = 0
        return labels

    of_pixels, foreground, horizontal, vertical = np.moveaxis(maps, -1, 0)
    mask = without_small(foreground >= 0.5) > 0
    slopes = (
        cv2.Sobel(stretched(horizontal), cv2.CV_64F, 1, 0, ksize=21),
        cv2.Sobel(stretched(vertical), cv2.CV_64F, 0, 1, ksize=21),
    )
    walls = np.maximum(*(1 - stretched(each) for each in slopes)).astype(np.float64)
    walls = np.maximum(walls - ~mask, 0)
    levels = -cv2.GaussianBlur((1 - walls) * mask, (3, 3), 0)
    inner = ndimage.binary_fill_holes(mask & (walls < 0.4)).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    markers = without_small(cv2.morphologyEx(inner, cv2.MORPH_OPEN, disc))
    instances = watershed(levels, markers, mask=mask)
    kinds: dict[int, int] = {}
    for number, box in enumerate(ndimage.find_objects(instances), 1):
        if box is not None:
            counts = np.bincount(of_pixels[box][instances[box] == number].astype(int))
            order = np.argsort(-counts, kind="stable")
            second = order[1] if len(order) > 1 and counts[order[1]] else 0
            kinds[number] = int(order[0] or second)
    return instances, kinds


def official(clone: Path, n_types: int) -> Peer:
    """The authors' `process`; importing it silences all warnings, which is undone."""
    if not (clone / "models" / "hovernet" / "post_proc.py").is_file():
        sys.exit(f"--peer {clone} is no clone of github.com/vqdang/hover_net.")
    for old in ("filters", "measurements", "morphology"):
        name = f"scipy.ndimage.{old}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                importlib.import_module(name)
            except ImportError:
                stand_in = types.ModuleType(name)
                stand_in.__dict__.update(vars(ndimage))
                sys.modules[name] = stand_in
                setattr(ndimage, old, stand_in)
    sys.path.insert(0, str(clone))
    warn = warnings.warn
    process: Any = importlib.import_module("models.hovernet.post_proc").process
    warnings.warn = warn

    def run(maps: Floats) -> Found:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            instances, facts = process(maps, nr_types=n_types + 1, return_centroids=True)
        return instances, {number: fact["type"] for number, fact in facts.items()}

    return run


def check_equal(maps: Maps, peer: Peer, name: str) -> int:
    """Fails where both sides do not find the same nuclei of the same types; counts them."""
    ours = separate(*maps)
    theirs, kinds = peer(as_one(maps))
    pairs = np.unique(np.stack([ours.instances.ravel(), theirs.ravel()]), axis=1)
    pairs = pairs[:, (pairs > 0).any(0)]
    assert pairs.shape[1] == len(ours) and (pairs > 0).all(), f"{name}: other outlines"
    assert len(np.unique(pairs[1])) == len(ours), f"{name}: other nuclei"
    # Theirs have no facts of those with fewer than three corners, and 0 where all is background.
    for own, other in pairs.T.tolist():
        if kinds.get(other, 0):
            assert ours.types[own - 1] == kinds[other] - 1, f"{name}: another type of {own}"
    print(f"{name}: {len(ours)} nuclei, the same outlines and types")
    return len(ours)


def consep_maps(folder: Path, count: int, noise: float) -> dict[str, Maps]:
    """Maps of the true nuclei of the first test images; none where there is no CoNSeP."""
    if not consep.recognises(folder):
        print(f"no CoNSeP at {folder}: drawn nuclei only")
        return {}
    images = consep.load(folder, "test", Options())
    maps: dict[str, Maps] = {}
    for number in range(min(count, len(images))):
        labelled = images.read(number)
        n_types = len(images.classes)
        made = make_maps(labelled.instances, labelled.types, n_types, noise)
        maps[images.ids[number]] = made
    return maps


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    beside_checkout = Path(__file__).resolve().parents[2] / "shared" / "data"
    default = Path(os.environ.get("EOSIN_TEST_DATA", beside_checkout)) / "consep"
    parser.add_argument("--peer", type=Path, help="clone of github.com/vqdang/hover_net")
    parser.add_argument("--data", type=Path, default=default, help="folder of CoNSeP")
    parser.add_argument("--images", type=int, default=3, help="so many of CoNSeP's test images")
    parser.add_argument("--side", type=int, default=1000, help="of the drawn image, in pixels")
    parser.add_argument("--noise", type=float, default=0.05, help="standard deviation")
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="`cpu` on a busy machine"
    )
    options = parser.parse_args()
    cv2.setNumThreads(1)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    peer: Peer = published if options.peer is None else official(options.peer, 4)
    label = "the published algorithm" if options.peer is None else "hover_net's process"
    inputs = {"drawn": make_maps(*draw_nuclei(options.side), 4, options.noise)}
    inputs |= consep_maps(options.data, options.images, options.noise)
    lines: list[dict[str, Any]] = []
    for name, maps in inputs.items():
        nuclei = check_equal(maps, peer, name)
        whole = as_one(maps)
        sides = [
            Contestant("eosin", lambda maps=maps: separate(*maps)),
            Contestant(label, lambda whole=whole: peer(whole)),
        ]
        times = measure(sides, rounds=options.rounds, clock=clock, warm_up=False)
        versions = versions_of("opencv-python-headless", "scikit-image", "scipy")
        line = as_line("hovernet_postprocess", "eosin", label, times, environment=versions)
        lines.append({**line, "of": name, "nuclei": nuclei, "clock": options.clock})
    for line in lines[1:]:
        line["name"] = f"hovernet_postprocess, {line['of']}"
    show(lines, as_json=options.json)


if __name__ == "__main__":
    main()
