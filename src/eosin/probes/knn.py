"""Nearest neighbours by cosine, exact, and their vote."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from eosin.errors import InputError
from eosin.probes._base import Labels, Matrix
from eosin.probes._search import count_near, exact_cosines, keep_best, keep_near
from eosin.provenance import available_cores

Vector = NDArray[np.float64]

# Cosines of so many queries and keys are computed at once: the caches hold them and both.
_QUERY_ROWS, _KEY_ROWS = 512, 512
# Keys that are kept beyond those asked for, until their cosines are known exactly.
_SPARE = 8
# Below every cosine; compiled code must not see an infinity.
_WORST = -2.0
# Leading dimensions hold all but this share of the squared lengths; keys that they do not rule out
# are looked at one by one if they are fewer than the other share.
_SHARE_LEFT, _SHARE_WORTH_TURNING = 0.05, 0.03
_MOST_TO_TURN_BY, _ROWS_TO_TURN = 8192, 4096
_PAIRS_WORTH_TURNING = 2**26


@dataclass(frozen=True, kw_only=True, eq=False)
class KnnProbe:
    """Labelled embeddings that classify others by their nearest neighbours among them.

    Attributes:
        features: embeddings [N, D].
        labels: their classes [N].
        n_classes: columns of what the probe predicts.
        k: neighbours that vote; all of them where there are fewer.
        temperature: a neighbour's vote has the weight exp(cosine / temperature).
    """

    features: Matrix
    labels: Labels
    n_classes: int
    k: int
    temperature: float

    def predict(self, features: Matrix) -> Matrix:
        """Gives each class's share of the vote [M, classes] for embeddings [M, D]."""
        cosines, neighbours = find_neighbours(features, self.features, self.k)
        return vote(cosines, self.labels[neighbours], self.n_classes, self.temperature)


def find_neighbours(queries: Matrix, keys: Matrix, k: int) -> tuple[Matrix, Labels]:
    """Finds the `k` keys with the highest cosine for each query, without shortcuts.

    Cosines are those of float64, rounded to float32: a search in float32 keeps a few more keys than
    are asked for, whose cosines are then computed again; where a key that was not kept could still
    be among the best, the query is searched in float64. Memory does not grow with the number of
    queries. Of equal cosines the key with the lower index comes first, also where only one of them
    is among the `k`. A vector of zeros has the cosine 0 with everything.

    Args:
        queries: [M, D].
        keys: [N, D].
        k: how many; N where it is larger.

    Returns:
        Cosines [M, k], falling, and indices of keys [M, k].

    Raises:
        InputError: a value is not finite.
    """
    k = min(k, len(keys))
    cosines: Matrix = np.empty((len(queries), k), dtype=np.float32)
    indices: Labels = np.empty((len(queries), k), dtype=np.int64)
    is_open = np.zeros(len(queries), dtype=bool)
    lengths = _lengths(queries, "queries")

    with threadpool_limits(1):
        search = _Search(keys, k, len(queries))

    def find(rows: slice) -> None:
        found = search.find(queries[rows], lengths[rows])
        cosines[rows], indices[rows], is_open[rows] = found

    def find_slowly(rows: Labels) -> None:
        cosines[rows], indices[rows] = search.find_slowly(queries[rows], lengths[rows])

    with threadpool_limits(1), ThreadPoolExecutor(available_cores()) as pool:
        list(pool.map(find, _slices(len(queries), _QUERY_ROWS)))
        left = np.flatnonzero(is_open)
        list(pool.map(find_slowly, [left[rows] for rows in _slices(len(left), _QUERY_ROWS)]))
    return cosines, indices


def vote(cosines: Matrix, labels: Labels, n_classes: int, temperature: float) -> Matrix:
    """Gives each class's share of its neighbours' votes, weighted by exp(cosine / temperature).

    Wu et al. 2018, arXiv 1805.01978, section 3.4; also the kNN of DINO.

    Args:
        cosines: of the neighbours [M, k], falling.
        labels: of the neighbours [M, k].
        n_classes: C.
        temperature: above 0; the smaller, the more the nearest count.

    Returns:
        Shares [M, C]; each row sums to 1.
    """
    weights = np.exp((cosines - cosines[:, :1]) / np.float32(temperature))
    votes = np.zeros((len(cosines), n_classes), dtype=np.float32)
    np.add.at(votes, (np.arange(len(votes))[:, None], labels), weights)
    return votes / votes.sum(1, keepdims=True)


