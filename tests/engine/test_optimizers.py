"""LARS and LARC against independent float64 references; the others are PyTorch's own."""

from types import ModuleType

import numpy as np
import pytest
import torch

from eosin.engine.optimizers import LARC, LARS, build_optimizer
from tests import reference_swav


def test_lars_equals_the_reference_over_several_updates(reference: ModuleType) -> None:
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(4, 3)), rng.normal(size=5)]
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in values]
    groups = [
        {"params": [parameters[0]], "lr": 0.2, "weight_decay": 1e-6, "adapt": True},
        {"params": [parameters[1]], "lr": 0.0048, "weight_decay": 1e-6, "adapt": False},
    ]
    optimizer = LARS(groups)
    buffers = [np.zeros_like(value) for value in values]
    for _ in range(5):
        gradients = [rng.normal(size=value.shape) for value in values]
        for index, lr in enumerate((0.2, 0.0048)):
            parameters[index].grad = torch.tensor(gradients[index])
            values[index], buffers[index] = reference.lars_update(
                values[index], gradients[index], buffers[index], lr
            )
        optimizer.step()
    for parameter, value in zip(parameters, values, strict=True):
        assert np.allclose(parameter.detach().numpy(), value, rtol=1e-12)


def test_larc_equals_the_reference_over_several_updates() -> None:
    """Decayed and scaled are all tensors, also biases; not those that are or get only zeros."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(4, 3)), rng.normal(size=5), np.zeros(6), rng.normal(size=(2, 2))]
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in values]
    optimizer = build_optimizer("larc", [{"params": parameters, "weight_decay": 0.01}])
    buffers = [np.zeros_like(value) for value in values]
    for update in range(5):
        optimizer.param_groups[0]["lr"] = lr = 0.3 + 0.1 * update
        for index, parameter in enumerate(parameters):
            gradient = rng.normal(size=values[index].shape) * (index != 3 or update != 2)
            parameter.grad = torch.tensor(gradient)
            values[index], buffers[index] = reference_swav.larc_update(
                values[index], gradient, buffers[index], lr, weight_decay=0.01
            )
        optimizer.step()
    for parameter, value in zip(parameters, values, strict=True):
        np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_takes_nesterov_by_group(nesterov: bool) -> None:
    rng = np.random.default_rng(0)
    value, buffer = rng.normal(size=(4, 3)), np.zeros((4, 3))
    parameter, other = torch.nn.Parameter(torch.tensor(value)), torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [parameter], "nesterov": nesterov}, {"params": [other]}]
    optimizer = build_optimizer("sgd", groups)
    for group in optimizer.param_groups:
        group |= {"lr": 0.03, "weight_decay": 1e-4}
    for _ in range(4):
        gradient = rng.normal(size=(4, 3))
        parameter.grad = torch.tensor(gradient)
        value, buffer = reference_swav.sgd_update(
            value, gradient, buffer, 0.03, 1e-4, nesterov=nesterov
        )
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), value, rtol=1e-12)


@pytest.mark.parametrize("zero", ["weight", "gradient"])
def test_lars_falls_back_to_a_ratio_of_one(zero: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2) if zero == "weight" else torch.ones(2, 2))
    parameter.grad = torch.zeros(2, 2) if zero == "gradient" else torch.ones(2, 2)
    LARS([{"params": [parameter], "lr": 0.5}]).step()
    expected = -0.5 if zero == "weight" else 1.0
    assert torch.equal(parameter.detach(), torch.full((2, 2), expected))


@pytest.mark.parametrize("kind", [LARS, LARC])
def test_what_has_no_gradient_is_skipped(kind: type) -> None:
    still, moved = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    moved.grad = torch.ones(3)
    optimizer = kind(
        [{"params": [still, moved], "lr": 0.5}, {"params": [torch.nn.Parameter(torch.ones(2))]}]
    )
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(3)) and still not in optimizer.state
    assert (moved < 1).all()


@pytest.mark.parametrize("name", ["lars", "larc", "adamw", "sgd"])
def test_groups_keep_their_names(name: str) -> None:
    groups = [{"name": "weights", "params": [torch.nn.Parameter(torch.ones(3))]}]
    optimizer = build_optimizer(name, groups)  # pyright: ignore[reportArgumentType]
    assert [group["name"] for group in optimizer.param_groups] == ["weights"]
