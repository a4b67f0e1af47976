"""Small batches: linear classifiers trained side by side, with their gradient in closed form.

No graph is built and no batch is collated, so that an update costs what its matrix products cost.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from eosin.probes._base import Labels, Matrix

Vector = NDArray[np.float32]


class Heads:
    """Linear classifiers of the same embeddings, of the same classes.

    Attributes:
        n_outputs: logits of each; 1: the logit of class 1 of two.
        weights: [heads * outputs, D], a view of `parameters`.
        bias: [heads * outputs], a view of `parameters`.
        parameters: all of them, one after the other.
    """

    def __init__(self, n_heads: int, n_outputs: int, dim: int) -> None:
        self.n_heads = n_heads
        self.n_outputs = n_outputs
        self._rows = n_heads * n_outputs
        self.parameters: Vector = np.zeros(self._rows * (dim + 1), dtype=np.float32)
        self.weights, self.bias = self._views(self.parameters)
        self._gradient = np.empty_like(self.parameters)
        self._of_weights, self._of_bias = self._views(self._gradient)

    def start_uniform(self, generator: np.random.Generator) -> None:
        """Draws weights and biases from +-1/sqrt(D), as `torch.nn.Linear` does."""
        bound = 1 / np.sqrt(self.weights.shape[1])
        self.parameters[:] = generator.uniform(-bound, bound, len(self.parameters))

    def start_normal(self, generator: np.random.Generator, deviation: float) -> None:
        """Draws weights from a normal distribution; biases are zero."""
        self.weights[:] = generator.normal(0, deviation, self.weights.shape)
        self.bias[:] = 0

    def of_each(self, values: list[float]) -> Vector:
        """Gives each parameter the value of its head."""
        by_row = np.repeat(np.asarray(values, dtype=np.float32), self.n_outputs)
        return np.concatenate([np.repeat(by_row, self.weights.shape[1]), by_row])

    def gradient(self, features: Matrix, labels: Labels) -> Vector:
        """Gives the gradient of each head's mean cross-entropy; the next call overwrites it."""
        logits = self.weights @ features.T
        logits += self.bias[:, None]
        if self.n_outputs == 1:
            errors = expit(logits)
            errors -= labels
        else:
            errors = self._softmax(logits)
            errors.reshape(self.n_heads, self.n_outputs, -1)[:, labels, np.arange(len(labels))] -= 1
        errors *= np.float32(1 / len(labels))
        np.matmul(errors, features, out=self._of_weights)
        np.sum(errors, axis=1, out=self._of_bias)
        return self._gradient

    def predict(self, features: Matrix) -> NDArray[np.int64]:
        """Gives the class that each head finds likeliest [heads, N]."""
        logits = self.weights @ features.T
        logits += self.bias[:, None]
        if self.n_outputs == 1:
            return (expit(logits) > 0.5).astype(np.int64)
        return logits.reshape(self.n_heads, self.n_outputs, -1).argmax(1)

    def copy_of(self, head: int) -> "Heads":
        """Gives one head, as it is now."""
        rows = slice(head * self.n_outputs, (head + 1) * self.n_outputs)
        copy = Heads(1, self.n_outputs, self.weights.shape[1])
        copy.weights[:], copy.bias[:] = self.weights[rows], self.bias[rows]
        return copy

    def probabilities(self, features: Matrix) -> Matrix:
        """Gives the first head's probability of each class [N, classes]."""
        logits = self.weights[: self.n_outputs] @ features.T
        logits += self.bias[: self.n_outputs, None]
        if self.n_outputs == 1:
            return np.stack([expit(-logits[0]), expit(logits[0])], axis=1)
        logits -= logits.max(0)
        np.exp(logits, out=logits)
        return np.ascontiguousarray((logits / logits.sum(0)).T)

    def _softmax(self, logits: Matrix) -> Matrix:
        by_head = logits.reshape(self.n_heads, self.n_outputs, -1)
        by_head -= by_head.max(1, keepdims=True)
        np.exp(by_head, out=by_head)
        by_head /= by_head.sum(1, keepdims=True)
        return logits

    def _views(self, flat: Vector) -> tuple[Matrix, Vector]:
        size = len(flat) - self._rows
        return flat[:size].reshape(self._rows, -1), flat[size:]


class Adam:
    """Adam as `torch.optim` has it, in place and in float32.

    Args:
        parameters: what is changed.
        decay: of weights, one value or one for each parameter.
        is_decoupled: whether the decay is a step of its own (AdamW) or part of the gradient.
    """

    _BETAS = (0.9, 0.999)
    _EPSILON = 1e-8

    def __init__(self, parameters: Vector, decay: Vector | float, *, is_decoupled: bool) -> None:
        self._parameters = parameters
        self._decay = np.broadcast_to(np.asarray(decay, dtype=np.float32), parameters.shape)
        self._has_decay = bool(np.any(self._decay))
        self._is_decoupled = is_decoupled
        self._first = np.zeros_like(parameters)
        self._second = np.zeros_like(parameters)
        self._spare = np.empty_like(parameters)
        self._step = 0

    def update(self, gradient: Vector, rate: Vector | float) -> None:
        """Makes one step; `gradient` is overwritten."""
        self._step += 1
        rate = np.asarray(rate, dtype=np.float32)
        parameters, spare = self._parameters, self._spare
        if self._has_decay and self._is_decoupled:
            parameters *= 1 - rate * self._decay
        elif self._has_decay:
            gradient += np.multiply(self._decay, parameters, out=spare)
        beta, gamma = self._BETAS
        self._first *= np.float32(beta)
        self._first += np.multiply(gradient, np.float32(1 - beta), out=spare)
        gradient *= gradient
        gradient *= np.float32(1 - gamma)
        self._second *= np.float32(gamma)
        self._second += gradient
        np.sqrt(self._second, out=gradient)
        gradient *= np.float32(1 / np.sqrt(1 - gamma**self._step))
        gradient += np.float32(self._EPSILON)
        np.divide(self._first, gradient, out=gradient)
        gradient *= rate * np.float32(1 / (1 - beta**self._step))
        parameters -= gradient


class Momentum:
    """Gradient descent with momentum as `torch.optim.SGD` has it, in place and in float32."""

    def __init__(self, parameters: Vector, momentum: float) -> None:
        self._parameters = parameters
        self._momentum = np.float32(momentum)
        self._velocity = np.zeros_like(parameters)

    def update(self, gradient: Vector, rate: Vector) -> None:
        """Makes one step; `gradient` is overwritten."""
        self._velocity *= self._momentum
        self._velocity += gradient
        np.multiply(self._velocity, rate, out=gradient)
        self._parameters -= gradient


def epoch_batches(
    count: int, batch_size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Shuffles and gives batches; the last may be smaller."""
    order = generator.permutation(count)
    for start in range(0, count, batch_size):
        yield order[start : start + batch_size]


def endless_batches(
    count: int, batch_size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Gives batches of one size from one shuffled pass after the other, across their ends."""
    rest = np.empty(0, dtype=np.int64)
    while True:
        while len(rest) < batch_size:
            rest = np.concatenate([rest, generator.permutation(count)])
        yield rest[:batch_size]
        rest = rest[batch_size:]
