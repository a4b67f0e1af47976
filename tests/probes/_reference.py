"""Linear classifiers trained step by step in float64, as plainly as their schedules are written."""

import numpy as np


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


class Layer:
    """Weights [outputs, D] and biases with the state of an optimiser."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray) -> None:
        self.parameters = [weights.astype(np.float64), bias.astype(np.float64)]
        self.first = [np.zeros_like(each) for each in self.parameters]
        self.second = [np.zeros_like(each) for each in self.parameters]
        self.steps = 0

    def logits(self, features: np.ndarray) -> np.ndarray:
        return features.astype(np.float64) @ self.parameters[0].T + self.parameters[1]

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        logits = self.logits(features)
        if logits.shape[1] == 1:
            return np.hstack([sigmoid(-logits), sigmoid(logits)])
        return softmax(logits)

    def gradients(self, features: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        logits = self.logits(features)
        if logits.shape[1] == 1:
            errors = sigmoid(logits) - labels[:, None]
        else:
            errors = softmax(logits) - np.eye(logits.shape[1])[labels]
        errors /= len(labels)
        return [errors.T @ features.astype(np.float64), errors.sum(0)]

    def adam(self, gradients: list[np.ndarray], rate: float, l2: float, decoupled: float) -> None:
        self.steps += 1
        for index, gradient in enumerate(gradients):
            value = self.parameters[index] * (1 - rate * decoupled)
            gradient = gradient + l2 * self.parameters[index]
            self.first[index] = 0.9 * self.first[index] + 0.1 * gradient
            self.second[index] = 0.999 * self.second[index] + 0.001 * gradient**2
            mean = self.first[index] / (1 - 0.9**self.steps)
            variance = self.second[index] / (1 - 0.999**self.steps)
            self.parameters[index] = value - rate * mean / (np.sqrt(variance) + 1e-8)

    def momentum(self, gradients: list[np.ndarray], rate: float) -> None:
        for index, gradient in enumerate(gradients):
            self.first[index] = 0.9 * self.first[index] + gradient
            self.parameters[index] = self.parameters[index] - rate * self.first[index]


def uniform_layers(
    generator: np.random.Generator, heads: int, outputs: int, dim: int
) -> list[Layer]:
    """Layers as `torch.nn.Linear` draws them; float32 as they are stored."""
    bound = 1 / np.sqrt(dim)
    drawn = generator.uniform(-bound, bound, heads * outputs * (dim + 1)).astype(np.float32)
    weights = drawn[: heads * outputs * dim].reshape(heads, outputs, dim)
    bias = drawn[heads * outputs * dim :].reshape(heads, outputs)
    return [Layer(*each) for each in zip(weights, bias, strict=True)]
