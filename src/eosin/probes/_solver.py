"""Minimises a penalised cross-entropy by L-BFGS on coordinates in which it is well conditioned.

The second derivative of the cross-entropy is a weighted second moment of the embeddings. A few
thousand of them tell it well enough that, with its Cholesky factor divided out, tens of passes over
all embeddings reach what takes hundreds without. The optimum is the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from eosin.probes._base import Matrix
from eosin.probes._cross_entropy import Coefficients, CrossEntropy, curvatures
from eosin.probes._objective import Known, Penalised, Penalty

# Second derivatives are estimated on so many samples for each dimension.
_SAMPLES_PER_DIMENSION = 4
_FEWEST_SAMPLES = 4096
# How many updates second derivatives are kept, and how many updates L-BFGS remembers.
_ROUND = 30
_MEMORY = 20
# How far above the minimum it may be: a share of the loss and, where the penalty is so strong that
# weights hardly change the loss, of what they change; and where rounding allows no progress. Where
# little is left of the loss, as of separable classes, the same share of it hides larger differences
# of probabilities, and less is allowed.
_OF_LOSS, _OF_SMALL_LOSS, _OF_GAIN = 1e-7, 1e-8, 1e-7
_STALLED_OF_LOSS = 1e-6


Map = Callable[..., Iterator[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Where the optimiser stopped.

    Attributes:
        coefficients: [outputs, D + 1].
        loss: cross-entropy and penalty there.
        updates: of L-BFGS.
        has_converged: whether it stopped by itself, at the minimum.
    """

    coefficients: Coefficients
    loss: float
    updates: int
    has_converged: bool


class Solver:
    """Minimises the cross-entropy of the same embeddings under one penalty after the other."""

    def __init__(self, cross_entropy: CrossEntropy) -> None:
        self.cross_entropy = cross_entropy
        count, dim = cross_entropy.features.shape
        most = max(_FEWEST_SAMPLES, _SAMPLES_PER_DIMENSION * (dim + 1))
        chosen = np.arange(count)
        if count > most:
            chosen = np.sort(np.random.default_rng(0).choice(count, most, replace=False))
        self._sample = cross_entropy.rows(chosen)
        self._shares: Known | None = None

    def minimise(self, penalty: Penalty, start: Coefficients | None, most_updates: int) -> Solution:
        """Goes from `start` to the minimum, or as far as `most_updates` lead.

        Without a start it begins at weights of zero, with the biases that are best for them. A
        library's own threads wait for each other longer than they compute where cores are busy,
        so each product is left to one.
        """
        with threadpool_limits(1), self.cross_entropy.threads() as run:
            return self._minimise(penalty, start, most_updates, run)

    def _minimise(
        self, penalty: Penalty, start: Coefficients | None, most_updates: int, run: Map
    ) -> Solution:
        if self._shares is None:
            self._shares = self._at_shares()
        alone = self._shares
        if penalty.holds_at_zero(alone.gradient[:, :-1]):
            return Solution(
                coefficients=alone.coefficients, loss=alone.loss, updates=0, has_converged=True
            )
        loss = Penalised(self.cross_entropy, penalty)
        at = loss.with_penalty(alone) if start is None else loss.at(start)
        updates, has_converged = 0, False
        while not has_converged and updates < most_updates:
            factor = self._factor(penalty, at.coefficients, run)
            inner = _Preconditioned(loss, factor, alone.loss)
            most = min(_ROUND, most_updates - updates)
            at, more, has_converged = self._round(inner, at, most)
            updates += more
            if more == 0:
                break
        return Solution(
            coefficients=at.coefficients,
            loss=at.loss,
            updates=updates,
            has_converged=has_converged,
        )

    def _at_shares(self) -> Known:
        """Gives the best coefficients whose weights are zero: the shares of the classes."""
        shares = np.zeros((self.cross_entropy.n_outputs, self.cross_entropy.features.shape[1] + 1))
        counts = np.log(np.bincount(self.cross_entropy.labels))
        shares[:, -1] = counts[1] - counts[0] if len(shares) == 1 else counts - counts.mean()
        loss, gradient = self.cross_entropy(shares)
        return Known(coefficients=shares, loss=loss, gradient=gradient)

    def _factor(self, penalty: Penalty, at: Coefficients, run: Map) -> NDArray[np.float64]:
        """Gives the lower Cholesky factor of the estimated second derivative [D + 1, D + 1]."""
        weights = curvatures(self._sample, at)
        # Where all are certain, nothing would be left of it.
        weights = np.maximum(weights, 0.01 * weights.mean() + 1e-30)
        moment = np.zeros((at.shape[1], at.shape[1]))
        # Parts that are worth a product each; how many does not depend on the cores.
        size = max(1024, at.shape[1])
        parts = (_parts(each, size) for each in (self._sample, weights))
        for of_part in run(_second_moment, *parts):
            moment += of_part
        moment /= len(self._sample)
        scale = float(np.trace(moment)) / len(moment)
        ridge = np.full(len(moment), max(penalty.curvature(at[:, :-1]), 1e-6 * scale))
        ridge[-1] = 1e-6 * scale
        moment[np.diag_indices_from(moment)] += ridge
        # Symmetric, and so turned that LAPACK copies nothing.
        return cholesky(moment.T, lower=True, overwrite_a=True, check_finite=False)

    def _round(self, inner: "_Preconditioned", start: Known, most: int) -> tuple[Known, int, bool]:
        """Gives where it stopped, the updates it took, and whether that is the minimum."""
        options = {"maxiter": most, "maxfun": 20 * most, "maxcor": _MEMORY, "ftol": 0, "gtol": 0}
        updates, end = 0, inner.start_at(start)
        if not end.is_minimum:
            outcome = minimize(
                inner.scaled,
                inner.first,
                jac=True,
                method="L-BFGS-B",
                callback=inner.stop_at_minimum,
                options=options,
            )
            updates, end = int(outcome.nit), inner.at(outcome.x * inner.scale)
        has_stalled = updates < most and end.above_minimum <= _STALLED_OF_LOSS * end.known.loss
        return end.known, updates, end.is_minimum or has_stalled


