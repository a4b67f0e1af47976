"""Schedules as pure functions of the update, so that a resumed run needs no state for them."""

import math
from collections.abc import Callable

Schedule = Callable[[int], float]
"""Gives a hyper-parameter at an update, counted from 0."""


def constant(value: float) -> Schedule:
    """The same value at every update."""
    return lambda update: value


def cosine(start: float, end: float, total: int) -> Schedule:
    """From `start` at update 0 towards `end`, which `total` would reach: DINO's `cosine_scheduler`.

    Its last value, at `total - 1`, is a little short of `end`, as in the official code.
    """
    return lambda update: end + 0.5 * (start - end) * (1 + math.cos(math.pi * update / total))


def warmup_cosine(
    peak: float, end: float, total: int, warmup: int, *, start: float = 0.0, through_peak: bool
) -> Schedule:
    """Linear warm-up and then a cosine.

    Args:
        peak: the value at the end of the warm-up.
        end: what the cosine tends to at `total`.
        total: number of updates.
        warmup: how many of them warm up.
        start: the value at update 0.
        through_peak: whether the last update of the warm-up is at `peak` (DINO's `linspace`,
            utils.py lines 187-198) or one step short of it (Barlow Twins' `step / warmup_steps`,
            main.py lines 155-168).
    """
    after = cosine(peak, end, max(total - warmup, 1))
    steps = max(warmup - 1, 1) if through_peak else warmup

    def schedule(update: int) -> float:
        if update < warmup:
            return start + (peak - start) * update / steps
        return after(update - warmup)

    return schedule


def linear_then_constant(start: float, end: float, warmup: int) -> Schedule:
    """From `start` to `end` over `warmup` values, both included, then `end`: numpy's `linspace`."""
    steps = max(warmup - 1, 1)
    return lambda update: start + (end - start) * update / steps if update < warmup else end
