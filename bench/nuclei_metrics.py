"""Metrics of an image of 1000 by 1000 pixels with about 1,000 nuclei, against the authors' code.

    python -m bench.nuclei_metrics --json [--peer CLONE]

The peer is a plain rendition of the published algorithms or, with `--peer`, the functions of a
clone of vqdang/hover_net. The first line is of all that the authors' evaluation computes of an
image (numbering without gaps, Dice, PQ, AJI, AJI+, and pairs of centroids), the second of PQ and
AJI alone on the peer's side; ours counts all of it, by type too, in both. The results are compared:
equal to 1e-6 (which the authors add to a denominator), or the benchmark fails. `--clock cpu` is for
a busy machine.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import center_of_mass
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from bench import _hover_net
from bench._compare import Contestant, arguments, as_line, measure, show
from eosin.nuclei.metrics import RADIUS_PX, count, stack
from eosin.results.instance_scores import image_scores

Map = NDArray[np.int32]
Floats = NDArray[np.float64]
TYPES = ("a", "b", "c", "d")


def predict(truth: Map, generator: np.random.Generator) -> Map:
    """Shifts nuclei, loses some, joins some, and makes some up."""
    shifted = np.zeros_like(truth)
    moves = generator.integers(-3, 4, (int(truth.max()) + 1, 2))
    is_lost = generator.random(len(moves)) < 0.15
    joined_to = np.where(generator.random(len(moves)) < 0.1, 1, 0)
    rows, columns = np.nonzero(truth)
    numbers = truth[rows, columns]
    to = (np.stack([rows, columns], 1) + moves[numbers]).clip(0, np.array(truth.shape) - 1)
    keeps = ~is_lost[numbers]
    shifted[tuple(to[keeps].T)] = (numbers - joined_to[numbers])[keeps]
    made_up = _hover_net.draw_nuclei(len(truth), len(moves) // 10, generator)
    shifted[made_up > 0] = made_up[made_up > 0] + truth.max()
    return shifted


def renumber(instances: Map) -> Map:
    """Numbers instances without gaps, one after the other."""
    out = np.zeros_like(instances)
    for to, number in enumerate(np.unique(instances)[1:], 1):
        out[instances == number] = to
    return out


def overlaps(true: Map, predicted: Map) -> tuple[Floats, Floats, list[Map], list[Map]]:
    """What each true and each predicted nucleus share and cover, from one mask for each."""
    of_true = [(true == number).astype(np.uint8) for number in np.unique(true)[1:]]
    of_predicted = [(predicted == number).astype(np.uint8) for number in np.unique(predicted)[1:]]
    common, union = np.zeros((2, len(of_true), len(of_predicted)))
    for row, mask in enumerate(of_true):
        for number in np.unique(predicted[mask > 0]):
            if number:
                other = of_predicted[number - 1]
                shared = (mask * other).sum()
                common[row, number - 1] = shared
                union[row, number - 1] = (mask + other).sum() - shared
    return common, union, of_true, of_predicted


def dice(true: Map, predicted: Map) -> float:
    """Dice of the foregrounds."""
    first, second = true > 0, predicted > 0
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def panoptic(true: Map, predicted: Map) -> tuple[float, float, float]:
    """DQ, SQ and PQ."""
    common, union, of_true, of_predicted = overlaps(true, predicted)
    iou = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    tp = int((iou > 0.5).sum())
    quality = tp / (tp + 0.5 * (len(of_predicted) - tp) + 0.5 * (len(of_true) - tp))
    segmentation = iou[iou > 0.5].sum() / (tp + 1e-6)
    return quality, segmentation, quality * segmentation


def aggregated(true: Map, predicted: Map, one_to_one: bool) -> float:
    """AJI, or AJI+."""
    common, union, of_true, of_predicted = overlaps(true, predicted)
    iou = common / (union + 1e-6)
    if one_to_one:
        rows, columns = linear_sum_assignment(-iou)
    else:
        rows, columns = np.arange(len(of_true)), iou.argmax(1)
    is_pair = iou[rows, columns] > 0
    rows, columns = rows[is_pair], columns[is_pair]
    total = union[rows, columns].sum()
    total += sum(of_true[each].sum() for each in set(range(len(of_true))) - set(rows))
    total += sum(of_predicted[each].sum() for each in set(range(len(of_predicted))) - set(columns))
    return common[rows, columns].sum() / total


def pair_centroids(true: Floats, predicted: Floats, radius: float) -> int:
    """How many centroids are paired within a radius."""
    distances = cdist(true, predicted)
    return int((distances[linear_sum_assignment(distances)] <= radius).sum())


RENDITION = SimpleNamespace(
    name="plain rendition of HoVer-Net's metrics",
    renumber=renumber,
    dice=dice,
    panoptic=panoptic,
    aji=lambda true, predicted: aggregated(true, predicted, one_to_one=False),
    aji_plus=lambda true, predicted: aggregated(true, predicted, one_to_one=True),
    pair=pair_centroids,
)


def load_peer(clone: Path) -> SimpleNamespace:
    """The same by the authors' own functions."""
    theirs = _hover_net.load(clone, "metrics.stats_utils")
    return SimpleNamespace(
        name="vqdang/hover_net, stats_utils",
        renumber=theirs.remap_label,
        dice=theirs.get_dice_1,
        panoptic=lambda true, predicted: theirs.get_fast_pq(true, predicted)[0],
        aji=theirs.get_fast_aji,
        aji_plus=theirs.get_fast_aji_plus,
        pair=lambda *given: len(theirs.pair_coordinates(*given)[0]),
    )


