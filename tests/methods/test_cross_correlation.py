"""The loss of Barlow Twins against an independent float64 reference, at any number of processes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosin.engine import distributed
from eosin.methods._cross_correlation import barlow_twins_loss
from tests import reference
from tests.ranks import run_on_ranks

LAMBD = 0.0051
SHAPES = {"gram": (8, 17), "direct": (16, 6), "square": (8, 8), "blocks": (4, 1500)}


def projections(batch: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.normal(1, 2, (batch, dim))
    return first, 0.7 * first + rng.normal(0, 1, (batch, dim))


def expected(z1: np.ndarray, z2: np.ndarray, joint: bool) -> tuple[tuple[float, ...], np.ndarray]:
    """Loss, both terms and the gradients [2, B, D]; joint is VISSL's normalisation of both views.

    VISSL 09270ed2, barlow_twins_loss.py lines 125-149: one mean and variance over both views' rows.
    """
    if not joint:
        gradient = reference.barlow_twins_gradient(z1, z2, LAMBD)
        return reference.barlow_twins_loss(z1, z2, LAMBD), np.stack(gradient)
    batch = len(z1)
    both = np.concatenate([z1, z2])
    hat = reference.standardise(both)
    c = hat[:batch].T @ hat[batch:] / batch
    on = ((np.diag(c) - 1) ** 2).sum()
    off = (c**2).sum() - (np.diag(c) ** 2).sum()
    by_c = 2 * LAMBD * c
    np.fill_diagonal(by_c, 2 * (np.diag(c) - 1))
    by_hat = np.concatenate([hat[batch:] @ by_c.T, hat[:batch] @ by_c]) / batch
    centred = by_hat - by_hat.mean(axis=0) - hat * (by_hat * hat).mean(axis=0)
    gradient = centred / np.sqrt(both.var(axis=0) + 1e-5)
    return (on + LAMBD * off, on, off), gradient.reshape(2, batch, -1)


def on_own_rows(z1: Tensor, z2: Tensor, joint: bool) -> tuple[Tensor, Tensor]:
    """Total and both terms [3], and the gradient of this process's rows [2, B, D]."""
    count = len(z1) // distributed.world_size()
    own = slice(distributed.rank() * count, (distributed.rank() + 1) * count)
    leaves = [z[own].clone().requires_grad_() for z in (z1, z2)]
    loss = barlow_twins_loss(*leaves, LAMBD, joint=joint)
    loss.total.backward()
    terms = [loss.total.detach(), loss.parts["on_diagonal"], loss.parts["off_diagonal"]]
    return torch.stack(terms), torch.stack([leaf.grad for leaf in leaves if leaf.grad is not None])


@pytest.mark.parametrize(("batch", "dim"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("joint", [False, True], ids=["each", "joint"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_loss_and_gradient_equal_the_reference(
    batch: int, dim: int, joint: bool, dtype: torch.dtype
) -> None:
    z1, z2 = projections(batch, dim)
    terms, gradient = on_own_rows(
        torch.tensor(z1, dtype=dtype), torch.tensor(z2, dtype=dtype), joint
    )
    assert terms.dtype == gradient.dtype == dtype
    expected_terms, expected_gradient = expected(z1, z2, joint)
    rtol = 1e-5 if dtype == torch.float32 else 1e-10
    np.testing.assert_allclose(terms.numpy(), expected_terms, rtol=rtol)
    difference = np.linalg.norm(gradient.numpy() - expected_gradient)
    assert difference < rtol * np.linalg.norm(expected_gradient)


def test_the_joint_gradient_is_that_of_the_joint_loss() -> None:
    z1, z2 = projections(5, 3)
    numerical = reference.numerical_gradient(lambda z: expected(z, z2, True)[0][0], z1)
    np.testing.assert_allclose(expected(z1, z2, True)[1][0], numerical, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_give_the_loss_and_the_gradient_of_the_whole_batch(
    world_size: int, tmp_path: Path
) -> None:
    cases = [(*projections(*shape), joint) for shape in SHAPES.values() for joint in (False, True)]
    by_rank = run_on_ranks(world_size, _of_cases, tmp_path, cases)
    for (z1, z2, joint), *found in zip(cases, *by_rank, strict=True):
        expected_terms, expected_gradient = expected(z1, z2, joint)
        for terms, _ in found:
            np.testing.assert_allclose(terms.numpy(), expected_terms, rtol=1e-10)
        # Of parameters the mean over processes is taken, so rows must have `world_size` times it.
        gradient = torch.cat([rows for _, rows in found], 1).numpy() / world_size
        difference = np.linalg.norm(gradient - expected_gradient)
        assert difference < 1e-10 * np.linalg.norm(expected_gradient)


def _of_cases(cases: list[tuple[np.ndarray, np.ndarray, bool]]) -> list[tuple[Tensor, Tensor]]:
    return [on_own_rows(torch.tensor(z1), torch.tensor(z2), joint) for z1, z2, joint in cases]


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 12), st.integers(2, 24), st.integers(0, 100), st.floats(0.5, 10))
def test_the_loss_ignores_scale_and_shift(batch: int, dim: int, seed: int, scale: float) -> None:
    z1, z2 = (torch.tensor(z, dtype=torch.float32) for z in projections(batch, dim, seed))
    # A column that hardly varies is where BatchNorm's epsilon rightly breaks the invariance.
    assume(float(z1.var(0, correction=0).min()) * min(scale, 1) ** 2 > 0.01)
    plain = float(barlow_twins_loss(z1, z2, LAMBD).total)
    moved = float(barlow_twins_loss(z1 * scale + 3, z2, LAMBD).total)
    assert moved == pytest.approx(plain, rel=2e-2, abs=1e-3)


def test_equal_decorrelated_views_have_no_loss() -> None:
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(barlow_twins_loss(z, z, 1.0).total) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("dim", [6, 24], ids=["direct", "gram"])
def test_half_precision_is_widened(dim: int) -> None:
    z1, z2 = (torch.tensor(z).bfloat16() for z in projections(8, dim))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = barlow_twins_loss(z1, z2, LAMBD)
    assert found.total.dtype == torch.float32
    assert torch.equal(found.total, barlow_twins_loss(z1.float(), z2.float(), LAMBD).total)


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    z1, z2 = (torch.tensor(z, requires_grad=True) for z in projections(4, 9))
    total = barlow_twins_loss(z1, z2, LAMBD).total.square()
    (first,) = torch.autograd.grad(total, z1, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
