"""What trained encoders are worth: probes on both data sets, intervals, and the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench._learning_data import LC25000, PCAM, Data
from bench._learning_settings import METHODS
from eosin.datasets._base import LabelledImages
from eosin.embeddings import extract
from eosin.embeddings.embedded import Embedded, embed_splits
from eosin.encoders import Encoder
from eosin.images.stain_shift import NAME as STAIN_SHIFT
from eosin.protocols import strict
from eosin.tasks._base import Job, run_head

TASKS = ("knn", "linear")
SIDES = ("official", "pathology", "lightly")
BASELINES = ("random", "colour_histogram")
SHIFTS = (extract.NO_SHIFT, STAIN_SHIFT)
MARGIN = 0.02
"""How far below lightly's the lower bound of our mean balanced accuracy may lie."""
_DRAWS, _LEVEL = 4000, 0.95
_PRECISION = "fp32"

Floats = NDArray[np.float64]
Line = Mapping[str, Any]


def evaluate(encoder: Encoder, data: Data) -> dict[str, Any]:
    """Fits the probes of the protocol `strict` and predicts every test image, plain and shifted.

    Returns:
        `predicted`: by data set, task and shift a string with the predicted class of each test
        image; `selection`: by data set and task the balanced accuracy that hyper-parameters were
        chosen by, within the training part (LC25000) or on the validation split (PatchCamelyon).
    """
    predicted: dict[str, str] = {}
    selection: dict[str, float] = {}
    for name, splits in data.labelled.items():
        embedded = _embed(encoder, splits)
        for task in TASKS:
            job = Job(task=task, protocol=strict.PROTOCOL)
            head = getattr(strict.PROTOCOL, task)
            for result, predictions in run_head(task, head, job, embedded):
                key = f"{name}/{task}"
                predicted[f"{key}/{result.data.shift}"] = "".join(map(str, predictions.predicted))
                selection[key] = float(result.selection["balanced_accuracy"])
    return {"predicted": predicted, "selection": selection}


def _embed(encoder: Encoder, splits: Mapping[str, LabelledImages]) -> Embedded:
    config = extract.Config(precision=_PRECISION)
    return embed_splits(
        encoder,
        splits,
        lambda split, shift: extract.extract(encoder, splits[split], config, shift),
        shifts=SHIFTS,
        precision=_PRECISION,
    )


def truth(data: Data) -> dict[str, Any]:
    """The labels and groups of the test images, by data set, which tell what was predicted right.

    Labels are a string with a digit an image, and groups numbers.
    """
    return {
        name: {
            "labels": "".join(map(str, splits["test"].labels)),
            "groups": np.unique(splits["test"].groups, return_inverse=True)[1].tolist(),
            "grouped_by": splits["test"].grouped_by,
        }
        for name, splits in data.labelled.items()
    }


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} ({100 * self.low:+.1f} to {100 * self.high:+.1f})"


