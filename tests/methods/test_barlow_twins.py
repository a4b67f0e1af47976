"""Barlow Twins against an independent float64 reference, and its settings against the paper."""

from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from eosin.encoders import build_encoder
from eosin.methods._base import Plan
from eosin.methods.barlow_twins import BarlowTwins, Config, barlow_twins_loss, encoder_args, views


def projections(batch: int, dim: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.normal(1, 2, (batch, dim))
    return first, 0.7 * first + rng.normal(0, 1, (batch, dim))


@pytest.mark.parametrize(
    ("batch", "dim"),
    [(6, 17), (17, 6), (8, 8), (4, 1500)],
    ids=["gram", "direct", "square", "blocks"],
)
def test_loss_and_gradient_equal_the_reference(batch: int, dim: int, reference: ModuleType) -> None:
    z1, z2 = projections(batch, dim)
    tensors = [torch.tensor(z, dtype=torch.float32, requires_grad=True) for z in (z1, z2)]
    loss = barlow_twins_loss(tensors[0], tensors[1], 0.0051)
    loss.total.backward()
    total, invariance, redundancy = reference.barlow_twins_loss(z1, z2, 0.0051)
    assert float(loss.total.detach()) == pytest.approx(total, rel=1e-5)
    assert float(loss.parts["on_diagonal"]) == pytest.approx(invariance, rel=1e-5)
    assert float(loss.parts["off_diagonal"]) == pytest.approx(redundancy, rel=1e-5)
    for tensor, expected in zip(
        tensors, reference.barlow_twins_gradient(z1, z2, 0.0051), strict=True
    ):
        assert tensor.grad is not None
        difference = np.linalg.norm(tensor.grad.numpy() - expected)
        assert difference < 1e-5 * np.linalg.norm(expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(6, 12), st.integers(2, 24), st.integers(0, 100), st.floats(0.5, 10))
def test_the_loss_ignores_scale_and_shift(batch: int, dim: int, seed: int, scale: float) -> None:
    z1, z2 = (torch.tensor(z, dtype=torch.float32) for z in projections(batch, dim, seed))
    # A column that hardly varies is where BatchNorm's epsilon rightly breaks the invariance.
    assume(float(z1.var(0, correction=0).min()) * min(scale, 1) ** 2 > 0.01)
    plain = float(barlow_twins_loss(z1, z2, 0.0051).total)
    moved = float(barlow_twins_loss(z1 * scale + 3, z2, 0.0051).total)
    assert moved == pytest.approx(plain, rel=2e-2, abs=1e-3)


def test_equal_decorrelated_views_have_no_loss() -> None:
    z = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    assert float(barlow_twins_loss(z, z, 1.0).total) == pytest.approx(0.0, abs=1e-8)


def small(config: Config, plan: Plan) -> BarlowTwins:
    return BarlowTwins(config, build_encoder("resnet10t", input_px=32), plan)


def test_learning_rates_equal_the_official_ones(reference: ModuleType) -> None:
    plan = Plan(batch_size=2048, updates=1000, updates_per_epoch=10)
    schedules = small(Config(projector=(8, 8)), plan).schedules()
    for group, base in (("weights", 0.2), ("biases", 0.0048)):
        expected = reference.barlow_twins_learning_rates(base * 8, 1000, 10)
        found = [schedules[group]["lr"](update) for update in range(1000)]
        assert np.allclose(found, expected, rtol=1e-12, atol=0)
    assert schedules["weights"]["weight_decay"](500) == 1e-6
    assert "weight_decay" not in schedules["biases"]


def test_only_vectors_are_neither_decayed_nor_adapted() -> None:
    plan = Plan(batch_size=256, updates=10, updates_per_epoch=1)
    groups = {
        group["name"]: group for group in small(Config(projector=(8, 8)), plan).param_groups()
    }
    assert groups["weights"]["adapt"] and not groups["biases"]["adapt"]
    assert {p.ndim for p in groups["biases"]["params"]} == {1}
    assert 1 not in {p.ndim for p in groups["weights"]["params"]}


def test_the_projector_is_the_papers() -> None:
    plan = Plan(batch_size=256, updates=10, updates_per_epoch=1)
    kinds = [type(m).__name__ for m in small(Config(projector=(16, 16, 16)), plan).projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    method = small(Config(projector=(16, 16, 16)), plan)
    assert all("bias" not in n for n, _ in method.projector.named_parameters() if n[0] in "036")
    assert Config().projector == (8192, 8192, 8192)


def test_views_are_the_official_two() -> None:
    first, second = views(Config()).specs
    assert (first.blur_p, first.solarize_p) == (1.0, 0.0)
    assert (second.blur_p, second.solarize_p) == (0.1, 0.2)
    for spec in (first, second):
        assert spec.size_px == 224 and spec.scale == (0.08, 1.0)
        assert spec.interpolation == "bicubic"
        assert spec.jitter == (0.4, 0.4, 0.2, 0.1) and spec.jitter_p == 0.8
        assert spec.grayscale_p == 0.2 and spec.hflip_p == 0.5 and spec.vflip_p == 0.0


def test_residual_branches_start_at_zero() -> None:
    encoder = build_encoder("resnet18", input_px=32, **encoder_args("resnet18"))
    blocks = [m for name, m in encoder.model.named_modules() if name.endswith("bn2")]
    assert len(blocks) == 8 and not any(m.weight.any() for m in blocks)
    assert encoder_args("vit_small_patch16") == {}
