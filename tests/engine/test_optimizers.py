"""LARS against an independent float64 reference; the others are PyTorch's own."""

from types import ModuleType

import numpy as np
import pytest
import torch

from eosin.engine.optimizers import LARS, build_optimizer


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


@pytest.mark.parametrize("zero", ["weight", "gradient"])
def test_lars_falls_back_to_a_ratio_of_one(zero: str) -> None:
    parameter = torch.nn.Parameter(torch.zeros(2, 2) if zero == "weight" else torch.ones(2, 2))
    parameter.grad = torch.zeros(2, 2) if zero == "gradient" else torch.ones(2, 2)
    LARS([{"params": [parameter], "lr": 0.5}]).step()
    expected = -0.5 if zero == "weight" else 1.0
    assert torch.equal(parameter.detach(), torch.full((2, 2), expected))


def test_lars_skips_what_has_no_gradient() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    LARS([{"params": [parameter], "lr": 0.5}]).step()
    assert torch.equal(parameter.detach(), torch.ones(3))


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_groups_keep_their_names(name: str) -> None:
    groups = [{"name": "weights", "params": [torch.nn.Parameter(torch.ones(3))]}]
    optimizer = build_optimizer(name, groups)  # pyright: ignore[reportArgumentType]
    assert [group["name"] for group in optimizer.param_groups] == ["weights"]