def _second_moment(part: Matrix, weights: Matrix) -> Matrix:
    scaled = np.empty((len(part), part.shape[1] + 1), dtype=np.float32)
    scaled[:, -1] = np.sqrt(weights)
    np.multiply(part, scaled[:, -1:], out=scaled[:, :-1])
    return scaled.T @ scaled


def _parts(rows: Matrix, size: int) -> list[Matrix]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Point:
    """What is known where the loss was computed last."""

    flat: NDArray[np.float64]
    known: Known
    without_weights: float
    inner: NDArray[np.float64]

    @property
    def above_minimum(self) -> float:
        """How much lower the minimum is, were the loss a parabola with these second derivatives."""
        return 0.5 * float(self.inner @ self.inner)

    @property
    def is_minimum(self) -> bool:
        """Whether no update is worth it."""
        loss, without = self.known.loss, self.without_weights
        of_loss = max(_OF_LOSS * (loss / without) ** 2, _OF_SMALL_LOSS) * loss
        return self.above_minimum <= min(of_loss, _OF_GAIN * (without - loss))


class _Preconditioned:
    """The penalised loss by coordinates in which its second derivative is about the identity."""

    def __init__(
        self, loss: Penalised, factor: NDArray[np.float64], without_weights: float
    ) -> None:
        self._loss = loss
        self._without_weights = without_weights
        self._factor = factor
        self._last: _Point | None = None
        self.scale, self.first = 1.0, np.empty(0)

    def start_at(self, known: Known) -> _Point:
        """Begins where the loss is known.

        Coordinates are scaled so that Newton's step has the length of scipy's first: one.
        """
        self.scale = float(np.linalg.norm(self._by_inner(known))) or 1.0
        self.first = (known.coefficients @ self._factor).ravel() / self.scale
        self._last = self._point(self.first * self.scale, known)
        return self._last

    def scaled(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Gives the loss and its gradient by scaled coordinates."""
        point = self.at(flat * self.scale)
        return point.known.loss, point.inner * self.scale

    def at(self, flat: NDArray[np.float64]) -> _Point:
        """Computes, unless it has just been computed there."""
        if self._last is None or not np.array_equal(flat, self._last.flat):
            inner = flat.reshape(-1, len(self._factor))
            coefficients = solve_triangular(
                self._factor, inner.T, lower=True, trans=1, check_finite=False
            ).T
            self._last = self._point(flat.copy(), self._loss.at(coefficients))
        return self._last

    def stop_at_minimum(self, intermediate_result: Any) -> None:
        """Ends scipy's optimisation where it has reached the minimum."""
        if self.at(intermediate_result.x * self.scale).is_minimum:
            raise StopIteration

    def _point(self, flat: NDArray[np.float64], known: Known) -> _Point:
        return _Point(
            flat=flat,
            known=known,
            without_weights=self._without_weights,
            inner=self._by_inner(known),
        )

    def _by_inner(self, known: Known) -> NDArray[np.float64]:
        """Gives the gradient by the coordinates."""
        by_inner = solve_triangular(self._factor, known.gradient.T, lower=True, check_finite=False)
        return by_inner.T.ravel()