class _Search:
    """A search for the `k` nearest of the same keys.

    Where it pays, vectors are turned so that the first dimensions hold most of what they have.
    """

    def __init__(self, keys: Matrix, k: int, n_queries: int) -> None:
        self._keys = keys
        self._k = k
        self._lengths = _lengths(keys, "keys")
        self._units: Matrix = keys / self._lengths[:, None].astype(np.float32)
        self._head = keys.shape[1]
        self._basis: Matrix | None = None
        if n_queries * len(keys) >= _PAIRS_WORTH_TURNING and n_queries >= 4 * keys.shape[1]:
            self._turn()

    def _turn(self) -> None:
        """Turns the unit vectors of the keys, unless all dimensions hold about as much."""
        some = self._units[:: max(1, len(self._units) // _MOST_TO_TURN_BY)]
        held, basis = np.linalg.eigh((some.T @ some).astype(np.float64))
        left = 1 - np.cumsum(held[::-1]) / held.sum()
        head = -(-int(np.count_nonzero(left > _SHARE_LEFT) + 1) // 32) * 32
        if head > len(held) // 2:
            return
        self._head = head
        self._basis = np.ascontiguousarray(basis[:, ::-1], dtype=np.float32)
        for rows in _slices(len(self._units), _ROWS_TO_TURN):
            self._units[rows] = self._units[rows] @ self._basis
        self._tails = np.sqrt(np.square(self._units[:, head:]).sum(1))

    def find(self, queries: Matrix, lengths: Vector) -> tuple[Matrix, Labels, NDArray[np.bool_]]:
        """Gives cosines and indices of the nearest [M, k], and where others may be nearer [M]."""
        most = min(self._k + _SPARE, len(self._keys))
        rough, candidates = self._roughly(queries / lengths[:, None].astype(np.float32), most)
        cosines = np.empty_like(rough)
        exact_cosines(queries, self._keys, candidates, lengths, self._lengths, cosines)
        order = np.lexsort((candidates, -cosines), axis=1)[:, : self._k]
        cosines = np.take_along_axis(cosines, order, 1)
        is_open = cosines[:, -1] <= rough[:, -1] + np.float32(self._error)
        return cosines, np.take_along_axis(candidates, order, 1), is_open & (most < len(self._keys))

    def find_slowly(self, queries: Matrix, lengths: Vector) -> tuple[Matrix, Labels]:
        """Gives cosines and indices of the nearest [M, k], by cosines of float64."""
        units = queries / lengths[:, None]
        best, indices = _empty_lists(len(units), self._k)
        for block in _slices(len(self._keys), _KEY_ROWS):
            keys = self._keys[block] / self._lengths[block, None]
            keep_best((units @ keys.T).astype(np.float32), block.start, best, indices)
        return best, indices

    @property
    def _error(self) -> float:
        """By how much a cosine of float32 may be off: units, turns and sums are rounded."""
        return float((16 + 2 * np.sqrt(self._keys.shape[1])) * np.finfo(np.float32).eps)

    def _roughly(self, units: Matrix, most: int) -> tuple[Matrix, Labels]:
        """Finds the best by cosines of float32."""
        best, indices = _empty_lists(len(units), most)
        head, error = self._head, self._error
        query_tails: Matrix = np.empty(0, dtype=np.float32)
        if self._basis is not None:
            units = units @ self._basis
            query_tails = np.sqrt(np.square(units[:, head:]).sum(1))
        for block in _slices(len(self._units), _KEY_ROWS):
            keys = self._units[block]
            cosines = units[:, :head] @ keys[:, :head].T
            if self._basis is not None:
                tails = self._tails[block]
                near = count_near(cosines, query_tails, tails, best[:, -1] - np.float32(error))
                if near <= _SHARE_WORTH_TURNING * cosines.size:
                    keep_near(
                        cosines,
                        block.start,
                        error,
                        head,
                        units,
                        keys,
                        query_tails,
                        tails,
                        best,
                        indices,
                    )
                    continue
                cosines += units[:, head:] @ keys[:, head:].T
            keep_best(cosines, block.start, best, indices)
        return best, indices


def _empty_lists(count: int, k: int) -> tuple[Matrix, Labels]:
    best: Matrix = np.full((count, k), _WORST, dtype=np.float32)
    return best, np.zeros((count, k), dtype=np.int64)


def _lengths(vectors: Matrix, name: str) -> Vector:
    """Gives the lengths of vectors [N], 1 for those of zeros."""
    squares = np.concatenate(
        [np.square(vectors[rows], dtype=np.float64).sum(1) for rows in _slices(len(vectors), 4096)]
    )
    if not np.isfinite(squares).all():
        row = int(np.flatnonzero(~np.isfinite(squares))[0])
        raise InputError(
            f"Row {row} of the {name} has values that are not finite numbers; look for what made "
            "the embeddings so, such as damaged weights or half precision that overflowed."
        )
    return np.where(squares > 0, np.sqrt(squares), 1.0)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)] or [
        slice(0, 0)
    ]
