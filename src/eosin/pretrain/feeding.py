"""Batches of views on their way to the device: moved, normalised and cut into micro-batches."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from eosin.encoders import Encoder
from eosin.engine import distributed
from eosin.engine.trainable import Batch
from eosin.methods._base import Plan
from eosin.pretrain import data
from eosin.pretrain.config import Config
from eosin.pretrain.sources import TileSource
from eosin.provenance import available_cores

_MOST_WORKERS = 8


def start_batches(
    config: Config, sources: Sequence[TileSource], plan: Plan, start: int, device: torch.device
) -> Generator[data.Batch]:
    """Starts making this process's batches from an update on; closing ends the threads."""
    workers = min(available_cores(), _MOST_WORKERS) if config.workers is None else config.workers
    return data.batches(
        sources,
        config.data_weights or None,
        config.views(),
        batch_size=config.batch_size,
        seed=config.seed,
        start_update=start,
        total_updates=plan.updates,
        workers=workers,
        rank=distributed.rank(),
        world_size=distributed.world_size(),
        pinned=device.type == "cuda",
    )


def on_device(
    batch: data.Batch, config: Config, plan: Plan, encoder: Encoder, device: torch.device
) -> Batch:
    """Gives a batch to the training loop."""

    def tiles() -> list[Any]:
        numbers = zip(batch.sources.tolist(), batch.tiles.tolist(), strict=True)
        return [{"data": str(config.data[source]), "tile": tile} for source, tile in numbers]

    return Batch(micro=_MicroBatches(batch.views, plan.micro_batches, encoder, device), tiles=tiles)


@dataclass(eq=False)
class _MicroBatches(Sequence[Sequence[Tensor]]):
    """Moves and normalises a micro-batch when it is asked for, so that one at a time is large."""

    views: list[Tensor]
    parts: int
    encoder: Encoder
    device: torch.device
    _last: dict[int, list[Tensor]] = field(default_factory=dict[int, list[Tensor]])

    def __len__(self) -> int:
        return self.parts

    def __getitem__(self, number: Any) -> Any:
        if number not in range(self.parts):
            raise IndexError(number)  # which ends an iteration
        if number not in self._last:
            self._last = {number: [self._prepare(view, number) for view in self.views]}
        return self._last[number]

    def _prepare(self, view: Tensor, number: int) -> Tensor:
        part = view.chunk(self.parts)[number].to(self.device, non_blocking=True)
        return self.encoder.normalise(part).contiguous(memory_format=torch.channels_last)
