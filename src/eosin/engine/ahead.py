"""Batches that threads make ahead of the training, and the endless row that they are taken from."""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from eosin.engine.sharing import share
from eosin.engine.trainable import Batch
from eosin.provenance import available_cores

_BATCHES_AHEAD = 3
_MOST_WORKERS = 8
_Unfinished = TypeVar("_Unfinished")


class Row:
    """An endless row of shuffled epochs, of which each update takes the next `batch_size`.

    What stands at a place depends on the seed and the place alone, never on the number of
    processes or on where training was resumed. For one thread.

    Args:
        count: members of an epoch.
        seed: of the order; any number of whole numbers.
    """

    def __init__(self, count: int, *seed: int) -> None:
        self._count, self._seed = count, seed
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def share(self, update: int, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Gives the places of this process's share of an update, and who stands there."""
        first = update * batch_size
        places = share(np.arange(first, first + batch_size))
        return places, np.array([self._at(place) for place in places.tolist()], dtype=np.int64)

    def _at(self, place: int) -> int:
        epoch, position = divmod(place, self._count)
        if self._epoch[0] != epoch:
            rng = np.random.default_rng((*self._seed, epoch))
            self._epoch = (epoch, rng.permutation(self._count))
        return int(self._epoch[1][position])


def batches_ahead(
    begin: Callable[[int, ThreadPoolExecutor], _Unfinished],
    finish: Callable[[_Unfinished], Batch],
    updates: range,
) -> Generator[Batch]:
    """Yields the batch of each update, three of which are always being made; closing ends it.

    Args:
        begin: hands the work on the batch of an update to threads.
        finish: waits for that work.
        updates: which.
    """
    ahead: deque[_Unfinished] = deque()
    workers = min(available_cores(), _MOST_WORKERS)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="eosin-batches")
    try:
        for update in updates:
            ahead.append(begin(update, pool))
            if len(ahead) == _BATCHES_AHEAD:
                yield finish(ahead.popleft())
        while ahead:
            yield finish(ahead.popleft())
    finally:
        pool.shutdown(cancel_futures=True)
