"""The training loop: one for every kind of training, and the only place that orders its steps."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from eosin.engine.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    set_rng_state,
)
from eosin.engine.log import TrainingLog
from eosin.engine.precision import Precision, autocast
from eosin.engine.schedules import Schedule
from eosin.errors import InputError, Interrupted
from eosin.progress import Bar


class LossLike(Protocol):
    """What a forward pass gives: the scalar to minimise and what to log beside it."""

    @property
    def total(self) -> Tensor: ...  # noqa: D102
    @property
    def parts(self) -> Mapping[str, Tensor]: ...  # noqa: D102


class Trainable(Protocol):
    """What the loop asks of a module; `eosin.methods._base.Method` explains each."""

    def __call__(self, batch: Sequence[Tensor], update: int) -> LossLike: ...  # noqa: D102
    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]: ...  # noqa: D102
    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None: ...  # noqa: D102
    def on_gradients(self, update: int) -> None: ...  # noqa: D102
    def after_update(self, update: int) -> None: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...  # noqa: D102
    def train(self, mode: bool = True) -> Any: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train, and what to write meanwhile."""

    updates: int
    """Optimizer steps of the whole run."""
    tiles_per_update: int
    """For the rate that is shown."""
    precision: Precision = "auto"
    """Number format of the forward pass."""
    checkpoint_every: int = 500
    """Updates between checkpoints."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept."""
    log_every: int = 10
    """Updates between lines of the log."""
    title: str = "training"
    """What the progress bar says."""


Batches = Callable[[int], Iterable[Sequence[Tensor]]]
"""Gives the batches of a run from an update on, on the device and normalised."""

Monitor = Callable[[int, float], Mapping[str, float]]
"""Looks at the model after an update, given the loss, and leaves no trace in any generator."""


def train(
    module: Trainable,
    optimizer: Optimizer,
    batches: Batches,
    folder: Path,
    config: LoopConfig,
    *,
    device: torch.device,
    monitor: Monitor | None = None,
) -> None:
    """Trains to the last update, from the newest checkpoint in `folder` where there is one.

    A run that is killed at any update and started again ends with the same weights, bit by bit, as
    one that is not (on the same hardware with the same number of threads).

    Args:
        module: what is trained.
        optimizer: over groups that have the names that `module.schedules()` gives.
        batches: where data comes from.
        folder: where `log.jsonl` and `checkpoints/` go.
        config: how long, and what to write.
        device: where `module` lies.
        monitor: called whenever a line is logged; what it returns joins the line.

    Raises:
        InputError: the loss is not finite; the message names the last good checkpoint.
        Interrupted: the process was asked to stop; a checkpoint was written.
    """
    start = _resume(module, optimizer, folder / "checkpoints")
    log = TrainingLog(folder / "log.jsonl", keep_through=start)
    window = _Window()
    module.train()
    with (
        contextlib.closing(log),
        _stop_request() as stop_requested,
        Bar(config.title, config.updates, "updates", done=start) as bar,
    ):
        iterator = iter(batches(start)) if start < config.updates else iter(())
        for update in range(start, config.updates):
            batch = window.wait_for(iterator)
            loss = _update(module, optimizer, batch, update, config, device)
            if loss is None:
                raise _not_finite(folder, update)
            window.add(loss)
            done = update + 1
            bar.advance(note=window.note())
            if done % config.log_every == 0 or done == config.updates:
                line = {
                    "update": done,
                    **window.summary(config.tiles_per_update),
                    **_settings(optimizer),
                }
                line |= monitor(done, window.last_loss) if monitor is not None else {}
                log.append(line)
                window = _Window()
            if done % config.checkpoint_every == 0 or done == config.updates or stop_requested():
                if not _is_finite(module):
                    raise _not_finite(folder, update)
                _save(module, optimizer, folder / "checkpoints", done, config)
            if stop_requested() and done < config.updates:
                raise Interrupted(
                    f"Stopped after update {done:,} of {config.updates:,}; "
                    "the same command resumes."
                )


def _update(
    module: Trainable,
    optimizer: Optimizer,
    batch: Sequence[Tensor],
    update: int,
    config: LoopConfig,
    device: torch.device,
) -> LossLike | None:
    """One update, in the order of the methods' papers; None instead if the loss is not finite."""
    schedules = module.schedules()
    for group in optimizer.param_groups:
        for setting, schedule in schedules[group["name"]].items():
            group[setting] = schedule(update)
    module.before_forward([batch], update)
    with autocast(config.precision, device):
        loss = module(batch, update)
    if not math.isfinite(float(loss.total.detach())):
        return None
    optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    module.on_gradients(update)
    optimizer.step()
    module.after_update(update)
    return loss


def _resume(module: Trainable, optimizer: Optimizer, folder: Path) -> int:
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return 0
    state = load_checkpoint(checkpoints[-1])
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    set_rng_state(state["rng"])
    return int(state["update"])


def _save(
    module: Trainable, optimizer: Optimizer, folder: Path, update: int, config: LoopConfig
) -> None:
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict()}
    save_checkpoint(folder, update, state, config.keep_checkpoints)


def _is_finite(module: Trainable) -> bool:
    """Whether all weights are numbers, so that a checkpoint of them is a good one."""
    values = module.state_dict().values()
    return all(bool(v.isfinite().all()) for v in values if v.is_floating_point())


def _settings(optimizer: Optimizer) -> dict[str, float]:
    """The scheduled settings of each group, for the log."""
    return {
        f"{setting}/{group['name']}": group[setting]
        for group in optimizer.param_groups
        for setting in ("lr", "weight_decay")
    }


def _not_finite(folder: Path, update: int) -> InputError:
    checkpoints = list_checkpoints(folder / "checkpoints")
    last_good = f"The last good checkpoint is {checkpoints[-1]}." if checkpoints else ""
    return InputError(
        f"The loss or the weights are not finite at update {update + 1:,}. Lower the learning "
        f"rate, lengthen the warm-up, or train with --precision fp32. {last_good}"
    )


class _Window:
    """What happened since the last line of the log."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._waited = 0.0
        self._losses: list[float] = []
        self._parts: dict[str, float] = {}

    def wait_for(self, iterator: Iterator[Sequence[Tensor]]) -> Sequence[Tensor]:
        started = time.perf_counter()
        batch = next(iterator)
        self._waited += time.perf_counter() - started
        return batch

    def add(self, loss: LossLike) -> None:
        self._losses.append(float(loss.total.detach()))
        self._parts = {name: float(value) for name, value in loss.parts.items()}

    @property
    def last_loss(self) -> float:
        return self._losses[-1]

    def _data_wait(self) -> float:
        return self._waited / max(time.perf_counter() - self._started, 1e-9)

    def note(self) -> str:
        return f"loss {self.last_loss:.4g}, waiting for data {self._data_wait():.0%}"

    def summary(self, tiles_per_update: int) -> dict[str, float]:
        seconds = time.perf_counter() - self._started
        return {
            "loss": sum(self._losses) / len(self._losses),
            **self._parts,
            "tiles_per_s": len(self._losses) * tiles_per_update / seconds,
            "data_wait": self._data_wait(),
        }


@contextlib.contextmanager
def _stop_request() -> Generator[Callable[[], bool]]:
    """Turns SIGTERM and SIGINT into a request to stop after the current update."""
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    previous = {
        number: signal.signal(number, lambda *_: requested.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield requested.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
