"""Logistic regression on frozen embeddings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eosin.probes._base import Labels, Matrix
from eosin.probes._cross_entropy import Coefficients, CrossEntropy
from eosin.probes._objective import Penalty, SquaredNorm
from eosin.probes._solver import Solution, Solver
from eosin.probes._standardise import mean_and_scale, standardised

# How many standard deviations the means may be from zero for embeddings to be used as they are;
# where they are further, they are copied, since float32 would lose digits.
_FAR_OFF = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """A fitted linear classifier of embeddings.

    Attributes:
        weights: [classes, D], for embeddings less `mean` and divided by `scale`.
        bias: [classes].
        mean: of the training embeddings [D].
        scale: standard deviation of the training embeddings [D], 1 where they do not vary or are
            not standardised.
        has_converged: whether the optimiser stopped by itself.
    """

    weights: Matrix
    bias: Matrix
    mean: Matrix
    scale: Matrix
    has_converged: bool

    def predict(self, features: Matrix) -> Matrix:
        """Gives the probability of each class [N, classes] for embeddings [N, D]."""
        logits = (features - self.mean) / self.scale @ self.weights.T + self.bias
        logits -= logits.max(1, keepdims=True)
        odds = np.exp(logits)
        return odds / odds.sum(1, keepdims=True)


def fit(
    features: Matrix,
    labels: Labels,
    n_classes: int,
    c: float,
    max_iterations: int = 1000,
    *,
    standardises: bool = True,
) -> LinearProbe:
    """Fits by L-BFGS, from weights of zero.

    Args:
        features: embeddings [N, D].
        labels: of 0 to `n_classes` - 1 [N]; classes may be absent.
        n_classes: columns of what the probe predicts; an absent class gets the probability 0.
        c: inverse strength of the squared L2 penalty, against the summed cross-entropy. Of two
            classes the weights of the second against the first are penalised, as in scikit-learn.
        max_iterations: of the optimiser.
        standardises: whether the embeddings are brought to unit variance first.
    """
    return next(
        fit_path(features, labels, n_classes, [c], max_iterations, standardises=standardises)
    )


def fit_path(
    features: Matrix,
    labels: Labels,
    n_classes: int,
    cs: Sequence[float],
    max_iterations: int = 1000,
    *,
    standardises: bool = True,
) -> Iterator[LinearProbe]:
    """Fits one probe for each of `cs`, each starting from the solution before it.

    Rising values of `cs`, from the strongest penalty to the weakest, converge fastest. The other
    arguments are those of `fit`.
    """
    count = len(labels)
    penalties = [SquaredNorm(1 / (c * count)) for c in cs]
    return fit_penalties(
        features, labels, n_classes, penalties, max_iterations, standardises=standardises
    )


def fit_penalties(
    features: Matrix,
    labels: Labels,
    n_classes: int,
    penalties: Sequence[Penalty],
    max_iterations: int,
    *,
    standardises: bool,
    is_symmetric: bool = False,
) -> Iterator[LinearProbe]:
    """Fits one probe for each of `penalties` on the mean cross-entropy.

    Args:
        features: embeddings [N, D].
        labels: as of `fit`.
        n_classes: as of `fit`.
        penalties: must not change when the weights are rotated.
        max_iterations: of the optimiser.
        standardises: whether the embeddings are brought to unit variance first.
        is_symmetric: whether each of two classes has weights of its own, too.
    """
    present, targets = np.unique(labels, return_inverse=True)
    mean, deviation = mean_and_scale(features)
    scale = deviation if standardises else np.ones_like(deviation)
    if len(present) == 1:
        nothing = np.zeros((1, features.shape[1] + 1))
        only = Solution(coefficients=nothing, loss=0.0, updates=0, has_converged=True)
        for _ in penalties:
            yield _as_probe(only, present, n_classes, mean, scale)
        return
    n_outputs = 1 if len(present) == 2 and not is_symmetric else len(present)
    basis = None
    if len(features) < features.shape[1]:
        # Weights outside the span of the embeddings are zero: fewer dimensions do.
        basis, inner = np.linalg.qr(standardised(features, mean, scale).T)
        loss = CrossEntropy(np.ascontiguousarray(inner.T), targets, n_outputs)
    elif np.mean(np.square(mean / deviation)) <= _FAR_OFF**2:
        plain = np.ascontiguousarray(features, dtype=np.float32)
        loss = CrossEntropy(plain, targets, n_outputs, mean, scale)
    else:
        loss = CrossEntropy(standardised(features, mean, scale), targets, n_outputs)
    solver = Solver(loss)
    start = None
    for penalty in penalties:
        solution = solver.minimise(penalty, start, max_iterations)
        start = solution.coefficients
        yield _as_probe(solution, present, n_classes, mean, scale, basis)


def _as_probe(
    solution: Solution,
    present: Labels,
    n_classes: int,
    mean: Matrix,
    scale: Matrix,
    basis: Matrix | None = None,
) -> LinearProbe:
    """Gives one row of weights to each class; a solution for two classes may have one row."""
    found: Coefficients = solution.coefficients
    if len(found) == 1 and len(present) == 2:
        found = np.concatenate([np.zeros_like(found), found])
    weights = np.zeros((n_classes, len(mean)), dtype=np.float32)
    bias = np.full(n_classes, -np.inf, dtype=np.float32)
    weights[present] = found[:, :-1] if basis is None else found[:, :-1] @ basis.T
    bias[present] = found[:, -1]
    return LinearProbe(
        weights=weights,
        bias=bias,
        mean=mean,
        scale=scale,
        has_converged=solution.has_converged,
    )
