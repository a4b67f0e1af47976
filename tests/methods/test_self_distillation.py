"""DINO's last layer and loss, which are one, against a float64 reference and plain PyTorch."""

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.methods import _self_distillation
from eosin.methods._base import Loss
from eosin.methods._heads import WeightNormLinear
from eosin.methods._self_distillation import self_distillation_loss

BATCH, DIM, OUTPUTS = 5, 6, 11
TEMPS = {"student_temp": 0.1, "teacher_temp": 0.05}


def make_layer(dtype: torch.dtype, *, is_length_trained: bool) -> WeightNormLinear:
    layer = WeightNormLinear(DIM, OUTPUTS, is_length_trained=is_length_trained).to(dtype)
    if is_length_trained:
        torch.nn.init.uniform_(layer.weight_g, 0.5, 2)
    return layer


def make_inputs(views: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features that want a gradient, the teacher's logits, and a centre."""
    features = torch.nn.functional.normalize(torch.randn(views * BATCH, DIM, dtype=dtype))
    teacher = 0.3 * torch.randn(2 * BATCH, OUTPUTS, dtype=dtype)
    return features.requires_grad_(), teacher, 0.1 * torch.randn(1, OUTPUTS, dtype=dtype)


def by_reference(
    reference: ModuleType,
    features: torch.Tensor,
    layer: WeightNormLinear,
    teacher: torch.Tensor,
    center: torch.Tensor,
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss and its gradients, all in float64 NumPy."""
    x, v, g, t, c = (
        tensor.detach().double().numpy()
        for tensor in (features, layer.weight_v, layer.weight_g, teacher, center)
    )
    unit = v / np.sqrt((v**2).sum(axis=1, keepdims=True))
    weight = g * unit
    student = (x @ weight.T).reshape(-1, BATCH, OUTPUTS)
    given = (student, t.reshape(2, BATCH, OUTPUTS), c[0], 0.1, 0.05)
    by_logits = reference.dino_loss_gradient(*given).reshape(-1, OUTPUTS)
    by_weight = by_logits.T @ x
    by_lengths = (by_weight * unit).sum(axis=1, keepdims=True)
    by_directions = (by_weight - by_lengths * unit) * g / np.sqrt((v**2).sum(1, keepdims=True))
    return reference.dino_loss(*given), {
        "features": by_logits @ weight,
        "weight_v": by_directions,
        "weight_g": by_lengths,
    }


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("views", [2, 3, 6])
@pytest.mark.parametrize("block", [3, 4096])
def test_loss_and_gradients_equal_the_reference(
    dtype: torch.dtype,
    error: float,
    views: int,
    block: int,
    reference: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_self_distillation, "_COLUMNS", block)
    monkeypatch.setattr(_self_distillation, "_ROWS", block)
    torch.manual_seed(views)
    layer = make_layer(dtype, is_length_trained=True)
    features, teacher, center = make_inputs(views, dtype)
    expected, wanted = by_reference(reference, features, layer, teacher, center)
    total = self_distillation_loss(features, layer, teacher, center, **TEMPS).total
    assert total.dtype == dtype
    assert float(total.detach()) == pytest.approx(expected, rel=error)
    total.backward()
    leaves = {"features": features, "weight_v": layer.weight_v, "weight_g": layer.weight_g}
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.dtype == dtype
        difference = np.linalg.norm(leaf.grad.double().numpy() - wanted[name])
        assert difference <= error * np.linalg.norm(wanted[name]), name


def plain_loss(
    features: torch.Tensor, layer: WeightNormLinear, teacher: torch.Tensor, center: torch.Tensor
) -> Loss:
    """As the official code computes it, with nothing fused."""
    logits = layer(features).float()
    targets = ((teacher - center) / 0.05).softmax(-1).chunk(2)
    log_probs = (logits / 0.1).log_softmax(-1).chunk(len(features) // BATCH)
    terms = [
        -(target * log_prob).sum(-1).mean()
        for t, target in enumerate(targets)
        for s, log_prob in enumerate(log_probs)
        if t != s
    ]
    entropy = torch.stack([torch.special.entr(t).sum(-1).mean() for t in targets]).mean()
    total = torch.stack(terms).mean()
    return Loss(total=total, parts={"teacher_entropy": entropy, "divergence": total - entropy})


def test_the_parts_equal_plain_pytorch() -> None:
    torch.manual_seed(0)
    layer = make_layer(torch.float32, is_length_trained=False)
    features, teacher, center = make_inputs(4, torch.float32)
    expected = plain_loss(features, layer, teacher, center)
    found = self_distillation_loss(features, layer, teacher.clone(), center, **TEMPS)
    for name, part in expected.parts.items():
        assert float(found.parts[name]) == pytest.approx(float(part.detach()), abs=1e-6)
    found.total.backward()
    assert layer.weight_g.grad is None  # it is not trained


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_under_autocast_the_gradient_is_as_good_as_that_of_the_plain_loss(
    narrow: torch.dtype,
) -> None:
    torch.manual_seed(1)
    layer = make_layer(torch.float32, is_length_trained=True)
    features, teacher, center = make_inputs(6, torch.float32)
    leaves = [features, layer.weight_v, layer.weight_g]
    exact = torch.autograd.grad(plain_loss(features, layer, teacher, center).total, leaves)
    with torch.autocast("cpu", dtype=narrow):
        plain = plain_loss(features, layer, teacher, center).total
        fused = self_distillation_loss(features, layer, teacher.clone(), center, **TEMPS).total
    assert fused.dtype == torch.float32
    # As a GradScaler would, without which float16 loses small gradients of the plain loss.
    scale = 1024.0
    gradients = [torch.autograd.grad(loss * scale, leaves) for loss in (plain, fused)]
    for true, by_plain, by_fused in zip(exact, *gradients, strict=True):
        assert by_fused.dtype == torch.float32
        errors = [float((g / scale - true).norm() / true.norm()) for g in (by_plain, by_fused)]
        assert errors[1] < max(2 * errors[0], 1e-3)


def test_float16_keeps_small_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(2)
    layer = WeightNormLinear(DIM, 1 << 15, is_length_trained=False)
    features = torch.nn.functional.normalize(torch.randn(2 * BATCH, DIM)).requires_grad_()
    center = torch.zeros(1, 1 << 15)

    def gradient() -> torch.Tensor:
        teacher = torch.zeros(2 * BATCH, 1 << 15)
        total = self_distillation_loss(
            features, layer, teacher, center, student_temp=2.0, teacher_temp=1.0
        ).total
        return torch.autograd.grad(total, layer.weight_v)[0]

    expected = gradient()
    with torch.autocast("cpu", dtype=torch.float16):
        found = gradient()
        monkeypatch.setattr(_self_distillation, "_HALF_SCALE", 1.0)
        unscaled = gradient()
    errors = [float((g - expected).norm() / expected.norm()) for g in (found, unscaled)]
    assert errors[0] < 2e-3 and 5 * errors[0] < errors[1]


def test_a_collapsed_model_has_the_loss_ln_k() -> None:
    layer = WeightNormLinear(DIM, 24, is_length_trained=False)
    teacher, center = torch.zeros(6, 24), torch.zeros(1, 24)
    loss = self_distillation_loss(torch.zeros(12, DIM), layer, teacher, center, **TEMPS)
    assert float(loss.total.detach()) == pytest.approx(math.log(24))
    assert float(loss.parts["teacher_entropy"]) == pytest.approx(math.log(24))
    assert float(loss.parts["divergence"]) == pytest.approx(0.0, abs=1e-6)


def test_without_gradients_the_loss_is_the_same_and_twice_is_refused() -> None:
    torch.manual_seed(3)
    layer = make_layer(torch.float64, is_length_trained=True)
    features, teacher, center = make_inputs(4, torch.float64)
    with torch.no_grad():
        silent = self_distillation_loss(features, layer, teacher.clone(), center, **TEMPS).total
    total = self_distillation_loss(features, layer, teacher, center, **TEMPS).total
    assert torch.equal(silent, total.detach()) and not silent.requires_grad
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="differentiated already"):
        total.backward()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    views=st.integers(2, 5),
    spread=st.floats(0.1, 30),
    shift=st.floats(-50, 50),
)
def test_properties(seed: int, views: int, spread: float, shift: float) -> None:
    torch.manual_seed(seed)
    layer = make_layer(torch.float64, is_length_trained=True)
    features, teacher, center = make_inputs(views, torch.float64)
    teacher *= spread

    def loss(logits: torch.Tensor) -> Loss:
        return self_distillation_loss(features.detach(), layer, logits, center, **TEMPS)

    found = loss(teacher.clone())
    total = float(found.total.detach())
    # A cross-entropy is at least the entropy, and softmax takes no notice of a common shift.
    assert float(found.parts["divergence"]) >= -1e-9
    assert 0 <= float(found.parts["teacher_entropy"]) <= math.log(OUTPUTS) + 1e-9
    shifted = loss(teacher + shift)
    assert float(shifted.total.detach()) == pytest.approx(total, rel=1e-9, abs=1e-9)
    # Order of the tiles in the batch does not matter.
    order = torch.randperm(BATCH)
    rows = torch.cat([order + BATCH * view for view in range(views)])
    mixed = self_distillation_loss(
        features[rows], layer, teacher[rows[: 2 * BATCH]], center, **TEMPS
    ).total
    assert float(mixed.detach()) == pytest.approx(total, rel=1e-9)
