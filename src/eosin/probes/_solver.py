"""Minimises a penalised cross-entropy by L-BFGS on coordinates in which it is well conditioned.

The second derivative of the cross-entropy is a weighted second moment of the embeddings. A few
thousand of them tell it well enough that, with its Cholesky factor divided out, tens of passes over
all embeddings reach what takes hundreds without. The optimum is the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from eosin.probes._base import Matrix
from eosin.probes._cross_entropy import Coefficients, CrossEntropy, curvatures

# Second derivatives are estimated on so many samples for each dimension.
_SAMPLES_PER_DIMENSION = 4
_FEWEST_SAMPLES = 4096
# How many updates second derivatives are kept, and how many updates L-BFGS remembers.
_ROUND = 25
_MEMORY = 20
# How far above the minimum it may be: a share of the loss and, where the penalty is so strong that
# weights hardly change the loss, of what they change; and where rounding allows no progress.
_OF_LOSS, _OF_GAIN = 1e-8, 1e-5
_STALLED_OF_LOSS = 1e-6


Map = Callable[..., Iterator[Any]]


class Penalty(Protocol):
    """A penalty on weights [outputs, D]; biases have none."""

    def __call__(self, weights: Coefficients) -> tuple[float, Coefficients]:
        """Gives the penalty and its gradient."""
        ...

    def curvature(self, weights: Coefficients) -> float:
        """Gives its second derivative, or the greatest of them."""
        ...

    def holds_at_zero(self, gradient: Coefficients) -> bool:
        """Whether weights stay zero although the loss has this gradient by them there."""
        ...


@dataclass(frozen=True)
class SquaredNorm:
    """Half the squared norm of all weights, times `strength`."""

    strength: float

    def __call__(self, weights: Coefficients) -> tuple[float, Coefficients]:
        """Gives the penalty and its gradient."""
        return 0.5 * self.strength * float((weights * weights).sum()), self.strength * weights

    def curvature(self, weights: Coefficients) -> float:
        """Gives its second derivative."""
        return self.strength

    def holds_at_zero(self, gradient: Coefficients) -> bool:
        """Only without a gradient: the penalty is smooth."""
        return not gradient.any()


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
        self._sample = cross_entropy.features
        if count > most:
            chosen = np.random.default_rng(0).choice(count, most, replace=False)
            self._sample = cross_entropy.features[np.sort(chosen)]

    def zero(self) -> Coefficients:
        """Gives coefficients to start from."""
        return np.zeros((self.cross_entropy.n_outputs, self.cross_entropy.features.shape[1] + 1))

    def minimise(self, penalty: Penalty, start: Coefficients, most_updates: int) -> Solution:
        """Goes from `start` to the minimum, or as far as `most_updates` lead.

        A library's own threads wait for each other longer than they compute where cores are busy,
        so each product is left to one.
        """
        with threadpool_limits(1), self.cross_entropy.threads() as run:
            return self._minimise(penalty, start, most_updates, run)

    def _minimise(
        self, penalty: Penalty, start: Coefficients, most_updates: int, run: Map
    ) -> Solution:
        prior, without_weights, gradient = self._shares_alone()
        if penalty.holds_at_zero(gradient[:, :-1]):
            return Solution(coefficients=prior, loss=without_weights, updates=0, has_converged=True)
        found = Solution(coefficients=start, loss=np.inf, updates=0, has_converged=False)
        while not found.has_converged and found.updates < most_updates:
            factor = self._factor(penalty, found.coefficients, run)
            inner = _Preconditioned(self.cross_entropy, penalty, factor, without_weights)
            most = min(_ROUND, most_updates - found.updates)
            before = found.updates
            found = self._round(inner, found.coefficients @ factor, before, most)
            if found.updates == before:
                break
        return found

    def _shares_alone(self) -> tuple[Coefficients, float, Coefficients]:
        """Gives the best coefficients whose weights are zero, and the loss and gradient there."""
        prior = self.zero()
        counts = np.log(np.bincount(self.cross_entropy.labels))
        prior[:, -1] = counts[1] - counts[0] if len(prior) == 1 else counts - counts.mean()
        loss, gradient = self.cross_entropy(prior)
        return prior, loss, gradient

    def _factor(self, penalty: Penalty, at: Coefficients, run: Map) -> NDArray[np.float64]:
        """Gives the lower Cholesky factor of the estimated second derivative [D + 1, D + 1]."""
        weights = curvatures(self._sample, at)
        # Where all are certain, nothing would be left of it.
        weights = np.maximum(weights, 0.01 * weights.mean() + 1e-30)
        scaled: Matrix = np.empty((len(self._sample), at.shape[1]), dtype=np.float32)
        np.multiply(self._sample, np.sqrt(weights)[:, None], out=scaled[:, :-1])
        scaled[:, -1] = np.sqrt(weights)
        moment = sum(run(_second_moment, _parts(scaled)), np.zeros(())) / len(scaled)
        scale = float(np.trace(moment)) / len(moment)
        ridge = np.full(len(moment), max(penalty.curvature(at[:, :-1]), 1e-6 * scale))
        ridge[-1] = 1e-6 * scale
        moment[np.diag_indices_from(moment)] += ridge
        return cholesky(moment, lower=True, overwrite_a=True, check_finite=False)

    def _round(
        self, loss: "_Preconditioned", start: Coefficients, updates_before: int, most: int
    ) -> Solution:
        options = {"maxiter": most, "maxfun": 20 * most, "maxcor": _MEMORY, "ftol": 0, "gtol": 0}
        updates, end = 0, loss.at(start.ravel())
        if not end.is_minimum:
            loss.make_first_step_unit(end)
            outcome = minimize(
                loss.scaled,
                end.flat / loss.scale,
                jac=True,
                method="L-BFGS-B",
                callback=loss.stop_at_minimum,
                options=options,
            )
            updates, end = int(outcome.nit), loss.at(outcome.x * loss.scale)
        has_stalled = updates < most and end.above_minimum <= _STALLED_OF_LOSS * end.loss
        return Solution(
            coefficients=end.coefficients,
            loss=end.loss,
            updates=updates_before + updates,
            has_converged=end.is_minimum or has_stalled,
        )


def _second_moment(part: Matrix) -> NDArray[np.float64]:
    return (part.T @ part).astype(np.float64)


def _parts(rows: Matrix) -> list[Matrix]:
    """Gives parts that are worth a product each; how many does not depend on the cores."""
    size = max(1024, rows.shape[1])
    return [rows[start : start + size] for start in range(0, len(rows), size)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Point:
    """What is known where the loss was computed last."""

    flat: NDArray[np.float64]
    coefficients: Coefficients
    loss: float
    gain: float
    inner: NDArray[np.float64]

    @property
    def above_minimum(self) -> float:
        """How much lower the minimum is, were the loss a parabola with these second derivatives."""
        return 0.5 * float(self.inner @ self.inner)

    @property
    def is_minimum(self) -> bool:
        """Whether no update is worth it."""
        return self.above_minimum <= min(_OF_LOSS * self.loss, _OF_GAIN * self.gain)


class _Preconditioned:
    """The penalised loss by coordinates in which its second derivative is about the identity."""

    def __init__(
        self,
        cross_entropy: CrossEntropy,
        penalty: Penalty,
        factor: NDArray[np.float64],
        without_weights: float,
    ) -> None:
        self._cross_entropy = cross_entropy
        self._without_weights = without_weights
        self._penalty = penalty
        self._factor = factor
        self._last: _Point | None = None
        self.scale = 1.0

    def make_first_step_unit(self, point: _Point) -> None:
        """Scales coordinates so that Newton's step has the length of scipy's first: one."""
        self.scale = float(np.linalg.norm(point.inner))

    def scaled(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Gives the loss and its gradient by scaled coordinates."""
        point = self.at(flat * self.scale)
        return point.loss, point.inner * self.scale

    def at(self, flat: NDArray[np.float64]) -> _Point:
        """Computes, unless it has just been computed there."""
        if self._last is None or not np.array_equal(flat, self._last.flat):
            self._last = self._compute(flat.copy())
        return self._last

    def stop_at_minimum(self, intermediate_result: Any) -> None:
        """Ends scipy's optimisation where it has reached the minimum."""
        if self.at(intermediate_result.x * self.scale).is_minimum:
            raise StopIteration

    def _compute(self, flat: NDArray[np.float64]) -> _Point:
        inner = flat.reshape(self._cross_entropy.n_outputs, -1)
        coefficients = solve_triangular(
            self._factor, inner.T, lower=True, trans=1, check_finite=False
        ).T
        loss, gradient = self._cross_entropy(coefficients)
        more, of_penalty = self._penalty(coefficients[:, :-1])
        gradient[:, :-1] += of_penalty
        by_inner = solve_triangular(self._factor, gradient.T, lower=True, check_finite=False).T
        return _Point(
            flat=flat,
            coefficients=coefficients,
            loss=loss + more,
            gain=self._without_weights - loss - more,
            inner=by_inner.ravel(),
        )