class Scores:
    """Balanced accuracies of all runs, and of the same draws of test images for each.

    A draw takes as many groups as there are, with replacement: source images of LC25000, images of
    PatchCamelyon (whose subset names no slides). Of a balanced accuracy only the classes count that
    occur.

    Args:
        known: what `truth` gave.
        lines: of runs, as `bench.learning` writes them.
    """

    def __init__(self, known: Mapping[str, Any], lines: Sequence[Line]) -> None:
        self._known = known
        self._lines = {(line["method"], line["side"], line["seed"]): line for line in lines}
        rng = np.random.default_rng(0)
        self._weights: dict[str, Floats] = {}
        for name, of_set in known.items():
            count = max(of_set["groups"]) + 1
            drawn = rng.multinomial(count, np.full(count, 1 / count), size=_DRAWS).T
            # The first column is the test set itself.
            self._weights[name] = np.hstack([np.ones((count, 1)), drawn]).astype(np.float64)

    def seeds(self, method: str, side: str) -> list[int]:
        """The seeds with which a side was run."""
        return sorted(key[2] for key in self._lines if key[:2] == (method, side))

    def of(self, method: str, side: str, seed: int, shift: str) -> dict[str, Floats]:
        """By column, data set / task, the balanced accuracy [1 + draws]; the first is the value."""
        line = self._lines[method, side, seed]
        return {
            f"{name}/{task}": self._balanced(name, line["predicted"][f"{name}/{task}/{shift}"])
            for name in (LC25000, PCAM)
            for task in TASKS
        }

    def _balanced(self, name: str, predicted: str) -> Floats:
        label = np.array(list(self._known[name]["labels"]), dtype=np.int64)
        group = np.array(self._known[name]["groups"])
        said = np.array(list(predicted), dtype=np.int64)
        assert len(said) == len(label), f"other test images of {name} were predicted"
        counts = np.zeros((2, label.max() + 1, group.max() + 1))
        np.add.at(counts[0], (label, group), said == label)
        np.add.at(counts[1], (label, group), 1)
        hits, all_of_class = counts @ self._weights[name]
        occurs = all_of_class > 0
        return np.where(occurs, hits / np.maximum(all_of_class, 1), 0).sum(0) / occurs.sum(0)

    def mean(self, method: str, side: str, seed: int, shift: str) -> Floats:
        """The mean over data sets and probes, [1 + draws]."""
        return np.mean(list(self.of(method, side, seed, shift).values()), axis=0)

    def difference(self, method: str, ours: str, peer: str, shift: str) -> Interval | None:
        """The mean balanced accuracy of one side less another's, over the seeds that both have.

        Images and seeds are drawn together. Seeds are pairs, since both sides start from the same
        weights and see the same tiles; their deviations are stretched by sqrt(n / (n - 1)), which a
        bootstrap of n values lacks.
        """
        seeds = sorted({*self.seeds(method, ours)} & {*self.seeds(method, peer)})
        if not seeds:
            return None
        by_seed = np.stack(
            [
                self.mean(method, ours, seed, shift) - self.mean(method, peer, seed, shift)
                for seed in seeds
            ]
        )
        middle = by_seed.mean(0)
        count, draws = len(seeds), by_seed.shape[1]
        drawn = np.random.default_rng(1).integers(count, size=(count, draws))
        deviation = np.take_along_axis(by_seed, drawn, 0).mean(0) - middle
        stretch = np.sqrt(count / (count - 1)) if count > 1 else 0.0
        values = (middle + stretch * deviation)[1:]
        low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Interval(value=float(middle[0]), low=float(low), high=float(high))

    def rows(self) -> list[tuple[str, str]]:
        """Method and side of every row that was measured, baselines last."""
        wanted = [(method, side) for method in METHODS for side in SIDES]
        wanted += [(name, "baseline") for name in BASELINES]
        return [row for row in wanted if self.seeds(*row)]


def gate(scores: Scores, method: str) -> bool | None:
    """Whether our official side learns as much as lightly's, within the margin; None: unknown."""
    plain = scores.difference(method, "official", "lightly", extract.NO_SHIFT)
    return None if plain is None else plain.low >= -MARGIN


def markdown(scores: Scores) -> str:
    """Two tables: balanced accuracies in per cent, and by how much sides differ."""
    columns = [f"{name} {task}" for name in ("LC25000", "PCam") for task in TASKS]
    head = ["method", "side", "seeds", *columns, "mean", "mean, stains shifted"]
    table = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for method, side in scores.rows():
        seeds = scores.seeds(method, side)
        plain = [scores.of(method, side, seed, extract.NO_SHIFT) for seed in seeds]
        cells = [[float(each[column][0]) for each in plain] for column in plain[0]]
        for shift in SHIFTS:
            cells.append([float(scores.mean(method, side, seed, shift)[0]) for seed in seeds])
        table.append([method, side, str(len(seeds)), *map(_cell, cells)])
    margin = f"{-100 * MARGIN:+.0f}"
    differences = [
        ["method", "official - lightly", f"lower bound {margin} or more", "shifted"],
        ["---", "---:", "---", "---:"],
    ]
    pairs = [("official", "lightly"), ("pathology", "official"), ("pathology", "lightly")]
    for ours, theirs in pairs[1:]:
        differences[0] += [f"{ours} - {theirs}", "shifted"]
        differences[1] += ["---:", "---:"]
    verdicts = {True: "yes", False: "no", None: "not measured"}
    for method in METHODS:
        cells = [
            scores.difference(method, ours, theirs, shift)
            for ours, theirs in pairs
            for shift in SHIFTS
        ]
        text = ["" if cell is None else str(cell) for cell in cells]
        differences.append([method, text[0], verdicts[gate(scores, method)], *text[1:]])
    return "\n\n".join(
        "\n".join(f"| {' | '.join(row)} |" for row in each) for each in (table, differences)
    )


def _cell(values: Sequence[float]) -> str:
    """The mean over seeds in per cent, with the standard deviation where there are several."""
    mean = f"{100 * np.mean(values):.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"
