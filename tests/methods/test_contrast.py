"""The streamed contrast against an independent float64 reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.methods import _contrast
from eosin.methods._contrast import info_nce
from tests import reference, reference_moco


def vectors(batch: int, dim: int, queue: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Queries, keys a little nearer to them than chance, and others."""
    rng = np.random.default_rng(seed)
    queries = rng.normal(size=(batch, dim))
    keys = 0.2 * queries + rng.normal(size=(batch, dim))
    others = rng.normal(size=(queue, dim))
    return tuple(reference_moco.directions(x) for x in (queries, keys, others))


def test_the_reference_gradient_is_that_of_the_reference() -> None:
    queries, keys, queue = vectors(3, 5, 11)
    expected = reference.numerical_gradient(
        lambda x: reference_moco.info_nce(x, keys, queue, 0.2), queries
    )
    found = reference_moco.info_nce_gradient(queries, keys, queue, 0.2)
    assert np.allclose(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("temperature", [0.2, 0.07, 0.005, 5.0])
# Two whole blocks and a part of one; a queue shorter than a block; a queue of one key.
@pytest.mark.parametrize(("batch", "queue"), [(500, 1300), (6, 100), (9, 1)])
def test_loss_gradient_and_parts_equal_the_reference(
    batch: int, queue: int, temperature: float, dtype: torch.dtype, tolerance: float
) -> None:
    queries, keys, others = (torch.tensor(x, dtype=dtype) for x in vectors(batch, 16, queue, 2))
    # The reference computes from what the tensors hold, rounded or not.
    arrays = tuple(x.double().numpy() for x in (queries, keys, others))
    loss = info_nce(queries.requires_grad_(), keys, others, temperature)
    (3 * loss.total).backward()
    assert loss.total.dtype == dtype and queries.grad is not None
    expected = reference_moco.info_nce(*arrays, temperature)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=tolerance, abs=0)
    gradient = 3 * reference_moco.info_nce_gradient(*arrays, temperature)
    difference = np.linalg.norm(queries.grad.double().numpy() - gradient)
    # Logits of up to 1 / t have errors of so many units in the last place.
    assert difference < max(1, 0.02 / temperature) * tolerance * np.linalg.norm(gradient)
    top1 = reference_moco.top1(*arrays, temperature)
    assert float(loss.parts["top1"]) == pytest.approx(top1, rel=1e-6)
    similarity = (arrays[0] * arrays[1]).sum(axis=1).mean()
    assert float(loss.parts["positive_similarity"]) == pytest.approx(similarity, rel=1e-5)


def test_the_gradient_equals_that_of_cross_entropy_on_all_logits() -> None:
    queries, keys, queue = (torch.tensor(x) for x in vectors(300, 8, 2000))
    whole, streamed = (queries.clone().requires_grad_() for _ in range(2))
    positive = (whole * keys).sum(1, keepdim=True)
    logits = torch.cat([positive, whole @ queue.T], 1) / 0.2
    target = torch.zeros(300, dtype=torch.long)
    torch.nn.functional.cross_entropy(logits, target).backward()
    info_nce(streamed, keys, queue, 0.2).total.backward()
    torch.testing.assert_close(streamed.grad, whole.grad, rtol=1e-11, atol=1e-15)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 400), st.integers(0, 100), st.floats(0.02, 2))
def test_the_order_of_the_queue_does_not_matter(
    batch: int, queue: int, seed: int, temperature: float
) -> None:
    queries, keys, others = (torch.tensor(x) for x in vectors(batch, 4, queue, seed))
    order = torch.randperm(queue, generator=torch.Generator().manual_seed(seed))
    plain = info_nce(queries, keys, others, temperature).total
    shuffled = info_nce(queries, keys, others[order], temperature).total
    torch.testing.assert_close(shuffled, plain, rtol=1e-12, atol=1e-12)


def test_equal_vectors_have_the_loss_of_chance() -> None:
    same = torch.ones(1, 4).div(2).expand(5, 4)
    loss = info_nce(same, same, same[:1].expand(999, 4), 0.2)
    assert float(loss.total) == pytest.approx(np.log(1000), rel=1e-6)
    assert float(loss.parts["positive_similarity"]) == pytest.approx(1)


def test_it_is_computed_in_float32_from_bfloat16_under_autocast() -> None:
    queries, keys, queue = (torch.tensor(x, dtype=torch.float32) for x in vectors(8, 16, 700))
    rounded = queries.bfloat16(), keys.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = info_nce(*rounded, queue, 0.2)
    plain = info_nce(rounded[0].float(), rounded[1].float(), queue, 0.2)
    assert torch.equal(under.total, plain.total)


def test_queue_and_keys_get_no_gradient_and_are_left_as_they_are() -> None:
    tensors = [torch.tensor(x).requires_grad_() for x in vectors(4, 8, 50)]
    before = [tensor.detach().clone() for tensor in tensors]
    info_nce(*tensors, 0.2).total.backward()
    assert [tensor.grad is None for tensor in tensors] == [False, True, True]
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


def test_the_size_of_the_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, keys, queue = (torch.tensor(x) for x in vectors(8, 4, 5000))
    whole = info_nce(queries, keys, queue, 0.2).total
    monkeypatch.setitem(_contrast._BLOCK_LOGITS, "cpu", 1)
    torch.testing.assert_close(info_nce(queries, keys, queue, 0.2).total, whole, rtol=1e-13, atol=0)
