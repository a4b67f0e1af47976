"""Metrics from predictions, with bootstrap intervals that resample whole groups.

Samples of one patient, slide or source image are alike, so the bootstrap draws groups, not samples
(Field and Welsh, 2007, "Bootstrapping clustered data", the randomised cluster bootstrap). A draw is
a vector of how often each group was drawn; every metric is a function of per-group counts weighted
by it, so that all draws are computed together.

Intervals are percentile intervals, expanded for few groups (Hesterberg, 2015, "What teachers should
know about the bootstrap"): with tiles of six simulated slides 85 % of the plain intervals held, and
92 % of the expanded ones. They say how far the value depends on the choice of test groups and
nothing about another training run. Where every sample is right the interval has no width, which
promises more than it knows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from eosin.errors import InputError
from eosin.results.schema import Metric, Predictions

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
"""Every metric lies in [0, 1] and is better when it is larger."""

DRAWS = 2000
LEVEL = 0.95

_DRAWS_AT_ONCE = 32

Floats = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.int64]
_Scorer = Callable[[Floats], Floats]  # Group weights [groups, draws] to one value a draw.


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A paired difference of a metric between two encoders, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_real(self) -> bool:
        """Whether the interval lies wholly on one side of zero."""
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """The word that tables print: `real` or `not resolved`."""
        return "real" if self.is_real else "not resolved"


def measure(predictions: Predictions, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Metric]:
    """Computes every metric of `METRICS` that the predictions define, with its interval.

    Balanced accuracy and macro F1 leave out classes that do not occur. AUROC is that of class 1
    when there are two classes and else the mean over classes of one against the rest; it is left
    out when the test samples are all of one class.
    """
    return {
        metric: measure_mean([predictions], metric, draws=draws, seed=seed)
        for metric in METRICS
        if metric != "auroc" or len(np.unique(predictions.label)) > 1
    }


def measure_mean(
    runs: Sequence[Predictions], metric: str, *, draws: int = DRAWS, seed: int = 0
) -> Metric:
    """Computes the mean of a metric over runs (seeds, label draws) on the same test samples.

    With fewer than two groups nothing can be said about other groups: the interval is [0, 1].

    Raises:
        InputError: the runs are not of the same test samples.
    """
    runs = _aligned(runs)
    value, low, high = _interval(runs[0], _mean_scorer(runs, metric), 0.0, 1.0, draws, seed)
    return Metric(value=value, low=low, high=high)


def compare(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    metric: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Difference:
    """Computes `first` minus `second`, each the mean over its runs, both scored on the same draws.

    With fewer than two groups the interval is [-1, 1].

    Raises:
        InputError: the two were not predicted on the same samples with the same labels and groups.
    """
    aligned = _aligned([*first, *second])
    ours = _mean_scorer(aligned[: len(first)], metric)
    theirs = _mean_scorer(aligned[len(first) :], metric)
    value, low, high = _interval(
        aligned[0], lambda weights: ours(weights) - theirs(weights), -1.0, 1.0, draws, seed
    )
    return Difference(value=value, low=low, high=high)


def _interval(
    predictions: Predictions, scorer: _Scorer, worst: float, best: float, draws: int, seed: int
) -> tuple[float, float, float]:
    n_groups = len(np.unique(predictions.group))
    value = float(scorer(np.ones((n_groups, 1)))[0])
    if n_groups < 2:
        return value, worst, best
    values = np.concatenate([scorer(weights) for weights in _drawn(n_groups, draws, seed)])
    tail = _expanded_tail(n_groups)
    # A draw of one class alone has no AUROC (NaN) and tells nothing about it.
    low, high = np.nanquantile(values, [tail, 1 - tail])
    return value, float(low), float(high)


def _expanded_tail(n_groups: int) -> float:
    """Returns the percentile that does for `n_groups` what Student's t does for the normal."""
    t = stdtrit(n_groups - 1, (1 - LEVEL) / 2)
    return float(ndtr(t * np.sqrt(n_groups / (n_groups - 1))))


