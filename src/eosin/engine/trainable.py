"""What the training loop asks of a model, of its data, and of whoever looks on."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from eosin.engine.schedules import Schedule


class LossLike(Protocol):
    """What a forward pass gives: the scalar to minimise and what to log beside it."""

    @property
    def total(self) -> Tensor: ...  # noqa: D102
    @property
    def parts(self) -> Mapping[str, Tensor]: ...  # noqa: D102


class Trainable(Protocol):
    """What the loop calls; `eosin.methods._base.Method` explains each. It is an `nn.Module`."""

    def __call__(self, views: Sequence[Tensor], update: int, micro: int = 0) -> LossLike: ...  # noqa: D102
    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]: ...  # noqa: D102
    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None: ...  # noqa: D102
    def on_gradients(self, update: int) -> None: ...  # noqa: D102
    def after_update(self, update: int) -> None: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...  # noqa: D102


def _no_tiles() -> list[Any]:
    return []


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One process's share of an update."""

    micro: Sequence[Sequence[Tensor]]
    """The views of each micro-batch, on the device and normalised; made when they are asked for."""
    tiles: Callable[[], list[Any]] = _no_tiles
    """Names the tiles in plain values, for the report of an update that failed."""


Batches = Callable[[int], Iterable[Batch]]
"""Gives the batches of a run from an update on."""


class Observer:
    """Looks on while the main process trains; does nothing unless a method is overridden.

    It must leave no trace in the model or in any generator, and must not call collectives.
    """

    def warmed_up(self, update: int, seconds_per_update: float) -> None:
        """Called once, when the first updates after the start have been timed."""

    def measure(self, update: int, loss: float) -> Mapping[str, float]:
        """Measures the model after an update; what it returns joins the line of the log."""
        return {}

    def logged(self, line: Mapping[str, Any]) -> None:
        """Called with each line of the log, once it is written."""

    def saved(self, update: int, checkpoint: Path) -> None:
        """Called when a checkpoint is written."""
