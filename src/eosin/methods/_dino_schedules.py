"""The schedules of DINO: the official script's, at each update, and VISSL's, once an epoch.

facebookresearch/dino 7c446df and vissl 09270ed, configs/config/pretrain/dino/
dino_16gpus_deits16.yaml, whose schedulers are those of fvcore 0c9e9e1, param_scheduler.py.
"""

import math
from typing import Literal

from eosin.engine.schedules import Schedule, cosine, linear_then_constant, warmup_cosine
from eosin.methods._base import Plan

Kind = Literal["official", "vissl"]

_MARGIN = 1e-6  # with which fvcore's CompositeParamScheduler compares shares of the run


def learning_rate(
    kind: Kind, *, start: float, peak: float, end: float, warmup: float, plan: Plan
) -> Schedule:
    """A straight rise and a cosine.

    official: at each update; the rise ends at the peak, and the cosine takes the rest of the run
    (main_dino.py lines 238-243, utils.py lines 187-198). vissl: once an epoch; the rise is
    `rescaled` to its share of the run and stops short of the peak, and the cosine is `fixed`, which
    means that it began with the run and has left the peak when the rise ends (lines 97-108).

    Args:
        kind: whose schedule.
        start: the value at update 0.
        peak: what the rise leads to.
        end: what the cosine tends to at the end of the run.
        warmup: share of the run that rises.
        plan: how long the run is.
    """
    updates = plan.updates
    if kind == "official":
        return warmup_cosine(
            peak, end, updates, round(warmup * updates), start=start, through_peak=True
        )
    after = cosine(peak, end, updates)

    def rise_into_cosine(update: int) -> float:
        done = update / updates
        if done + _MARGIN > warmup:
            return after(update)
        return start + (peak - start) * done / warmup

    return _once_an_epoch(rise_into_cosine, plan)


def weight_decay(kind: Kind, start: float, end: float, plan: Plan) -> Schedule:
    """A cosine over the run: at each update (lines 244-248), or by epoch (VISSL lines 109-113)."""
    at_each_update = cosine(start, end, plan.updates)
    return at_each_update if kind == "official" else _once_an_epoch(at_each_update, plan)


def teacher_temp(
    start: float, end: float, *, warmup: float, per: Literal["epoch", "update"], plan: Plan
) -> Schedule:
    """The teacher's temperature: a line from `start` to `end`, both included, and then `end`.

    Args:
        start: the temperature at update 0.
        end: the temperature when the warm-up is over.
        warmup: share of the run that the line takes.
        per: `epoch` for one value in an epoch, as main_dino.py lines 374-378 and 388; `update` for
            one in an update, as VISSL's dino_hooks.py lines 46-61.
        plan: how long the run is.
    """
    if per == "update":
        return linear_then_constant(start, end, round(warmup * plan.updates))
    epochs = math.ceil(plan.updates / plan.updates_per_epoch)
    by_epoch = linear_then_constant(start, end, round(warmup * epochs))
    return lambda update: by_epoch(update // plan.updates_per_epoch)


def _once_an_epoch(schedule: Schedule, plan: Plan) -> Schedule:
    """What a schedule gives at the first update of an epoch, through that epoch."""
    return lambda update: schedule(update - update % plan.updates_per_epoch)
