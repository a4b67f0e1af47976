"""Metrics as functions of how often each group of test samples counts.

A scorer holds what a metric needs of each group. `score` computes it for many weightings of the
groups at once, as a bootstrap draws them, and `contributions` says what each group adds to it.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from eosin.errors import InputError
from eosin.results.schema import Predictions

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_JACKKNIFE_GROUPS = 200


class Scorer(Protocol):
    """A metric of one run."""

    def score(self, weights: Floats) -> Floats:
        """Computes it for each column of `weights` `[groups, draws]`."""
        ...


class Additive(Scorer, Protocol):
    """A metric whose difference between two encoders can be tested."""

    def contributions(self) -> Floats:
        """What each group adds to the metric, `[groups]`; they sum to it.

        Exact for accuracy and balanced accuracy. Macro F1 and AUROC are no sums over groups: theirs
        is what leaving out the group changes, or, of many groups, the derivative.
        """
        ...


class Tally:
    """How many samples of each class were predicted as each class, by group.

    It remembers what it counted last, since several metrics ask for the same weights.
    """

    def __init__(self, predictions: Predictions) -> None:
        self.group, self.n_groups = numbered(predictions.group)
        self.n_classes = predictions.scores.shape[1]
        label, predicted = predictions.label, predictions.predicted
        pair = label * self.n_classes + predicted
        self._pairs = sums(pair, self.group, (self.n_classes**2, self.n_groups))
        self._shares: csr_array | None = None
        if predictions.is_share:
            hits = predictions.scores[np.arange(len(label)), label].astype(np.float64)
            self._shares = sums(label, self.group, (self.n_classes, self.n_groups), hits)
        self._last: tuple[Floats, Floats] | None = None

    def pairs(self, weights: Floats) -> Floats:
        """Counts samples by class and predicted class, `[classes, predicted, draws]`."""
        if self._last is None or self._last[0] is not weights:
            self._last = weights, self._pairs @ weights
        return self._last[1].reshape(self.n_classes, self.n_classes, -1)

    def hits(self, weights: Floats) -> Floats:
        """Counts what was predicted right of each class, `[classes, draws]`."""
        if self._shares is not None:
            return self._shares @ weights
        return np.einsum("ccd->cd", self.pairs(weights))

    def samples(self, weights: Floats) -> Floats:
        """Counts the samples, `[draws]`."""
        return self.pairs(weights).sum((0, 1))

    def of_groups(self) -> tuple[Floats, Floats]:
        """Hits `[classes, groups]` and pairs `[classes, predicted, groups]` of each group."""
        pairs = self._pairs.toarray().reshape(self.n_classes, self.n_classes, -1)
        if self._shares is not None:
            return self._shares.toarray(), pairs
        return np.einsum("ccg->cg", pairs), pairs


class Counts:
    """Accuracy, balanced accuracy or macro F1: by how many samples of each class were hit.

    Args:
        tally: of one run.
        metric: which of the three.
    """

    def __init__(self, tally: Tally, metric: str) -> None:
        self._tally, self._metric = tally, metric

    def score(self, weights: Floats) -> Floats:
        """Computes the metric for each column of `weights` `[groups, draws]`."""
        hits, pairs = self._tally.hits(weights), self._tally.pairs(weights)
        labelled = pairs.sum(1)
        if self._metric == "accuracy":
            return hits.sum(0) / labelled.sum(0)
        if self._metric == "balanced_accuracy":
            return mean_ratio(hits, labelled)
        return mean_ratio(2 * hits, labelled + pairs.sum(0))

    def contributions(self) -> Floats:
        """What each group adds to the metric, `[groups]`."""
        hits, pairs = self._tally.of_groups()
        labelled = pairs.sum(1)
        if self._metric == "accuracy":
            return hits.sum(0) / labelled.sum()
        if self._metric == "balanced_accuracy":
            total = labelled.sum(1)
            return (hits[total > 0] / total[total > 0, None]).mean(0)
        either = labelled + pairs.sum(0)
        total = either.sum(1)
        hits, either, total = hits[total > 0], either[total > 0], total[total > 0, None]
        of_class = 2 * hits.sum(1, keepdims=True) / total
        derivative = ((2 * hits - of_class * either) / total).mean(0)
        return summing_to_value(self, derivative, labelled.sum(0) / labelled.sum())


class Areas:
    """The area under the ROC curve: of class 1 of two, or the mean of one class against the rest.

    Raises:
        InputError: all samples are of one class.
    """

    def __init__(self, predictions: Predictions) -> None:
        if len(np.unique(predictions.label)) < 2:
            raise InputError("AUROC is not defined: all test samples are of one class.")
        n_classes = predictions.scores.shape[1]
        group, n_groups = numbered(predictions.group)
        self._share = np.bincount(group, minlength=n_groups) / len(group)
        self._areas = [
            _Area(predictions.scores[:, each], predictions.label == each, group, n_groups)
            for each in ([1] if n_classes == 2 else range(n_classes))
        ]

    def score(self, weights: Floats) -> Floats:
        """Computes the area for each column of `weights` `[groups, draws]`; NaN: undefined."""
        counted = [area.count(weights) for area in self._areas]
        wins, pairs = np.stack([each[0] for each in counted]), np.stack([e[1] for e in counted])
        return np.where((pairs > 0).any(0), mean_ratio(wins, pairs), np.nan)

    def contributions(self) -> Floats:
        """What each group adds to the area, `[groups]`."""
        derivatives = [area.derivative() for area in self._areas if area.is_defined]
        return summing_to_value(self, np.mean(derivatives, axis=0), self._share)


class _Area:
    """Counts pairs of a positive and a negative by the sign of their scores' difference.

    Samples in rising order of score are merged into steps: neighbours of one kind, or a tie of
    both kinds. Nothing is lost by it, and a good classifier has few steps.
    """

    def __init__(
        self,
        scores: npt.NDArray[np.float32],
        is_positive: npt.NDArray[np.bool_],
        group: Indices,
        n_groups: int,
    ) -> None:
        order = np.argsort(scores, kind="stable")
        ordered, positive = scores[order], is_positive[order]
        tie = np.cumsum(np.concatenate([[False], ordered[1:] != ordered[:-1]]))
        kind = (np.bincount(tie, positive) > 0) * 2 + (np.bincount(tie, ~positive) > 0)
        starts = np.concatenate([[False], (kind[1:] != kind[:-1]) | (kind[1:] == 3)])
        step = np.cumsum(starts)[tie]
        self._steps = int(step[-1]) + 1
        row = step + self._steps * positive
        self._counts = sums(row, group[order], (2 * self._steps, n_groups))
        self._n_groups = n_groups
        self.is_defined = bool(positive.any() and not positive.all())

    def count(self, weights: Floats) -> tuple[Floats, Floats]:
        """Counts, by draw, the pairs in the right order (a tie is half) and all pairs."""
        counts: Floats = self._counts @ weights
        negative, positive = counts[: self._steps], counts[self._steps :]
        pairs = negative.sum(0) * positive.sum(0)
        return np.einsum("sd,sd->d", positive, _middle(negative)), pairs

    def derivative(self) -> Floats:
        """How the area changes with the weight of each group, `[groups]`; sums to zero."""
        counts: Floats = self._counts @ np.ones((self._n_groups, 1))
        negative, positive = counts[: self._steps], counts[self._steps :]
        below = _middle(negative) / negative.sum()
        above = _middle(positive[::-1])[::-1] / positive.sum()
        area = (positive * below).sum() / positive.sum()
        of_step = np.concatenate([(above - area) / negative.sum(), (below - area) / positive.sum()])
        return (self._counts.T @ of_step)[:, 0]


def numbered(group: npt.NDArray[np.str_]) -> tuple[Indices, int]:
    """Numbers the groups in the order of their names; returns each sample's, and how many."""
    names, number = np.unique(group, return_inverse=True)
    return number, len(names)


