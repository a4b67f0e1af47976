"""The compiled part of the search for nearest neighbours."""

import numpy as np
from numpy.typing import NDArray

from eosin.images.compiling import compiled

_STRIDE = 32


@compiled
def _insert(
    best: NDArray[np.float32], indices: NDArray[np.int64], value: np.float32, index: int
) -> None:
    """Puts a key behind those that are as good or better, and drops the worst."""
    place = best.shape[0] - 1
    while place > 0 and best[place - 1] < value:
        best[place] = best[place - 1]
        indices[place] = indices[place - 1]
        place -= 1
    best[place] = value
    indices[place] = index


@compiled
def keep_best(
    similarities: NDArray[np.float32],
    first: int,
    best: NDArray[np.float32],
    indices: NDArray[np.int64],
) -> None:
    """Puts the best of further keys into the lists of the best so far.

    A key must be better than the last of a list to enter it, and stands behind its equals: of equal
    ones the first stays, if keys come in order.

    Args:
        similarities: of each query and each further key [M, n].
        first: number of the first of these keys.
        best: the best similarities [M, k], falling; below -1 where there are none yet.
        indices: numbers of their keys [M, k].
    """
    count, k = similarities.shape[1], best.shape[1]
    for row in range(similarities.shape[0]):
        values = similarities[row]
        worst = best[row, k - 1]
        for start in range(0, count, _STRIDE):
            end = min(start + _STRIDE, count)
            greatest = values[start]
            for column in range(start, end):
                greatest = max(greatest, values[column])
            if greatest <= worst:
                continue
            for column in range(start, end):
                value = values[column]
                if value <= worst:
                    continue
                _insert(best[row], indices[row], value, first + column)
                worst = best[row, k - 1]


@compiled
def count_near(
    similarities: NDArray[np.float32],
    query_tails: NDArray[np.float32],
    key_tails: NDArray[np.float32],
    worst: NDArray[np.float32],
) -> int:
    """Counts the keys that could be better than the worst of a query's list.

    Args:
        similarities: by the leading dimensions alone [M, n].
        query_tails: length of what the other dimensions hold [M].
        key_tails: the same of the keys [n].
        worst: [M].
    """
    near = 0
    for row in range(similarities.shape[0]):
        values, tail, limit = similarities[row], query_tails[row], worst[row]
        for column in range(values.shape[0]):
            near += values[column] + tail * key_tails[column] > limit
    return near


@compiled
def keep_near(
    similarities: NDArray[np.float32],
    first: int,
    slack: float,
    head: int,
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    query_tails: NDArray[np.float32],
    key_tails: NDArray[np.float32],
    best: NDArray[np.float32],
    indices: NDArray[np.int64],
) -> None:
    """Does what `keep_best` does, where similarities are by the first `head` dimensions alone.

    The others are added for keys that could be better than the worst of a list: for most, the
    lengths of what is left tell that they cannot (Cauchy-Schwarz).

    Args:
        similarities: [M, n].
        first: number of the first of these keys.
        slack: by how much rounding may put a similarity too low.
        head: dimensions that are in it.
        queries: [M, D].
        keys: [n, D].
        query_tails: as of `count_near`.
        key_tails: as of `count_near`.
        best: as of `keep_best`.
        indices: as of `keep_best`.
    """
    count, k = similarities.shape[1], best.shape[1]
    for row in range(similarities.shape[0]):
        values, tail, query = similarities[row], query_tails[row], queries[row]
        worst = best[row, k - 1]
        for start in range(0, count, _STRIDE):
            end = min(start + _STRIDE, count)
            greatest = values[start] + tail * key_tails[start]
            for column in range(start, end):
                greatest = max(greatest, values[column] + tail * key_tails[column])
            if greatest + slack <= worst:
                continue
            for column in range(start, end):
                if values[column] + tail * key_tails[column] + slack <= worst:
                    continue
                key = keys[column]
                rest = np.float32(0)
                for dimension in range(head, query.shape[0]):
                    rest += query[dimension] * key[dimension]
                value = values[column] + rest
                if value > worst:
                    _insert(best[row], indices[row], value, first + column)
                    worst = best[row, k - 1]


@compiled
def exact_cosines(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    indices: NDArray[np.int64],
    query_lengths: NDArray[np.float64],
    key_lengths: NDArray[np.float64],
    cosines: NDArray[np.float32],
) -> None:
    """Computes the cosines of each query with its candidates in float64, rounded once.

    Args:
        queries: [M, D].
        keys: [N, D].
        indices: of each query's candidates [M, k].
        query_lengths: [M], above 0.
        key_lengths: [N], above 0.
        cosines: takes the result [M, k].
    """
    for row in range(indices.shape[0]):
        query = queries[row]
        for place in range(indices.shape[1]):
            key = keys[indices[row, place]]
            total = 0.0
            for dimension in range(query.shape[0]):
                total += np.float64(query[dimension]) * np.float64(key[dimension])
            length = query_lengths[row] * key_lengths[indices[row, place]]
            cosines[row, place] = np.float32(total / length)
