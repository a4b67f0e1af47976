import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from eosin.probes.uni_head import UniHead
from tests.probes._material import material, samples
from tests.probes._reference import Layer, softmax


def loss_and_gradient(
    flat: np.ndarray, features: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[float, np.ndarray]:
    """UNI's loss as its source has it, in float64: the norm of the weights is not squared."""
    dim = features.shape[1]
    weights, bias = flat[: classes * dim].reshape(classes, dim), flat[classes * dim :]
    shares = softmax(features @ weights.T + bias)
    norm = np.linalg.norm(weights)
    strength = 100 / (dim * classes)
    loss = -np.log(shares[np.arange(len(labels)), labels]).mean() + strength * 0.5 * norm
    errors = (shares - np.eye(classes)[labels]) / len(labels)
    of_weights = errors.T @ features + (strength * 0.5 * weights / norm if norm else 0)
    return loss, np.concatenate([of_weights.ravel(), errors.sum(0)])


@pytest.mark.parametrize(("count", "classes", "dim"), [(300, 2, 8), (400, 4, 8), (60, 3, 100)])
def test_the_minimum_is_that_of_uni_s_loss(count: int, classes: int, dim: int) -> None:
    given = material(count, classes, dim, spread=3.0)
    train = given.train
    arguments = (train.features.astype(np.float64), train.labels, classes)
    reference = minimize(
        loss_and_gradient,
        np.zeros(classes * (dim + 1)),
        args=arguments,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 20000, "maxfun": 40000, "ftol": 1e-15, "gtol": 1e-9},
    )
    weights = reference.x[: classes * dim].reshape(classes, dim)
    queries = samples(50, classes, dim, 2, 3.0).features
    expected = Layer(weights, reference.x[classes * dim :]).probabilities(queries)
    fitted = UniHead().fit(given, 0)
    assert fitted.chosen == {"c": dim * classes / 100, "has_converged": True}
    assert fitted.predict(queries) == pytest.approx(expected, abs=2e-3)
    found = coefficients_of(fitted.predict, classes, dim)
    loss, _ = loss_and_gradient(found, *arguments)
    assert loss == pytest.approx(reference.fun, rel=1e-6)


def coefficients_of(predict, classes: int, dim: int) -> np.ndarray:
    """Reads a linear head's coefficients, up to what all classes share, off its predictions."""
    scale = 1e-2
    points = np.vstack([np.zeros((1, dim)), scale * np.eye(dim)]).astype(np.float32)
    logits = np.log(predict(points).astype(np.float64))
    logits -= logits.mean(1, keepdims=True)
    weights = (logits[1:] - logits[0]).T / scale
    return np.concatenate([weights.ravel(), logits[0]])


def test_uni_s_own_way_leads_there() -> None:
    given = material(300, 3, 8, spread=3.0)
    features = torch.from_numpy(given.train.features)
    labels = torch.from_numpy(given.train.labels)
    layer = torch.nn.Linear(8, 3)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), line_search_fn="strong_wolfe", max_iter=1000)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(layer(features), labels)
        loss = loss + 100 / 24 * 0.5 * layer.weight.norm(p=2)
        loss.backward()
        return loss

    optimizer.step(closure)
    queries = samples(50, 3, 8, 2, 3.0).features
    expected = layer(torch.from_numpy(queries)).softmax(1).detach().numpy()
    assert UniHead().fit(given, 0).predict(queries) == pytest.approx(expected, abs=2e-3)


def test_a_squared_norm_would_be_another_head() -> None:
    given = material(300, 3, 8, spread=3.0)
    queries = samples(50, 3, 8, 2, 3.0).features
    weak, strong = (UniHead(share=share).fit(given, 0).predict(queries) for share in (1, 400))
    assert np.abs(weak - strong).max() > 0.01