def sums(
    row: Indices, group: Indices, shape: tuple[int, int], values: Floats | None = None
) -> csr_array:
    """Counts samples in each row and group, or sums their values; a sparse matrix of `shape`."""
    filled = np.ones(len(row)) if values is None else values
    return csr_array((filled, (row, group)), shape=shape)


def summing_to_value(scorer: Scorer, derivative: Floats, share: Floats) -> Floats:
    """Turns what a group changes into contributions, by its share of the samples.

    Of few groups the derivative is too small: tests between equal encoders over 8 groups called 8 %
    of the differences in AUROC real, where 5 % were promised.
    """
    n_groups = len(share)
    value = float(scorer.score(np.ones((n_groups, 1)))[0])
    if 2 < n_groups <= _JACKKNIFE_GROUPS:
        changes = value - scorer.score(1 - np.eye(n_groups))
        if np.isfinite(changes).all():
            derivative = (changes - changes.mean()) * (n_groups - 1) / n_groups
    return derivative + value * share


def _middle(counts: Floats) -> Floats:
    """Sums up to the middle of each row."""
    return np.cumsum(counts, axis=0) - counts / 2


def mean_ratio(top: Floats, bottom: Floats) -> Floats:
    """Averages `top / bottom` over the classes `[classes, draws]` that have something below."""
    counted = bottom > 0
    ratio = np.divide(top, bottom, out=np.zeros_like(top), where=counted)
    return ratio.sum(0) / np.maximum(counted.sum(0), 1)
