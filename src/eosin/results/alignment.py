"""Predictions of several runs brought into the same order of samples, or refused."""

from collections.abc import Sequence

import numpy as np

from eosin.errors import InputError
from eosin.results.schema import Predictions


def aligned(runs: Sequence[Predictions]) -> list[Predictions]:
    """Puts all runs in the order of sample names.

    Raises:
        InputError: the runs are not of the same samples with the same labels and groups, a sample
            occurs twice, or there is none.
    """
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
        is_share=predictions.is_share,
    )