def check_equal(ours: Mapping[str, float], theirs: Mapping[str, float]) -> None:
    """Fails where the two sides do not compute the same."""
    for name, expected in theirs.items():
        assert abs(ours[name] - expected) < 1e-6, f"{name} is {ours[name]}, and {expected} there"
    print("equal:", ", ".join(f"{name} {value:.4f}" for name, value in theirs.items()))


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--px", type=int, default=1000, help="side of the image")
    parser.add_argument("--nuclei", type=int, default=1150, help="drawn; small ones are left out")
    parser.add_argument("--runs", type=int, default=10, help="of ours, in each round")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    _hover_net.add_peer(parser)
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    truth = _hover_net.draw_nuclei(options.px, options.nuclei, generator)
    gappy = predict(truth, generator)
    true_types, types = (
        generator.integers(0, len(TYPES), int(each.max())) for each in (truth, gappy)
    )
    peer = load_peer(options.peer) if options.peer else RENDITION
    predicted = peer.renumber(gappy)
    centroids = [
        np.array(center_of_mass(each > 0, each, np.arange(1, each.max() + 1)))
        for each in (truth, predicted)
    ]
    found: dict[str, float] = {}

    def pq_and_aji() -> None:
        found["dq"], found["sq"], found["pq"] = peer.panoptic(truth, predicted)
        found["aji"] = peer.aji(truth, predicted)

    def rest() -> None:
        found["dice"] = peer.dice(peer.renumber(truth), peer.renumber(gappy))
        found["aji_plus"] = peer.aji_plus(truth, predicted)
        found["pairs"] = peer.pair(*centroids, RADIUS_PX)

    def score() -> dict[str, float]:
        row = count((truth, true_types), (gappy, types), len(TYPES))
        counts = stack(TYPES, ["image"], ["patient"], [row])
        scores = {name: float(value[0]) for name, value in image_scores(counts).items()}
        return scores | {"pairs": float(row.found[0])}

    def run_ours() -> None:
        for _ in range(options.runs):
            score()

    ours = score()
    clock: Callable[[], float] = time.perf_counter if options.clock == "wall" else time.process_time
    sides = [
        Contestant("eosin", run_ours),
        Contestant("PQ and AJI", pq_and_aji),
        Contestant("the rest", rest),
    ]
    times = measure(sides, rounds=options.rounds, clock=clock, warm_up=False)
    check_equal(ours, found)
    times["eosin"] = [seconds / options.runs for seconds in times["eosin"]]
    first = f"{peer.name}: PQ and AJI"
    times[first] = times["PQ and AJI"]
    both = f"{peer.name}: all"
    times[both] = [a + b for a, b in zip(times[first], times["the rest"], strict=True)]
    facts = {"px": options.px, "nuclei": int(truth.max()), "clock": options.clock}
    lines = [
        as_line("nuclei_metrics", "eosin", both, times) | facts,
        as_line("nuclei_metrics_pq_aji", "eosin", first, times) | facts,
    ]
    show(lines, as_json=options.json)


if __name__ == "__main__":
    main()
