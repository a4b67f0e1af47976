"""Logistic regression on frozen embeddings."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

Matrix = NDArray[np.float32]
Labels = NDArray[np.int64]

# Below this many values an update is so short that threads wait for each other longer than they
# compute: up to 40 times longer where other programs keep the cores busy.
_VALUES_WORTH_THREADS = 2**24


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """A fitted linear classifier of standardised embeddings.

    Attributes:
        weights: [classes, D], for standardised embeddings.
        bias: [classes].
        mean: of the training embeddings [D].
        scale: standard deviation of the training embeddings [D], 1 where they do not vary.
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
    features: Matrix, labels: Labels, n_classes: int, c: float, max_iterations: int = 1000
) -> LinearProbe:
    """Fits by L-BFGS in float32 from zero, on standardised embeddings.

    Args:
        features: embeddings [N, D].
        labels: of 0 to `n_classes` - 1 [N]; classes may be absent, at least two are present.
        n_classes: columns of what the probe predicts; an absent class gets the probability 0.
        c: inverse strength of the squared L2 penalty, against the summed cross-entropy.
        max_iterations: of the optimiser.
    """
    return next(fit_path(features, labels, n_classes, [c], max_iterations))


def fit_path(
    features: Matrix,
    labels: Labels,
    n_classes: int,
    cs: Sequence[float],
    max_iterations: int = 1000,
) -> Iterator[LinearProbe]:
    """Fits one probe for each of `cs`, each starting from the solution before it.

    Rising values of `cs`, from the strongest penalty to the weakest, converge fastest. The other
    arguments are those of `fit`.
    """
    mean = features.mean(0, dtype=np.float64).astype(np.float32)
    scale = features.std(0, dtype=np.float64).astype(np.float32)
    # What varies by less than float32 can tell from its mean would be noise blown up to unit size.
    scale[scale <= 4 * np.finfo(np.float32).eps * np.abs(mean)] = 1
    standardised = (features - mean) / scale
    model = LogisticRegression(max_iter=max_iterations, warm_start=True)
    threads = None if features.size >= _VALUES_WORTH_THREADS else 1
    for c in cs:
        model.set_params(C=c)
        with warnings.catch_warnings(), threadpool_limits(threads):
            # The probe says itself whether it converged.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(standardised, labels)
        weights, bias = _per_class(model, n_classes)
        yield LinearProbe(
            weights=weights,
            bias=bias,
            mean=mean,
            scale=scale,
            has_converged=bool(model.n_iter_.max() < max_iterations),
        )


def _per_class(model: LogisticRegression, n_classes: int) -> tuple[Matrix, Matrix]:
    """Gives one row of weights a class; scikit-learn gives one row for two classes."""
    coefficients, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(coefficients) == 1:
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    weights = np.zeros((n_classes, coefficients.shape[1]), dtype=np.float32)
    bias = np.full(n_classes, -np.inf, dtype=np.float32)
    weights[model.classes_], bias[model.classes_] = coefficients, intercepts
    return weights, bias
