"""One plain linear probe, fitted and scored wherever the audit asks what a score is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from eosin.datasets._division import divide, hold_out
from eosin.errors import InputError
from eosin.probes import linear
from eosin.results.schema import Predictions
from eosin.results.statistics import DRAWS, LEVEL

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]
Groups = NDArray[np.str_]

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Inverse strengths of the penalty, of which a held-out fifth of the training groups chooses."""

_HELD_OUT = 0.2
_DRAWS_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """Images that a probe is fitted or scored on.

    Attributes:
        ids: names, unique [N].
        features: one row an image [N, D].
        labels: classes [N].
        groups: patients, slides or source images [N].
    """

    ids: NDArray[np.str_]
    features: Matrix
    labels: Labels
    groups: Groups

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Sample":
        """Gives some of the images, by number or by mask."""
        return Sample(
            ids=self.ids[rows],
            features=self.features[rows],
            labels=self.labels[rows],
            groups=self.groups[rows],
        )


def join(first: Sample, second: Sample) -> Sample:
    """Puts two samples together."""
    return Sample(
        ids=np.concatenate([first.ids, second.ids]),
        features=np.concatenate([first.features, second.features]),
        labels=np.concatenate([first.labels, second.labels]),
        groups=np.concatenate([first.groups, second.groups]),
    )


def choose_penalty(train: Sample, n_classes: int, seed: int) -> float:
    """Chooses the penalty by balanced accuracy on held-out groups of the training images.

    Where they are too few to hold out any, the middle one is taken.
    """
    out = hold_out(train.labels, train.groups, _HELD_OUT, seed)
    inner, judged = train.take(~out), train.take(out)
    if len(judged) == 0 or len(np.unique(inner.labels)) < 2:
        return PENALTIES[len(PENALTIES) // 2]
    probes = linear.fit_path(inner.features, inner.labels, n_classes, PENALTIES)
    scores = [_balanced_accuracy(probe.predict(judged.features), judged.labels) for probe in probes]
    return PENALTIES[int(np.argmax(scores))]


def predict(train: Sample, test: Sample, n_classes: int, penalty: float) -> Predictions:
    """Fits the probe on one sample and predicts the other."""
    if len(np.unique(train.labels)) < 2:
        raise InputError("A probe needs training images of two classes; there is one.")
    probe = linear.fit(train.features, train.labels, n_classes, penalty)
    scores = probe.predict(test.features)
    return Predictions(
        sample=test.ids,
        group=test.groups,
        label=test.labels,
        predicted=scores.argmax(1).astype(np.int64),
        scores=scores,
    )


def cross_validate(
    sample: Sample, parts: Groups, folds: int, n_classes: int, penalty: float, seed: int
) -> Predictions:
    """Predicts every image by a probe that was fitted on the other folds.

    Args:
        sample: all images.
        parts: what a fold holds whole [N]: groups, or the ids to divide image by image.
        folds: how many.
        n_classes: of the probe.
        penalty: of the probe.
        seed: of the division.
    """
    fold_of = divide(sample.labels, parts, [1 / folds] * folds, seed)
    scores = np.zeros((len(sample), n_classes), np.float32)
    for fold in range(folds):
        out = fold_of == fold
        if out.any():
            found = predict(sample.take(~out), sample.take(out), n_classes, penalty)
            scores[out] = found.scores
    return Predictions(
        sample=sample.ids,
        group=sample.groups,
        label=sample.labels,
        predicted=scores.argmax(1).astype(np.int64),
        scores=scores,
    )


def share_of_gain(
    part: Predictions, whole: Predictions, chance: float, seed: int = 0
) -> tuple[float, float, float]:
    """Computes which share of one probe's gain over chance another probe has, in balanced accuracy.

    Args:
        part: whose share is asked for.
        whole: of the same samples in the same order.
        chance: balanced accuracy of guessing.
        seed: of the draws.

    Returns:
        The share and its interval, by a bootstrap that draws whole groups for both at once,
        expanded for few groups as those of `eosin.results.statistics` are. With fewer than two
        groups the interval is infinite.
    """
    names, group = np.unique(part.group, return_inverse=True)
    size = len(names)
    hits = [_by_group(each, group, size, each.predicted == each.label) for each in (part, whole)]
    total = _by_group(part, group, size, np.ones(len(group), np.bool_))

    def ratio(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        bottom = weights @ total
        present = bottom > 0
        gains = [
            np.divide(weights @ hit, bottom, out=np.zeros_like(bottom), where=present).sum(1)
            / present.sum(1)
            - chance
            for hit in hits
        ]
        # A draw in which the whole gains nothing has no share.
        return np.divide(gains[0], gains[1], out=np.full(len(bottom), np.nan), where=gains[1] > 0)

    value = float(ratio(np.ones((1, size)))[0])
    if size < 2:
        return value, -np.inf, np.inf
    generator = np.random.default_rng(seed)
    equal = np.full(size, 1 / size)
    drawn = [
        ratio(generator.multinomial(size, equal, size=_DRAWS_AT_ONCE).astype(np.float64))
        for _ in range(DRAWS // _DRAWS_AT_ONCE)
    ]
    t = stdtrit(size - 1, (1 - LEVEL) / 2)
    tail = float(ndtr(t * np.sqrt(size / (size - 1))))
    low, high = np.nanquantile(np.concatenate(drawn), [tail, 1 - tail])
    return value, float(low), float(high)


def _by_group(
    predictions: Predictions, group: NDArray[np.int64], size: int, counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Counts samples by group and class [groups, classes]."""
    n_classes = predictions.scores.shape[1]
    cells = (group * n_classes + predictions.label)[counted]
    return np.bincount(cells, minlength=size * n_classes).reshape(size, -1).astype(np.float64)


def _balanced_accuracy(scores: Matrix, labels: Labels) -> float:
    hits = scores.argmax(1) == labels
    return float(np.mean([hits[labels == each].mean() for each in np.unique(labels)]))
