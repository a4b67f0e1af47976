"""Sinkhorn's codes: what must hold for any scores, and the official form in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from eosin.engine import distributed
from eosin.methods._sinkhorn import sinkhorn
from tests import reference_swav as reference
from tests.ranks import run_on_ranks

SHAPES = st.tuples(st.integers(2, 24), st.integers(2, 40), st.integers(0, 2**31))


def cosines(samples: int, prototypes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    z, c = (
        F.normalize(torch.randn(rows, 6, dtype=torch.float64, generator=generator), dim=1)
        for rows in (samples, prototypes)
    )
    return z @ c.T


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.integers(1, 5))
def test_codes_equal_the_exponential_form_in_float64(shape: tuple, iterations: int) -> None:
    scores = cosines(*shape)
    found = sinkhorn(scores, epsilon=0.05, iterations=iterations)
    expected = reference.sinkhorn_knopp(scores.numpy(), 0.05, iterations)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-12)


@settings(deadline=None, max_examples=60)
@given(SHAPES, st.sampled_from([1e-3, 0.05, 1.0]), st.floats(-50, 50))
def test_each_code_is_a_distribution_and_a_shift_changes_nothing(
    shape: tuple, epsilon: float, shift: float
) -> None:
    scores = cosines(*shape)
    codes = sinkhorn(scores, epsilon=epsilon, iterations=3)
    assert (codes >= 0).all()
    torch.testing.assert_close(codes.sum(1), torch.ones(len(codes), dtype=torch.float64))
    shifted = sinkhorn(scores + shift, epsilon=epsilon, iterations=3)
    torch.testing.assert_close(shifted, codes, rtol=1e-6, atol=1e-9)


def test_many_iterations_give_each_prototype_its_share() -> None:
    codes = sinkhorn(cosines(60, 12, 0), epsilon=0.2, iterations=300)
    torch.testing.assert_close(codes.sum(0), torch.full((12,), 5.0, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("epsilon", [0.05, 0.002])
def test_scores_of_one_do_not_overflow(dtype: torch.dtype, epsilon: float) -> None:
    scores = cosines(16, 40, 1).to(dtype)
    scores[3] = 1.0
    scores[:, 5] = -1.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = sinkhorn(scores, epsilon=epsilon, iterations=3)
    assert codes.dtype == torch.float32 and codes.isfinite().all()
    torch.testing.assert_close(codes.sum(1), torch.ones(16))
    exact = sinkhorn(scores.double(), epsilon=epsilon, iterations=3)
    torch.testing.assert_close(codes.double(), exact, rtol=0, atol=1e-4 * 0.05 / epsilon)


def test_leading_dimensions_are_problems_of_their_own_and_the_last_rows_are_given() -> None:
    first, second = cosines(10, 7, 2), cosines(10, 7, 3)
    codes = sinkhorn(torch.stack([first, second]), epsilon=0.05, iterations=3, last=4)
    for found, scores in zip(codes, (first, second), strict=True):
        expected = sinkhorn(scores, epsilon=0.05, iterations=3)[6:]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_the_scores_stay_as_they_are_and_get_no_gradient() -> None:
    scores = cosines(5, 4, 4).requires_grad_()
    before = scores.detach().clone()
    assert not sinkhorn(scores, epsilon=1.0, iterations=2).requires_grad
    assert torch.equal(scores.detach(), before)


def own_codes() -> Tensor:
    own = cosines(12, 9, 5).chunk(distributed.world_size())[distributed.rank()]
    return sinkhorn(own, epsilon=0.05, iterations=3)


def test_processes_share_the_sums(tmp_path: Path) -> None:
    found = torch.cat(run_on_ranks(3, own_codes, tmp_path))
    torch.testing.assert_close(found, own_codes(), rtol=1e-10, atol=1e-15)
