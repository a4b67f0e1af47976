"""What a probe's optimiser minimises: the cross-entropy with a penalty on the weights."""

from dataclasses import dataclass
from typing import Protocol

from eosin.probes._cross_entropy import Coefficients, CrossEntropy


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
class Known:
    """The loss at coefficients, with or without the penalty, and its gradient there."""

    coefficients: Coefficients
    loss: float
    gradient: Coefficients


class Penalised:
    """The cross-entropy with its penalty."""

    def __init__(self, cross_entropy: CrossEntropy, penalty: Penalty) -> None:
        self._cross_entropy, self._penalty = cross_entropy, penalty

    def at(self, coefficients: Coefficients) -> Known:
        """Computes it."""
        loss, gradient = self._cross_entropy(coefficients)
        return self.with_penalty(Known(coefficients=coefficients, loss=loss, gradient=gradient))

    def with_penalty(self, alone: Known) -> Known:
        """Adds the penalty to the cross-entropy alone."""
        more, of_weights = self._penalty(alone.coefficients[:, :-1])
        gradient = alone.gradient.copy()
        gradient[:, :-1] += of_weights
        return Known(coefficients=alone.coefficients, loss=alone.loss + more, gradient=gradient)
