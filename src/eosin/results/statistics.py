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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from eosin.results.alignment import aligned
from eosin.results.calibration import (
    CALIBRATION,
    BrierScore,
    CalibrationError,
    is_probabilistic,
    turned,
)
from eosin.results.instance_counts import InstanceCounts
from eosin.results.instance_scores import INSTANCE_METRICS, is_defined, metric_names
from eosin.results.measures import make_scorers
from eosin.results.schema import Measurable, Metric, Predictions
from eosin.results.scorers import Areas, Counts, Floats, Scorer, Tally, numbered

CLASS_METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
METRICS = (*CLASS_METRICS, *INSTANCE_METRICS)
"""Every metric lies in [0, 1] and is better when it is larger."""

_OF_SHARES = ("accuracy", "balanced_accuracy")

DRAWS = 2000
LEVEL = 0.95

_DRAWS_AT_ONCE = (16, 256)
_WEIGHTS_AT_ONCE = 2**19


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A paired difference of a metric between two encoders, with its 95 % interval.

    `p` is that of the permutation test, and `p_adjusted` the same after Holm's correction over all
    pairs that were tested beside it; both are None where the difference was not tested.
    """

    value: float
    low: float
    high: float
    p: float | None = None
    p_adjusted: float | None = None

    @property
    def is_real(self) -> bool:
        """Whether it was shown: by the adjusted p-value, or else by its interval alone."""
        if self.p_adjusted is not None:
            return self.p_adjusted < 1 - LEVEL
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        """The word that tables print: `real` or `not resolved`."""
        return "real" if self.is_real else "not resolved"


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """A metric of several encoders on the same draws of test groups.

    Attributes:
        values: on the test groups as they are, `[encoders]`.
        draws: on each draw, `[encoders, draws]`.
        contributions: what each group adds to the value, `[encoders, groups]`.
    """

    values: Floats
    draws: Floats
    contributions: Floats

    def metric(self, encoder: int) -> Metric:
        """Gives the value of an encoder with its interval; [0, 1] where there is one group."""
        return _metric(self.values[encoder], self.draws[encoder], self.n_groups)

    def difference(self, first: int, second: int) -> Difference:
        """Gives `first` minus `second` with its interval; [-1, 1] where there is one group."""
        value = float(self.values[first] - self.values[second])
        draws = self.draws[first] - self.draws[second]
        low, high = _interval(draws, self.n_groups, -1.0, 1.0)
        return Difference(value=value, low=low, high=high)

    def standard_error(self, first: int, second: int) -> float:
        """Estimates the standard error of `first` minus `second`; NaN where there is one group."""
        draws = self.draws[first] - self.draws[second]
        if self.n_groups < 2:
            return float("nan")
        return float(np.nanstd(draws) * np.sqrt(self.n_groups / (self.n_groups - 1)))

    @property
    def n_groups(self) -> int:
        """How many test groups there are."""
        return self.contributions.shape[1]


def measure(predictions: Measurable, *, draws: int = DRAWS, seed: int = 0) -> dict[str, Metric]:
    """Computes all that the predictions define, with intervals: `METRICS`, and the calibration.

    Of counts of instances these are the metrics of `instance_scores`, over all types and of each.

    Balanced accuracy and macro F1 leave out classes that do not occur. AUROC is that of class 1
    when there are two classes and else the mean over classes of one against the rest; it is left
    out when the test samples are all of one class. `ece` and `brier` (smaller is better) are left
    out when the scores are not probabilities. Of shares of episodes, only accuracies are means over
    the episodes, and the others are left out.
    """
    (predictions,) = aligned([predictions])
    if isinstance(predictions, InstanceCounts):
        return _measured_instances(predictions, draws, seed)
    return _measured_classes(predictions, draws, seed)


def _measured_instances(counts: InstanceCounts, draws: int, seed: int) -> dict[str, Metric]:
    names = [name for name in metric_names(counts) if is_defined(counts, name)]
    _, n_groups = numbered(counts.group)
    if not names:
        return {}
    values, drawn = _resampled(
        [make_scorers([counts], name) for name in names], n_groups, draws, seed
    )
    return {
        name: _metric(value, row, n_groups)
        for name, value, row in zip(names, values, drawn, strict=True)
    }


def _measured_classes(predictions: Predictions, draws: int, seed: int) -> dict[str, Metric]:
    names = [
        metric
        for metric in (_OF_SHARES if predictions.is_share else CLASS_METRICS)
        if metric != "auroc" or len(np.unique(predictions.label)) > 1
    ]
    tally = Tally(predictions)
    scorers: list[Sequence[Scorer]] = [
        [Areas(predictions) if name == "auroc" else Counts(tally, name)] for name in names
    ]
    if is_probabilistic(predictions):
        scorers += [[CalibrationError(predictions, tally)], [BrierScore(predictions, tally)]]
        names += CALIBRATION
    values, drawn = _resampled(scorers, tally.n_groups, draws, seed)
    measured = {
        name: _metric(value, row, tally.n_groups)
        for name, value, row in zip(names, values, drawn, strict=True)
    }
    if "ece" in measured and tally.n_groups > 1:
        measured["ece"] = turned(measured["ece"])
    return measured


def measure_mean(
    runs: Sequence[Measurable], metric: str, *, draws: int = DRAWS, seed: int = 0
) -> Metric:
    """Computes the mean of a metric over runs (seeds, label draws) on the same test samples.

    With fewer than two groups nothing can be said about other groups: the interval is [0, 1].

    Raises:
        InputError: the runs are not of the same test samples.
    """
    return resample([runs], metric, draws=draws, seed=seed).metric(0)


def compare(
    first: Sequence[Measurable],
    second: Sequence[Measurable],
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
    return resample([first, second], metric, draws=draws, seed=seed).difference(0, 1)


def resample(
    encoders: Sequence[Sequence[Measurable]],
    metric: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Resampled:
    """Scores several encoders, each the mean over its runs, on the same draws of test groups.

    Raises:
        InputError: not all were predicted on the same samples with the same labels and groups.
    """
    if metric not in METRICS:
        raise ValueError(f"{metric} is not one of {', '.join(METRICS)}")
    runs = aligned([run for encoder in encoders for run in encoder])
    in_order = iter(make_scorers(runs, metric))
    scorers = [[next(in_order) for _ in encoder] for encoder in encoders]
    _, n_groups = numbered(runs[0].group)
    values, drawn = _resampled(scorers, n_groups, draws, seed)
    return Resampled(
        values=values,
        draws=drawn,
        contributions=np.stack(
            [np.mean([run.contributions() for run in each], axis=0) for each in scorers]
        ),
    )


def _resampled(
    scorers: Sequence[Sequence[Scorer]], n_groups: int, draws: int, seed: int
) -> tuple[Floats, Floats]:
    """Averages each row of scorers: as it is `[rows]`, and on draws of groups `[rows, draws]`."""

    def means(weights: Floats) -> Floats:
        return np.stack([np.mean([run.score(weights) for run in row], axis=0) for row in scorers])

    values = means(np.ones((n_groups, 1)))[:, 0]
    if n_groups < 2:
        return values, np.repeat(values[:, None], draws, axis=1)
    return values, np.concatenate([means(each) for each in _drawn(n_groups, draws, seed)], axis=1)


def _metric(value: float, draws: Floats, n_groups: int) -> Metric:
    low, high = _interval(draws, n_groups, 0.0, 1.0)
    return Metric(value=float(value), low=low, high=high)


def _interval(draws: Floats, n_groups: int, worst: float, best: float) -> tuple[float, float]:
    if n_groups < 2:
        return worst, best
    tail = _expanded_tail(n_groups)
    # A draw of one class alone has no AUROC (NaN) and tells nothing about it.
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def _expanded_tail(n_groups: int) -> float:
    """Returns the percentile that does for `n_groups` what Student's t does for the normal."""
    t = stdtrit(n_groups - 1, (1 - LEVEL) / 2)
    return float(ndtr(t * np.sqrt(n_groups / (n_groups - 1))))


def _drawn(n_groups: int, draws: int, seed: int) -> Iterator[Floats]:
    """Yields how often each group is drawn, `[groups, some draws]` at a time."""
    generator = np.random.default_rng(seed)
    least, most = _DRAWS_AT_ONCE
    at_once = max(least, min(most, _WEIGHTS_AT_ONCE // n_groups))
    for start in range(0, draws, at_once):
        columns = min(at_once, draws - start)
        weights = np.empty((columns, n_groups))
        for row in weights:
            drawn = generator.integers(n_groups, size=n_groups, dtype=np.uint32)
            row[:] = np.bincount(drawn, minlength=n_groups)
        yield np.ascontiguousarray(weights.T)
