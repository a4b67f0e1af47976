"""Nearest neighbours by cosine, exact, and their vote."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]

_TILE_VALUES = 2**24


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

    The cosines are computed in tiles, so memory does not grow with the number of queries. Of equal
    cosines the key with the lower index comes first, also where only one of them is among the `k`.

    Args:
        queries: [M, D].
        keys: [N, D].
        k: how many; N where it is larger.

    Returns:
        Cosines [M, k], falling, and indices of keys [M, k].
    """
    k = min(k, len(keys))
    units = torch.from_numpy(_to_unit_length(keys)).T
    rows = max(1, _TILE_VALUES // len(keys))
    tiles = [
        _find_in_tile(torch.from_numpy(_to_unit_length(queries[start : start + rows])) @ units, k)
        for start in range(0, len(queries), rows)
    ]
    cosines, indices = zip(*tiles, strict=True)
    return np.concatenate(cosines), np.concatenate(indices)


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


def _to_unit_length(features: Matrix) -> Matrix:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, np.finfo(np.float32).tiny)


def _find_in_tile(cosines: torch.Tensor, k: int) -> tuple[Matrix, Labels]:
    """Finds the best `k` of each row; `topk` alone leaves open which of equals it takes."""
    n_keys = cosines.shape[1]
    found = cosines.topk(min(k + 1, n_keys), dim=1)
    values, indices = found.values.numpy(), found.indices.numpy()
    if k < n_keys:
        for row in np.flatnonzero(values[:, k] == values[:, k - 1]):
            in_order = torch.argsort(cosines[row], descending=True, stable=True)[: k + 1]
            values[row], indices[row] = cosines[row, in_order].numpy(), in_order.numpy()
    order = np.lexsort((indices, -values), axis=1)
    ordered = np.take_along_axis(values, order, 1)[:, :k]
    return ordered, np.take_along_axis(indices, order, 1)[:, :k]
