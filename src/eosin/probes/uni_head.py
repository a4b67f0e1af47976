"""The linear probe of mahmoodlab/UNI."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from eosin.probes._base import Fitted, Material
from eosin.probes._cross_entropy import Coefficients
from eosin.probes.linear import fit_penalties


@dataclass(frozen=True)
class UnsquaredNorm:
    """Half the norm of all weights, times `strength`; its gradient at zero is taken as zero."""

    strength: float

    def __call__(self, weights: Coefficients) -> tuple[float, Coefficients]:
        """Gives the penalty and its gradient."""
        norm = float(np.linalg.norm(weights))
        if norm == 0:
            return 0.0, np.zeros_like(weights)
        return 0.5 * self.strength * norm, 0.5 * self.strength / norm * weights

    def curvature(self, weights: Coefficients) -> float:
        """Gives the second derivative across the weights; it grows without limit towards zero."""
        return 0.5 * self.strength / max(float(np.linalg.norm(weights)), 1.0)

    def holds_at_zero(self, gradient: Coefficients) -> bool:
        """Whether the penalty rises faster than the loss falls, whatever the direction."""
        return float(np.linalg.norm(gradient)) <= 0.5 * self.strength


@dataclass(frozen=True, kw_only=True)
class UniHead:
    """Softmax regression with the norm, not the squared norm, of the weights as its penalty.

    The loss is mean cross-entropy + |W| / (2 C) with C = D * classes / share, from zero, on
    embeddings as they are; biases have no penalty (uni/downstream/eval_patch_features/ at 42715ef:
    logistic_regression.py lines 19-22 the loss, 37-38 the start; linear_probe.py lines 107-108 C).
    UNI runs PyTorch's L-BFGS, which stops where the loss changes by less than 1e-9 or after 1,250
    evaluations; here another path leads to the same minimum.

    Attributes:
        share: what the number of weights is divided by to give C.
        max_iterations: of the optimiser.
    """

    is_random: ClassVar[bool] = False

    share: float = 100.0
    max_iterations: int = 1000

    def fit(self, material: Material, seed: int) -> Fitted:
        """Fits on all of `material.train`; nothing is chosen."""
        train = material.train
        c = train.features.shape[1] * len(np.unique(train.labels)) / self.share
        probe = next(
            fit_penalties(
                train.features,
                train.labels,
                material.n_classes,
                [UnsquaredNorm(1 / c)],
                self.max_iterations,
                standardises=False,
                is_symmetric=True,
            )
        )
        chosen = {"c": c, "has_converged": probe.has_converged}
        return Fitted(predict=probe.predict, chosen=chosen)
