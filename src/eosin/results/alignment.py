"""Predictions of several runs brought into the same order of samples, or refused."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError
from eosin.results.instance_counts import InstanceCounts
from eosin.results.schema import Measurable

_Kind = TypeVar("_Kind", bound=Measurable)


def aligned(runs: Sequence[_Kind]) -> list[_Kind]:
    """Puts all runs in the order of sample names.

    Raises:
        InputError: the runs are not of the same samples with the same labels and groups, a sample
            occurs twice, or there is none.
    """
    ordered = [_sorted_by_sample(run) for run in runs]
    reference = ordered[0]
    for other in ordered[1:]:
        if type(other) is not type(reference):
            raise InputError("Classes and instances were predicted; these cannot be compared.")
        if not np.array_equal(reference.sample, other.sample):
            only = np.setxor1d(reference.sample, other.sample)
            counts = f"{len(reference.sample)} and {len(other.sample)}"
            raise InputError(
                f"The predictions are not of the same samples ({counts}; {str(only[0])!r} is in "
                "one only), so they cannot be compared; evaluate both encoders on the same split."
            )
        for what in ("label", "group"):
            differs = _facts(reference, what) != _facts(other, what)
            if differs.any():
                first = np.argmax(differs.reshape(len(differs), -1).any(1))
                sample = str(reference.sample[first])
                raise InputError(
                    f"Sample {sample!r} has another {what} in the other predictions, so they "
                    "cannot be compared; evaluate both encoders on the same data."
                )
    return ordered


def _facts(run: Measurable, what: str) -> npt.NDArray[Any]:
    """What all runs must agree on; of instances the truth's are counted instead of labels."""
    if what == "label" and isinstance(run, InstanceCounts):
        tp, _, fn, _ = np.moveaxis(run.matched_of_type, -1, 0)
        return np.concatenate([run.areas[:, :1], tp + fn], axis=1)
    return getattr(run, what)


def _sorted_by_sample(run: _Kind) -> _Kind:
    samples = run.sample
    if len(samples) == 0:
        raise InputError("There are no predictions to measure; the test split is empty.")
    order = np.argsort(samples, kind="stable")
    twice = np.flatnonzero(samples[order][1:] == samples[order][:-1])
    if len(twice):
        sample = str(samples[order][twice[0]])
        raise InputError(f"Sample {sample!r} was predicted twice; sample names must be unique.")
    arrays = [each.name for each in fields(run) if isinstance(getattr(run, each.name), np.ndarray)]
    return replace(run, **{name: getattr(run, name)[order] for name in arrays})
