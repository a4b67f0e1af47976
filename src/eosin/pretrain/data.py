"""Tiles to batches of views: read, decoded once and augmented by threads, handed over in order.

What stands at a position of the run, and how it is augmented, depends on the seed and the position
alone (see `eosin.pretrain.order`), never on the number of threads or on where the run was resumed.
"""

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eosin.errors import InputError, UsageError
from eosin.images.color import Image
from eosin.images.opencv_threads import one_opencv_thread
from eosin.images.views import Views
from eosin.pretrain.order import EpochOrder, Integers
from eosin.pretrain.sources import TileSource

_TRIES = 10
_MOST_UNREADABLE = 0.01
_FEWEST_READ = 1000
_TILES_PER_TASK = 4
_BATCHES_AHEAD = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """The views of one update's tiles, or of one process's share of them.

    Attributes:
        views: one `uint8[B, 3, S, S]` for each view, contiguous.
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
    pinned: bool = False,
) -> Generator[Batch]:
    """Gives the batches of updates `start_update` to `total_updates` - 1.

    Update u has positions u * `batch_size` to (u + 1) * `batch_size` - 1, of which each process
    gets its contiguous share. No random state outside is used or changed. A tile that cannot be
    read is replaced by another one of its source; the first such tile is logged, and at the end
    their number. A batch belongs to the caller, who may keep it. Closing the generator ends the
    threads; meanwhile OpenCV, whose setting is one for the process, uses no threads of its own.

    Args:
        sources: where the tiles come from; they must be safe to read from threads.
        weights: relative frequency of each source; its size if `None`.
        views: the augmented crops to make of each tile.
        batch_size: tiles of one update over all processes.
        seed: of the order and of the views.
        start_update: first update, counted from 0.
        total_updates: updates of the whole run.
        workers: threads that read and augment; 0 does it in the caller's. The result is the same.
        rank: number of this process in training.
        world_size: number of processes in training.
        pinned: whether the views lie in page-locked memory, which a GPU copies from meanwhile.

    Raises:
        InputError: fewer tiles than `batch_size`; later, when more than 1 % of the tiles cannot be
            read.
        UsageError: a batch that the processes cannot share evenly, senseless weights, or a number
            of threads below 0.
    """
    if workers < 0:
        raise UsageError(f"--workers is {workers}; it must be 0 or more.")
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
    starts = range(first, total_updates * batch_size, batch_size)
    maker = _BatchMaker(sources, views, seed, pinned)
    unfinished = (maker.start(start, *order.slice(start, start + share)) for start in starts)
    made = _in_threads(maker, unfinished, workers) if workers else map(maker.make, unfinished)
    return _watch(made)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Unfinished:
    """A batch whose tiles are known and whose views are being written."""

    positions: Integers
    sources: Integers
    tiles: Integers
    buffers: list[Tensor]
    """For each group of views of one size, uint8 [V, B, 3, S, S]."""
    arrays: list[Image]
    """The same memory."""


class _BatchMaker:
    """Makes batches row by row; several threads may fill different rows at once."""

    def __init__(
        self, sources: Sequence[TileSource], views: Views, seed: int, pinned: bool
    ) -> None:
        self._sources, self._views, self._seed, self._pinned = sources, views, seed, pinned

    def start(self, position: int, sources: Integers, tiles: Integers) -> _Unfinished:
        """Takes the memory of the batch of the tiles from a position on."""
        buffers: list[Tensor] = []
        for numbers in self._views.groups:
            side = self._views.sizes[numbers[0]]
            shape = (len(numbers), len(tiles), 3, side, side)
            # Fresh each time, since the caller may still hold the last ones. Pinned pages are given
            # again by PyTorch's cache once the GPU has copied from them; other memory is asked for
            # by NumPy, which takes huge pages: with PyTorch's small ones it costs the triple.
            buffers.append(
                torch.empty(shape, dtype=torch.uint8, pin_memory=True)
                if self._pinned
                else torch.from_numpy(np.empty(shape, np.uint8))
            )
        return _Unfinished(
            positions=np.arange(position, position + len(tiles)),
            sources=sources,
            tiles=tiles,
            buffers=buffers,
            arrays=[buffer.numpy() for buffer in buffers],
        )

    def fill(self, batch: _Unfinished, rows: range) -> list[str]:
        """Reads the tiles of some rows and writes their views; tells what could not be read."""
        unreadable: list[str] = []
        for row in rows:
            rng = np.random.default_rng((self._seed, int(batch.positions[row])))
            source = self._sources[batch.sources[row]]
            batch.tiles[row], image = _read(source, int(batch.tiles[row]), rng, unreadable)
            self._views.make_into(image, rng, batch.arrays, row)
        return unreadable

    def finish(self, batch: _Unfinished, unreadable: list[str]) -> Batch:
        """Gives the batch once all its rows are filled."""
        views = dict[int, Tensor]()
        for buffer, numbers in zip(batch.buffers, self._views.groups, strict=True):
            views.update(zip(numbers, buffer, strict=True))
        return Batch(
            views=[views[number] for number in range(len(views))],
            positions=batch.positions,
            sources=batch.sources,
            tiles=batch.tiles,
            unreadable=tuple(unreadable),
        )

    def make(self, batch: _Unfinished) -> Batch:
        """Fills all rows in the calling thread."""
        return self.finish(batch, self.fill(batch, range(len(batch.tiles))))


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


def _in_threads(
    maker: _BatchMaker, unfinished: Iterator[_Unfinished], workers: int
) -> Generator[Batch]:
    """Makes batches ahead, a bounded number of them, and gives them in order."""
    ahead: deque[tuple[_Unfinished, list[Future[list[str]]]]] = deque()

    def take() -> Batch:
        batch, tasks = ahead.popleft()
        return maker.finish(batch, [message for task in tasks for message in task.result()])

    threads = ThreadPoolExecutor(workers, thread_name_prefix="eosin-views")
    with one_opencv_thread():
        try:
            for batch in unfinished:
                count = len(batch.tiles)
                rows = (
                    range(start, min(start + _TILES_PER_TASK, count))
                    for start in range(0, count, _TILES_PER_TASK)
                )
                ahead.append((batch, [threads.submit(maker.fill, batch, each) for each in rows]))
                # Small batches need more of them, or some threads would have nothing to do.
                if len(ahead) > _BATCHES_AHEAD + workers * _TILES_PER_TASK // count:
                    yield take()
            while ahead:
                yield take()
        finally:
            threads.shutdown(cancel_futures=True)


def _watch(made: Iterator[Batch]) -> Generator[Batch]:
    """Passes batches on, and stops when too many tiles cannot be read."""
    read = replaced = 0
    try:
        for batch in made:
            if batch.unreadable and not replaced:
                _log.warning("%s It and any more such tiles are replaced.", batch.unreadable[0])
            read += len(batch.tiles)
            replaced += len(batch.unreadable)
            if replaced > _MOST_UNREADABLE * max(read, _FEWEST_READ):
                raise InputError(
                    f"{replaced:,} of {read:,} tiles cannot be read, more than "
                    f"{_MOST_UNREADABLE:.0%}; mend or remove them. The last: {batch.unreadable[-1]}"
                )
            yield batch
    finally:
        if replaced:
            _log.warning("%s of %s tiles could not be read and were replaced.", replaced, read)
        if isinstance(made, Generator):
            made.close()
