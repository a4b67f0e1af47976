"""The loss and its gradient in one compiled pass, against float64 with whole matrices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from eosin.probes._cross_entropy import CrossEntropy


def reference(
    features: np.ndarray, labels: np.ndarray, coefficients: np.ndarray
) -> tuple[float, np.ndarray]:
    weights = coefficients[:, :-1].astype(np.float32).astype(np.float64)
    logits = features.astype(np.float64) @ weights.T + coefficients[:, -1]
    if len(coefficients) == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    logs = log_softmax(logits, axis=1)
    rows = np.arange(len(labels))
    errors = np.exp(logs)
    errors[rows, labels] -= 1
    errors = errors[:, -len(coefficients) :]
    inputs = np.concatenate([features.astype(np.float64), np.ones((len(labels), 1))], axis=1)
    return float(-logs[rows, labels].mean()), errors.T @ inputs / len(labels)


# Counts around the groups of 4 and 32 samples, outputs around those of 3.
@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 70) | st.sampled_from([511, 512, 513, 4097]),
    dim=st.integers(1, 40),
    outputs=st.integers(1, 10),
    size=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**16),
)
def test_loss_and_gradient_are_those_of_float64(
    count: int, dim: int, outputs: int, size: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((count, dim), dtype=np.float32)
    labels = generator.integers(0, max(outputs, 2), count)
    coefficients = size * generator.standard_normal((outputs, dim + 1))
    loss, gradient = CrossEntropy(features, labels, outputs)(coefficients)
    expected, expected_gradient = reference(features, labels, coefficients)
    # Products are in float32: logits have a share of 1e-6 of what they are summed from.
    error = 2e-6 * size * dim
    assert loss == pytest.approx(expected, abs=error)
    assert gradient == pytest.approx(expected_gradient, abs=error + 2e-6)


def test_mean_and_scale_are_as_good_as_standardised_embeddings() -> None:
    generator = np.random.default_rng(0)
    scale = generator.uniform(0.1, 5, 12).astype(np.float32)
    mean = generator.uniform(-3, 3, 12).astype(np.float32) * scale
    features = generator.standard_normal((700, 12), dtype=np.float32) * scale + mean
    labels = generator.integers(0, 4, len(features))
    coefficients = generator.standard_normal((4, 13))
    both = CrossEntropy(features, labels, 4, mean, scale)
    standardised = (features.astype(np.float64) - mean) / scale
    expected, expected_gradient = reference(standardised, labels, coefficients)
    loss, gradient = both(coefficients)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert gradient == pytest.approx(expected_gradient, abs=1e-5)
    chosen = np.array([5, 9])
    assert both.rows(chosen) == pytest.approx(standardised[chosen], abs=1e-5)


def test_a_certain_sample_keeps_its_tiny_loss() -> None:
    features = np.ones((1, 1), dtype=np.float32)
    for outputs, coefficients in ((1, [[40.0, 0.0]]), (3, [[0.0, 0.0], [40.0, 0.0], [0.0, 0.0]])):
        loss, gradient = CrossEntropy(features, np.array([1]), outputs)(np.array(coefficients))
        others = max(1, outputs - 1) * np.exp(-40.0)
        assert loss == pytest.approx(others, rel=1e-9)
        assert gradient[outputs // 2, -1] == pytest.approx(-others, rel=1e-9)


def test_the_number_of_threads_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    features = generator.standard_normal((20_000, 16), dtype=np.float32)
    labels = generator.integers(0, 4, len(features))
    coefficients = generator.standard_normal((4, 17))
    loss = CrossEntropy(features, labels, 4)
    alone = loss(coefficients)
    with loss.threads():
        together = loss(coefficients)
    assert alone[0] == together[0] and np.array_equal(alone[1], together[1])
