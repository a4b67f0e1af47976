"""The mean cross-entropy of linear classifiers and its gradient, in closed form, in one pass."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eosin.probes._base import Labels, Matrix
from eosin.probes._pass import pass_over
from eosin.provenance import available_cores

Coefficients = NDArray[np.float64]
"""Weights of each output and, last, its bias [outputs, D + 1]."""

# A block of rows is used for the logits and again for the gradient while it is in the cache.
_BLOCK_VALUES = 2**20
_MOST_BLOCK_ROWS = 512
_CHUNK_BLOCKS = 4


class CrossEntropy:
    """Mean cross-entropy of labelled embeddings.

    The order of the sums does not depend on the number of threads, so neither does the result.
    Embeddings are multiplied in float32; all else is float64, so that small differences count.

    Attributes:
        features: [N, D], C-contiguous, float32.
        labels: [N], from 0, every class present.
        n_outputs: one logit for each class, or 1: the logit of class 1 of two.
        mean: what the embeddings are taken less of [D].
        scale: what they are then divided by [D]. Neither makes a copy: weights, bias and gradient
            are changed instead, which costs digits where the mean is many times the scale.
    """

    def __init__(
        self,
        features: Matrix,
        labels: Labels,
        n_outputs: int,
        mean: Matrix | None = None,
        scale: Matrix | None = None,
    ) -> None:
        self.features = features
        self.labels = labels
        self.n_outputs = n_outputs
        dim = features.shape[1]
        self.mean = np.zeros(dim, np.float32) if mean is None else mean
        self.scale = np.ones(dim, np.float32) if scale is None else scale
        self._executor: Executor | None = None
        rows = min(_MOST_BLOCK_ROWS, max(16, _BLOCK_VALUES // features.shape[1]))
        starts = range(0, len(features), rows)
        blocks = [slice(start, min(start + rows, len(features))) for start in starts]
        self._chunks = [
            blocks[start : start + _CHUNK_BLOCKS] for start in range(0, len(blocks), _CHUNK_BLOCKS)
        ]

    @contextmanager
    def threads(self) -> Generator[Callable[..., Iterator[Any]]]:
        """Computes on all cores within, where that pays; gives a `map` that does so, too."""
        workers = min(available_cores(), len(self._chunks))
        if workers < 2:
            yield map
            return
        with ThreadPoolExecutor(workers, thread_name_prefix="probe") as executor:
            self._executor = executor
            try:
                yield executor.map
            finally:
                self._executor = None

    def __call__(self, coefficients: Coefficients) -> tuple[float, Coefficients]:
        """Gives the loss and its gradient [outputs, D + 1]."""
        weights = np.ascontiguousarray(coefficients[:, :-1] / self.scale, dtype=np.float32)
        bias = coefficients[:, -1] - weights.astype(np.float64) @ self.mean

        def of_chunk(blocks: Sequence[slice]) -> tuple[float, Coefficients]:
            return self._add_up(blocks, weights, bias)

        mapped = self._executor.map if self._executor else map
        loss, gradient = 0.0, np.zeros_like(coefficients)
        for part, part_gradient in mapped(of_chunk, self._chunks):
            loss += part
            gradient += part_gradient
        gradient[:, :-1] -= gradient[:, -1:] * self.mean
        gradient[:, :-1] /= self.scale
        count = len(self.labels)
        return loss / count, gradient / count

    def rows(self, chosen: Labels) -> Matrix:
        """Gives some of the embeddings less the mean and divided by the scale."""
        found = self.features[chosen]
        found -= self.mean
        found /= self.scale
        return found

    def _add_up(
        self, blocks: Sequence[slice], weights: Matrix, bias: Coefficients
    ) -> tuple[float, Coefficients]:
        loss, gradient = 0.0, np.zeros((len(weights), weights.shape[1] + 1))
        for block in blocks:
            features, labels = self.features[block], self.labels[block]
            of_block = np.zeros_like(weights)
            loss += pass_over(features, labels, weights, bias, of_block, gradient[:, -1])
            gradient[:, :-1] += of_block
        return loss, gradient


def curvatures(features: Matrix, coefficients: Coefficients) -> Matrix:
    """Gives how far each sample is from certain [N]: the mean over the outputs of p (1 - p)."""
    logits = coefficients[:, :-1].astype(np.float32) @ features.T
    logits += coefficients[:, -1:].astype(np.float32)
    if len(logits) == 1:
        shares = expit(logits)
    else:
        logits -= logits.max(0)
        shares = np.exp(logits)
        shares /= shares.sum(0)
    return (shares * (1 - shares)).mean(0)
