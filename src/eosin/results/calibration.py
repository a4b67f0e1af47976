"""How far predicted probabilities can be believed: calibration error and Brier score.

Both are better when they are smaller and are kept apart from the metrics that encoders are ranked
by. The calibration error is that of Guo et al. (2017): the most likely class of each sample, in 15
bins of equal width. It is biased upwards for few samples: a perfectly calibrated classifier of 100
samples has one of about 0.1. The Brier score sums the squared error over the classes and halves
it, so that it lies in [0, 1] and is the usual one for two classes.

A bootstrap adds the same bias once more, so that the interval of the calibration error is turned
about the value. With three classes and 1,000 samples it held the true error in 66, 89, 91 and 92 of
100 simulated test sets for true errors of 0.00, 0.04, 0.08 and 0.21; as drawn, in 0, 48, 92 and 94.
"""

import numpy as np

from eosin.results.schema import Metric, Predictions
from eosin.results.scorers import Floats, Tally, sums

CALIBRATION = ("ece", "brier")
BINS = 15

_TOLERANCE = 1e-3


def is_probabilistic(predictions: Predictions) -> bool:
    """Whether the scores are probabilities: of each sample none negative, and one in sum."""
    scores = predictions.scores
    are_shares = predictions.is_share  # Of episodes; no classifier gave them as probabilities.
    return not are_shares and bool(
        (scores >= 0).all() and (abs(scores.sum(1, dtype=np.float64) - 1) <= _TOLERANCE).all()
    )


def turned(metric: Metric) -> Metric:
    """Turns an interval about its value, as far as it stays in [0, 1] and holds the value."""
    return Metric(
        value=metric.value,
        low=max(0.0, 2 * metric.value - metric.high),
        high=min(1.0, max(metric.value, 2 * metric.value - metric.low)),
    )


class CalibrationError:
    """The expected calibration error of one run, by group."""

    def __init__(self, predictions: Predictions, tally: Tally) -> None:
        self._tally = tally
        confidence = predictions.scores.max(1).astype(np.float64)
        hit = predictions.scores.argmax(1) == predictions.label
        # A confidence on an edge belongs to the bin below it.
        of_bin = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self._gaps = sums(of_bin, tally.group, (BINS, tally.n_groups), hit - confidence)

    def score(self, weights: Floats) -> Floats:
        """Computes it for each column of `weights` `[groups, draws]`."""
        return abs(self._gaps @ weights).sum(0) / self._tally.samples(weights)


class BrierScore:
    """The Brier score of one run, by group."""

    def __init__(self, predictions: Predictions, tally: Tally) -> None:
        self._tally = tally
        wrong = predictions.scores.astype(np.float64)
        wrong[np.arange(len(wrong)), predictions.label] -= 1
        row = np.zeros(len(wrong), dtype=np.int64)
        self._errors = sums(row, tally.group, (1, tally.n_groups), (wrong**2).sum(1) / 2)

    def score(self, weights: Floats) -> Floats:
        """Computes it for each column of `weights` `[groups, draws]`."""
        return (self._errors @ weights)[0] / self._tally.samples(weights)
