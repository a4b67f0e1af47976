"""What hyper-parameters are chosen by."""

from collections.abc import Callable, Mapping

import numpy as np

from eosin.probes._base import Labels


def accuracy(predicted: Labels, labels: Labels) -> float:
    """Gives the share of hits."""
    return float((predicted == labels).mean())


def balanced_accuracy(predicted: Labels, labels: Labels) -> float:
    """Averages the share of hits over the classes that occur in `labels`."""
    count = np.bincount(labels)
    hits = np.bincount(labels[predicted == labels], minlength=len(count))
    return float((hits[count > 0] / count[count > 0]).mean())


def macro_f1(predicted: Labels, labels: Labels) -> float:
    """Averages F1 over the classes that occur in `labels` or in `predicted`."""
    size = int(max(labels.max(), predicted.max())) + 1
    both = np.bincount(labels, minlength=size) + np.bincount(predicted, minlength=size)
    hits = np.bincount(labels[predicted == labels], minlength=size)
    return float((2 * hits[both > 0] / both[both > 0]).mean())


CRITERIA: Mapping[str, Callable[[Labels, Labels], float]] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}
