"""The order of the tiles: a pure function of the seed and the position.

A *position* counts the tiles of a run from its start, over all epochs. Which tile stands there
depends on the seed and the position alone, never on where the run was resumed.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eosin.errors import UsageError

Integers = npt.NDArray[np.int64]


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