def _drawn(n_groups: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yields how often each group is drawn, `[groups, up to _DRAWS_AT_ONCE]` at a time."""
    generator = np.random.default_rng(seed)
    for start in range(0, draws, _DRAWS_AT_ONCE):
        columns = min(_DRAWS_AT_ONCE, draws - start)
        drawn = generator.integers(n_groups, size=(n_groups, columns))
        cell = drawn * columns + np.arange(columns)
        weights = np.bincount(cell.ravel(), minlength=n_groups * columns)
        yield weights.reshape(n_groups, columns).astype(np.float64)


def _mean_scorer(runs: Sequence[Predictions], metric: str) -> _Scorer:
    if metric not in METRICS:
        raise ValueError(f"{metric} is not one of {', '.join(METRICS)}")
    scorers = [
        _auroc_scorer(run) if metric == "auroc" else _count_scorer(run, metric) for run in runs
    ]
    return lambda weights: np.mean([scorer(weights) for scorer in scorers], axis=0)


def _count_scorer(predictions: Predictions, metric: str) -> _Scorer:
    """Scores by how many samples of each class were hit, labelled so and predicted so."""
    n_classes = predictions.scores.shape[1]
    groups, group = np.unique(predictions.group, return_inverse=True)
    hit = predictions.label == predictions.predicted
    counts = np.concatenate(
        [
            _counts(group[hit], predictions.label[hit], len(groups), n_classes),
            _counts(group, predictions.label, len(groups), n_classes),
            _counts(group, predictions.predicted, len(groups), n_classes),
        ]
    )

    def scorer(weights: Floats) -> Floats:
        hits, labelled, said = (counts @ weights).reshape(3, n_classes, -1)
        if metric == "accuracy":
            return hits.sum(0) / labelled.sum(0)
        if metric == "balanced_accuracy":
            return _mean_ratio(hits, labelled)
        return _mean_ratio(2 * hits, labelled + said)

    return scorer


def _counts(group: _Indices, of_class: _Indices, n_groups: int, n_classes: int) -> Floats:
    """Counts samples, `[classes, groups]`."""
    cells = np.bincount(of_class * n_groups + group, minlength=n_classes * n_groups)
    return cells.reshape(n_classes, n_groups).astype(np.float64)


def _auroc_scorer(predictions: Predictions) -> _Scorer:
    """Scores by the area under the ROC curve (class 1 of two, or the mean of one against rest)."""
    if len(np.unique(predictions.label)) < 2:
        raise InputError("AUROC is not defined: all test samples are of one class.")
    _, group = np.unique(predictions.group, return_inverse=True)
    n_classes = predictions.scores.shape[1]
    classes = [1] if n_classes == 2 else range(n_classes)
    areas = [_area_scorer(predictions, group, positive) for positive in classes]

    def scorer(weights: Floats) -> Floats:
        wins, pairs = np.stack([area(weights) for area in areas], axis=1)
        return np.where((pairs > 0).any(0), _mean_ratio(wins, pairs), np.nan)

    return scorer


def _area_scorer(
    predictions: Predictions, group: _Indices, positive: int
) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Counts pairs of a positive and a negative: those in the right order (a tie is half), all.

    With the samples in rising order of score, the weight below a positive is the weight up to the
    middle of its tie, less the positives among it; the latter sum to half of their total squared.
    """
    scores = predictions.scores[:, positive]
    order = np.argsort(scores, kind="stable")
    ordered, group = scores[order], group[order]
    is_positive = predictions.label[order] == positive
    first = np.searchsorted(ordered, ordered[is_positive], side="left")
    last = np.searchsorted(ordered, ordered[is_positive], side="right")

    def count(weights: Floats) -> tuple[Floats, Floats]:
        below = np.zeros((len(group) + 1, weights.shape[1]))
        np.cumsum(weights[group], axis=0, out=below[1:])
        of_positives = weights[group[is_positive]]
        positives = of_positives.sum(0)
        middle = (below[first] + below[last]) / 2
        wins = np.einsum("pd,pd->d", of_positives, middle) - positives**2 / 2
        return wins, positives * (below[-1] - positives)

    return count


def _mean_ratio(top: Floats, bottom: Floats) -> Floats:
    """Averages `top / bottom` over the classes `[classes, draws]` that have something below."""
    counted = bottom > 0
    ratio = np.divide(top, bottom, out=np.zeros_like(top), where=counted)
    return ratio.sum(0) / np.maximum(counted.sum(0), 1)


def _aligned(runs: Sequence[Predictions]) -> list[Predictions]:
    """Puts all runs in the order of sample names, refusing runs on other samples."""
    ordered = [_sorted_by_sample(run) for run in runs]
    reference = ordered[0]
    for other in ordered[1:]:
        if not np.array_equal(reference.sample, other.sample):
            only = np.setxor1d(reference.sample, other.sample)
            counts = f"{len(reference.sample)} and {len(other.sample)}"
            raise InputError(
                f"The predictions are not of the same samples ({counts}; {str(only[0])!r} is in "
                "one only), so they cannot be compared; evaluate both encoders on the same split."
            )
        for what in ("label", "group"):
            differs = getattr(reference, what) != getattr(other, what)
            if differs.any():
                sample = str(reference.sample[np.argmax(differs)])
                raise InputError(
                    f"Sample {sample!r} has another {what} in the other predictions, so they "
                    "cannot be compared; evaluate both encoders on the same data."
                )
    return ordered


def _sorted_by_sample(predictions: Predictions) -> Predictions:
    samples = predictions.sample
    if len(samples) == 0:
        raise InputError("There are no predictions to measure; the test split is empty.")
    order = np.argsort(samples, kind="stable")
    twice = np.flatnonzero(samples[order][1:] == samples[order][:-1])
    if len(twice):
        sample = str(samples[order][twice[0]])
        raise InputError(f"Sample {sample!r} was predicted twice; sample names must be unique.")
    return Predictions(
        sample=samples[order],
        group=predictions.group[order],
        label=predictions.label[order],
        predicted=predictions.predicted[order],
        scores=predictions.scores[order],
    )
