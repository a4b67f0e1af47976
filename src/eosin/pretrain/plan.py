"""The plan of a run: how long it is, at which learning rate, in how much time and memory."""

import math
import resource
import sys
from datetime import timedelta

import torch

from eosin.encoders import Encoder
from eosin.engine import distributed
from eosin.engine.precision import resolve
from eosin.errors import InputError, UsageError
from eosin.methods._base import Plan
from eosin.pretrain.config import Config
from eosin.provenance import plain


def make_plan(config: Config, tiles: int) -> Plan:
    """Divides a run into updates, and an update into processes and micro-batches.

    Args:
        config: of the run.
        tiles: how many there are.

    Raises:
        InputError: there are fewer than an update takes.
        UsageError: an update cannot be divided evenly.
    """
    if tiles < config.batch_size:
        raise InputError(
            f"--data holds {tiles:,} tiles, fewer than the {config.batch_size} of one update. "
            f"Give --batch-size {max(tiles // 2, 2)} or less, or more tiles."
        )
    share, rest = divmod(config.batch_size, distributed.world_size())
    if rest:
        raise UsageError(
            f"--batch-size {config.batch_size} must be a multiple of the "
            f"{distributed.world_size()} processes."
        )
    micro = config.micro_batch_size or share
    if share % micro:
        raise UsageError(
            f"--micro-batch-size {micro} must divide the {share} tiles that each process has of "
            f"an update."
        )
    seen = config.tiles_seen or config.epochs * tiles
    return Plan(
        batch_size=config.batch_size,
        micro_batches=share // micro,
        updates=max(math.ceil(seen / config.batch_size), 1),
        updates_per_epoch=tiles // config.batch_size,
    )


def describe(
    config: Config, plan: Plan, tiles: int, encoder: Encoder, device: torch.device
) -> list[str]:
    """Says in lines what a run will do, with the scaling of its learning rate."""
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    seen = plan.updates * plan.batch_size
    parts = [f"{plan.updates:,} updates of {plan.batch_size:,} tiles"]
    if distributed.world_size() > 1:
        parts.append(f"in {distributed.world_size()} processes")
    if plan.micro_batches > 1:
        parts.append(f"in {plan.micro_batches} micro-batches each")
    return [
        f"{config.method_name} on {encoder.architecture} ({parameters / 1e6:.1f} M parameters), "
        f"{resolve(config.precision, device)} on {device}",
        f"{' '.join(parts)} = {seen:,} tiles seen, each of {tiles:,} about "
        f"{seen / tiles:,.1f} times",
        *_learning_rates(config, plan),
        *[f"warning: {each}" for each in _advice(config, plan)],
        f"run folder: {config.out}",
    ]


def _learning_rates(config: Config, plan: Plan) -> list[str]:
    """The method's own account of how its learning rates follow from the batch, or the rule."""
    own = getattr(config.method_module, "lr_notes", None)
    if own is not None:
        return [f"learning rate: {note}" for note in own(config.method, plan)]
    return [
        f"learning rate: {value:g} x {plan.batch_size}/256 = {value * plan.batch_size / 256:.4g}"
        for name, value in plain(config.method).items()
        if name == "lr_per_256"
    ]


def _advice(config: Config, plan: Plan) -> list[str]:
    """What the method has to say against its settings, given the plan."""
    own = getattr(config.method_module, "advice", None)
    return [] if own is None else own(config.method, plan)


def describe_warm_up(
    plan: Plan, update: int, seconds_per_update: float, device: torch.device
) -> str:
    """Says how long a run will take, from its first updates, and how much memory it needs.

    Args:
        plan: of the run.
        update: how many updates are done.
        seconds_per_update: as measured, with the wait for data.
        device: of this process.
    """
    left = timedelta(seconds=round((plan.updates - update) * seconds_per_update))
    rate = plan.batch_size / seconds_per_update
    return (
        f"measured: {rate:,.1f} tiles/s, {seconds_per_update:.2f} s an update, so about {left} "
        f"for the {plan.updates - update:,} updates left; {_memory(device)}"
    )


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 1e9
        total = torch.cuda.get_device_properties(device).total_memory / 1e9
        return f"memory of the GPU {peak:.1f} of {total:.1f} GB"
    unit = 1 if sys.platform == "darwin" else 1024  # what Linux counts in is kilobytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
    return f"memory of the process {peak:.1f} GB"
