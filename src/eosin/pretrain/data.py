"""Tiles to batches of views, in an order that is a pure function of the seed and the position.

A *position* counts the tiles of a run from its start, over all epochs. Which tile stands there and
how it is augmented depend on the seed and the position alone, never on the number of workers or on
where the run was resumed.
"""

import contextlib
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from eosin.errors import InputError, UsageError
from eosin.images.color import Image
from eosin.images.views import Views
from eosin.pretrain.sources import TileSource, open_source

__all__ = ["Batch", "EpochOrder", "TileSource", "batches", "open_source"]

Integers = npt.NDArray[np.int64]

_TRIES = 10
_MOST_UNREADABLE = 0.01
_FEWEST_READ = 1000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The views of one update's tiles, or of one process's share of them.

    Attributes:
        views: one `uint8[B, 3, S, S]` for each view, channels last in memory.
        positions: place of each tile in the run, int64 [B].
        sources: number of the source of each tile, int64 [B].
        tiles: number of each tile in its source, int64 [B].
        unreadable: one message for each tile that could not be read and was replaced.
    """

    views: list[Tensor]
    positions: Integers
    sources: Integers
    tiles: Integers
    unreadable: tuple[str, ...]


class EpochOrder:
    """Which tile stands at which position of an endless run.

    An epoch has as many positions as there are tiles. Each source has a share of them in proportion
    to its weight, whole by largest remainders, and fills it from an endless stream of its own
    permutations; the epoch is then shuffled. With the default weights, the sizes, every epoch holds
    every tile once.

    Args:
        sizes: tiles of each source.
        weights: relative frequency of each source; its size if `None`.
        seed: of all shuffling.

    Raises:
        UsageError: a negative seed, weights that do not fit the sources, or weights that leave one
            of them without any tile.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None, seed: int) -> None:
        if seed < 0:
            raise UsageError(f"--seed is {seed}; it must be 0 or more.")
        self._sizes = np.array(sizes, dtype=np.int64)
        self._ends = np.cumsum(self._sizes)
        self._counts = _share_epoch(sizes, sizes if weights is None else weights)
        self._seed = seed
        self._kept: tuple[int, Integers] | None = None

    def __len__(self) -> int:
        return int(self._ends[-1])

    def at(self, position: int) -> tuple[int, int]:
        """Gives the source's number and the tile's number in it."""
        sources, tiles = self.slice(position, position + 1)
        return int(sources[0]), int(tiles[0])

    def slice(self, start: int, stop: int) -> tuple[Integers, Integers]:
        """Gives the sources' and the tiles' numbers at positions `start` to `stop` - 1."""
        length = len(self)
        parts: list[Integers] = []
        for epoch in range(start // length, -(-stop // length)):
            first = epoch * length
            parts.append(self._epoch(epoch)[max(start - first, 0) : stop - first])
        tiles = np.concatenate(parts)
        sources = np.searchsorted(self._ends, tiles, side="right")
        return sources, tiles - (self._ends - self._sizes)[sources]

    def _epoch(self, epoch: int) -> Integers:
        """Tiles of an epoch in order, numbered over all sources; the last one asked for is kept."""
        if self._kept is None or self._kept[0] != epoch:
            streams = [self._stream(source, epoch) for source in range(len(self._sizes))]
            tiles = np.concatenate(streams)
            np.random.default_rng((self._seed, epoch, 1)).shuffle(tiles)
            self._kept = (epoch, tiles)
        return self._kept[1]

    def _stream(self, source: int, epoch: int) -> Integers:
        size, count = int(self._sizes[source]), int(self._counts[source])
        start, stop = epoch * count, (epoch + 1) * count
        passes = range(start // size, -(-stop // size))
        rngs = [np.random.default_rng((self._seed, number, 2 + source)) for number in passes]
        stream = np.concatenate([rng.permutation(size) for rng in rngs])
        first = start - passes.start * size
        return stream[first : first + count] + (self._ends - self._sizes)[source]


def _share_epoch(sizes: Sequence[int], weights: Sequence[float]) -> Integers:
    """Divides sum(sizes) positions in proportion to the weights, by largest remainders."""
    if len(weights) != len(sizes):
        raise UsageError(f"--data-weights has {len(weights)} values, --data {len(sizes)}.")
    if not all(0 < weight < float("inf") for weight in weights):
        raise UsageError(f"--data-weights {' '.join(map(str, weights))}: each must be above 0.")
    exact = np.array(weights, dtype=np.float64) / sum(weights) * sum(sizes)
    counts = np.floor(exact).astype(np.int64)
    most_left = np.argsort(counts - exact, kind="stable")
    counts[most_left[: sum(sizes) - counts.sum()]] += 1
    if not counts.all():
        source = int(np.argmin(counts))
        raise UsageError(
            f"--data-weights {weights[source]} for source {source + 1} of --data is less than one "
            f"of the {sum(sizes):,} tiles of an epoch; raise it, or leave that source out."
        )
    return counts


def batches(
    sources: Sequence[TileSource],
    weights: Sequence[float] | None,
    views: Views,
    batch_size: int,
    seed: int,
    start_update: int,
    total_updates: int,
    workers: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Gives the batches of updates `start_update` to `total_updates` - 1.

    Update u has positions u * `batch_size` to (u + 1) * `batch_size` - 1, of which each process
    gets its contiguous share. No random state outside is used or changed. A tile that cannot be
    read is replaced by another one of its source, and the first such tile is logged.

    Args:
        sources: where the tiles come from.
        weights: relative frequency of each source; its size if `None`.
        views: the augmented crops to make of each tile.
        batch_size: tiles of one update over all processes.
        seed: of the order and of the views.
        start_update: first update, counted from 0.
        total_updates: updates of the whole run.
        workers: processes that read and augment; 0 does it in this one. The result is the same.
        rank: number of this process in training.
        world_size: number of processes in training.

    Raises:
        InputError: fewer tiles than `batch_size`; later, when more than 1 % of the tiles cannot be
            read, or when a worker dies.
        UsageError: a batch that the processes cannot share evenly, or senseless weights.
    """
    order = EpochOrder([len(source) for source in sources], weights, seed)
    if len(order) < batch_size:
        raise InputError(
            f"--batch-size {batch_size} is more than the {len(order):,} tiles of --data; choose "
            f"--batch-size {len(order)} or less, or give more tiles."
        )
    if batch_size < 1 or batch_size % world_size:
        raise UsageError(
            f"--batch-size {batch_size} must be a positive multiple of the {world_size} processes."
        )
    share = batch_size // world_size
    first = start_update * batch_size + rank * share
    loader: DataLoader[Batch | InputError] = DataLoader(
        _BatchMaker(sources, views, seed),
        batch_size=None,
        sampler=_shares(order, range(first, total_updates * batch_size, batch_size), share),
        num_workers=workers,
        worker_init_fn=_start_worker,
        # Without a generator of its own the loader would draw from torch's global one.
        generator=torch.Generator().manual_seed(seed),
    )
    return _watch(loader)


_Share = tuple[Integers, Integers, Integers]


def _shares(order: EpochOrder, starts: range, share: int) -> Iterator[_Share]:
    """Positions, sources and tiles of each batch; only this process holds the shuffled epoch."""
    for start in starts:
        yield np.arange(start, start + share), *order.slice(start, start + share)


class _BatchMaker(Dataset["Batch | InputError"]):
    def __init__(self, sources: Sequence[TileSource], views: Views, seed: int) -> None:
        self._sources, self._views, self._seed = sources, views, seed

    def __getitem__(self, share: _Share) -> "Batch | InputError":
        # An error raised in a worker would arrive as a traceback, so it travels as a value.
        try:
            return self._make(*share)
        except InputError as error:
            return error

    def _make(self, positions: Integers, sources: Integers, tiles: Integers) -> Batch:
        made = [np.empty((len(tiles), side, side, 3), np.uint8) for side in self._views.sizes]
        unreadable: list[str] = []
        for row, position in enumerate(positions):
            rng = np.random.default_rng((self._seed, int(position)))
            source = self._sources[sources[row]]
            tiles[row], image = _read(source, int(tiles[row]), rng, unreadable)
            for into, view in zip(made, self._views.make(image, rng), strict=True):
                into[row] = view
        return Batch(
            views=[torch.from_numpy(each).permute(0, 3, 1, 2) for each in made],
            positions=positions,
            sources=sources,
            tiles=tiles,
            unreadable=tuple(unreadable),
        )


def _read(
    source: TileSource, tile: int, rng: np.random.Generator, unreadable: list[str]
) -> tuple[int, Image]:
    """Reads a tile, or the first readable one of those that `rng` draws in its place."""
    for _ in range(_TRIES):
        try:
            return tile, source.read(tile)
        except InputError as error:
            unreadable.append(str(error))
            tile = int(rng.integers(len(source)))
    raise InputError(f"{_TRIES} tiles drawn in a row cannot be read; the last: {unreadable[-1]}")


@contextlib.contextmanager
def explained_worker_deaths() -> Generator[None]:
    """Turns PyTorch's error about a killed worker into one that says what to do.

    It comes by a signal, so it may surface anywhere in the loop that uses the batches.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            "A process that reads tiles was killed, most often for lack of memory; choose "
            f"fewer --workers and resume. ({str(error).splitlines()[0]})"
        ) from error


def _watch(loader: "DataLoader[Batch | InputError]") -> Iterator[Batch]:
    """Passes batches on, and stops when a worker dies or too many tiles cannot be read."""
    read = replaced = 0
    arriving = iter(loader)
    while True:
        with explained_worker_deaths():
            batch = next(arriving, None)
        if batch is None:
            return
        if isinstance(batch, InputError):
            raise batch
        if batch.unreadable and not replaced:
            _log.warning("%s It and any more such tiles are replaced.", batch.unreadable[0])
        read += len(batch.tiles)
        replaced += len(batch.unreadable)
        if replaced > _MOST_UNREADABLE * max(read, _FEWEST_READ):
            raise InputError(
                f"{replaced:,} of {read:,} tiles cannot be read, more than {_MOST_UNREADABLE:.0%}; "
                f"mend or remove them. The last: {batch.unreadable[-1]}"
            )
        yield batch


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Ctrl-C, and what ends a job on a cluster, reach a whole process group; only the main process
    # should get them: it saves, and ends the others.
    os.setpgrp()
