"""The moving average of a network, against NumPy in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from eosin.methods._momentum import ema_update


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))
    model(torch.randn(6, 3, 4, 4))  # statistics that differ from one network to another
    return model.double()


def state(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1), st.integers(1, 3))
def test_parameters_are_averaged_and_nothing_else_changes(momentum: float, updates: int) -> None:
    average, current = network(0), network(1)
    started, other = state(average), state(current)
    parameters = {name for name, _ in average.named_parameters()}
    for _ in range(updates):
        ema_update(average, current, momentum)
    for name, value in state(average).items():
        expected = started[name]
        for _ in range(updates if name in parameters else 0):
            expected = momentum * expected + (1 - momentum) * other[name]
        np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-15, err_msg=name)
    for name, value in state(current).items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_statistics_of_batch_norm_stay_the_networks_own() -> None:
    average, current = network(0), network(1)
    kept = {name: value.clone() for name, value in average.named_buffers()}
    ema_update(average, current, 0.0)
    for name, value in average.named_buffers():
        assert torch.equal(value, kept[name])
    assert not torch.equal(kept["1.running_mean"], dict(current.named_buffers())["1.running_mean"])


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_extremes_are_exact(momentum: float) -> None:
    average, current = network(0), network(1)
    source = average if momentum else current
    expected: list[Tensor] = [p.detach().clone() for p in source.parameters()]
    ema_update(average, current, momentum)
    assert all(torch.equal(p, e) for p, e in zip(average.parameters(), expected, strict=True))


def test_frozen_parameters_are_averaged_without_a_graph() -> None:
    average, current = network(0).requires_grad_(False), network(1)
    ema_update(average, current, 0.5)
    assert all(p.grad_fn is None for p in average.parameters())
