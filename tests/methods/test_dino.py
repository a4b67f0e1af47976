"""DINO against an independent float64 reference, and its settings against the official script."""

import math
from types import ModuleType

import numpy as np
import pytest
import torch
from timm.layers import DropPath

from eosin.encoders import build_encoder
from eosin.methods._base import Plan
from eosin.methods._heads import DINOHead
from eosin.methods.dino import DINO, Config, clip_each, dino_loss, encoder_args, views

SMALL = {
    "global_px": 32,
    "local_px": 16,
    "local_crops": 2,
    "out_dim": 24,
    "hidden_dim": 16,
    "bottleneck_dim": 8,
}
PLAN = Plan(batch_size=1024, updates=100, updates_per_epoch=10)


def small(plan: Plan = PLAN, **settings: object) -> DINO:
    torch.manual_seed(0)
    encoder = build_encoder("timm/test_vit", input_px=32, drop_path_rate=0.1)
    return DINO(Config(**{**SMALL, **settings}), encoder, plan).train()


def crops(method: DINO, batch: int = 4) -> list[torch.Tensor]:
    return [torch.randn(batch, 3, px, px) for px in method.views().sizes]


@pytest.mark.parametrize("crops", [2, 5])
def test_loss_and_gradient_equal_the_reference(crops: int, reference: ModuleType) -> None:
    rng = np.random.default_rng(crops)
    student, teacher = rng.normal(0, 0.3, (crops, 4, 11)), rng.normal(0, 0.3, (2, 4, 11))
    center = rng.normal(0, 0.1, 11)
    leaves = [torch.tensor(s, dtype=torch.float32, requires_grad=True) for s in student]
    loss = dino_loss(
        leaves,
        [torch.tensor(t, dtype=torch.float32) for t in teacher],
        torch.tensor(center, dtype=torch.float32).view(1, -1),
        student_temp=0.1,
        teacher_temp=0.05,
    )
    loss.total.backward()
    expected = reference.dino_loss(student, teacher, center, 0.1, 0.05)
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    gradient = reference.dino_loss_gradient(student, teacher, center, 0.1, 0.05)
    for leaf, wanted in zip(leaves, gradient, strict=True):
        assert leaf.grad is not None
        assert np.allclose(leaf.grad.numpy(), wanted, rtol=1e-4, atol=1e-7)


def test_a_collapsed_model_has_the_loss_ln_k() -> None:
    zeros = torch.zeros(3, 24)
    loss = dino_loss([zeros] * 4, [zeros] * 2, zeros[:1], student_temp=0.1, teacher_temp=0.04)
    assert float(loss.total) == pytest.approx(math.log(24))
    assert float(loss.parts["teacher_entropy"]) == pytest.approx(math.log(24))
    assert float(loss.parts["divergence"]) == pytest.approx(0.0, abs=1e-6)
    assert small().chance_loss() == pytest.approx(math.log(24))


@pytest.mark.parametrize("norm_last_layer", [True, False])
def test_the_head_equals_the_reference(norm_last_layer: bool, reference: ModuleType) -> None:
    torch.manual_seed(1)
    head = DINOHead(
        12, 20, hidden_dim=16, bottleneck_dim=8, layers=3, norm_last_layer=norm_last_layer
    ).double()
    if not norm_last_layer:
        torch.nn.init.uniform_(head.last_layer.weight_g, 0.5, 2)
    x = torch.randn(5, 12, dtype=torch.float64)
    linears = [m for m in head.mlp if isinstance(m, torch.nn.Linear)]
    layers = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in linears]
    expected = reference.dino_head(
        x.numpy(),
        layers,
        head.last_layer.weight_v.detach().numpy(),
        head.last_layer.weight_g.detach().numpy(),
    )
    assert np.allclose(head(x).detach().numpy(), expected, atol=1e-12)
    assert head.last_layer.weight_g.requires_grad is not norm_last_layer


def test_center_and_teacher_follow_each_update(reference: ModuleType) -> None:
    method = small()
    batch = crops(method)
    before = {name: p.clone() for name, p in method.teacher.named_parameters()}
    with torch.no_grad():
        logits = method.teacher_head(method.teacher.embed(torch.cat(batch[:2])))
        for parameter in method.student.parameters():
            parameter.add_(0.1)
    method(batch, 0)
    assert float(method.center.abs().max()) == 0  # the loss of this update used the old centre
    method.after_update(0)
    expected = reference.update_centre(np.zeros(24), logits.double().numpy().reshape(2, 4, 24))
    assert np.allclose(method.center.numpy()[0], expected, atol=1e-6)
    student = dict(method.student.named_parameters())
    for name, parameter in method.teacher.named_parameters():
        wanted = reference.update_teacher(
            before[name].double().numpy(), student[name].detach().double().numpy(), 0.996
        )
        assert np.allclose(parameter.detach().numpy(), wanted, atol=1e-6)


def test_the_center_averages_over_micro_batches() -> None:
    method, whole = small(), small()
    batch = crops(method, batch=6)
    for part in range(2):
        method([crop[3 * part : 3 * part + 3] for crop in batch], 0)
    whole(batch, 0)
    method.after_update(0)
    whole.after_update(0)
    assert torch.allclose(method.center, whole.center, atol=1e-6)


def test_schedules_equal_the_official_ones(reference: ModuleType) -> None:
    schedules = small().schedules()
    lr = reference.cosine_schedule(0.0005 * 4, 1e-6, 100, 10)
    decay = reference.cosine_schedule(0.04, 0.4, 100)
    for update in range(100):
        for group in ("decayed", "free"):
            assert schedules[group]["lr"](update) == pytest.approx(lr[update], rel=1e-9)
        assert schedules["decayed"]["weight_decay"](update) == pytest.approx(decay[update])
        assert schedules["free"]["weight_decay"](update) == 0


def test_the_teacher_temperature_steps_by_epoch_or_by_update(reference: ModuleType) -> None:
    by_epoch = small(teacher_temp=0.07, teacher_temp_per="epoch")._teacher_temp
    expected = reference.teacher_temperatures(0.04, 0.07, 3, 10)
    assert [by_epoch(update) for update in range(0, 100, 10)] == pytest.approx(expected)
    assert by_epoch(10) == by_epoch(19)
    by_update = small(teacher_temp=0.07, teacher_temp_per="update")._teacher_temp
    expected = reference.teacher_temperatures(0.04, 0.07, 30, 100)
    assert [by_update(update) for update in range(100)] == pytest.approx(expected)


def test_each_tensor_is_clipped_on_its_own(reference: ModuleType) -> None:
    rng = np.random.default_rng(0)
    gradients = [rng.normal(0, scale, (5, 7)) for scale in (0.1, 1, 10)]
    parameters = [torch.nn.Parameter(torch.zeros(5, 7, dtype=torch.float64)) for _ in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    clip_each(parameters, 3.0)
    for parameter, wanted in zip(parameters, reference.clip_per_tensor(gradients), strict=True):
        assert parameter.grad is not None
        assert np.allclose(parameter.grad.numpy(), wanted, atol=1e-12)


def test_the_last_layer_is_frozen_for_its_share_of_the_run() -> None:
    method = small(freeze_last_layer=0.02)
    for update, is_frozen in ((0, True), (1, True), (2, False)):
        method(crops(method), update).total.backward()
        method.on_gradients(update)
        assert (method.student_head.last_layer.weight_v.grad is None) is is_frozen
        assert method.student_head.mlp[0].weight.grad is not None


def test_only_biases_and_vectors_escape_the_decay() -> None:
    method = small(norm_last_layer=False)
    groups = {group["name"]: {id(p) for p in group["params"]} for group in method.param_groups()}
    model = method.student.model
    # As in the official code, these are decayed: they are not 1-D.
    for parameter in (model.pos_embed, model.cls_token, method.student_head.last_layer.weight_g):
        assert id(parameter) in groups["decayed"]
    assert id(model.norm.weight) in groups["free"] and id(model.norm.bias) in groups["free"]


def test_the_teacher_sees_global_crops_only_and_drops_no_path() -> None:
    method = small()
    seen: list[torch.Size] = []
    method.teacher.model.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    method(crops(method), 0)
    assert seen == [torch.Size([8, 3, 32, 32])]
    rates = [m.drop_prob for m in method.teacher.modules() if isinstance(m, DropPath)]
    assert rates and not any(rates)
    assert any(m.drop_prob for m in method.student.modules() if isinstance(m, DropPath))
    assert not any(p.requires_grad for p in method.teacher.parameters())
    assert method.export_encoder() is method.teacher


def test_crops_are_the_official_ones() -> None:
    first, second, *local = views(Config()).specs
    assert (first.blur_p, first.solarize_p) == (1.0, 0.0)
    assert (second.blur_p, second.solarize_p) == (0.1, 0.2)
    assert [spec.size_px for spec in (first, second)] == [224, 224]
    assert first.scale == second.scale == (0.4, 1.0)
    assert len(local) == 8
    assert {(s.size_px, s.scale, s.blur_p, s.solarize_p) for s in local} == {
        (96, (0.05, 0.4), 0.5, 0.0)
    }
    assert {s.jitter for s in (first, second, *local)} == {(0.4, 0.4, 0.2, 0.1)}
    assert encoder_args("vit_small_patch16") == {"drop_path_rate": 0.1}
    assert encoder_args("timm/deit_tiny_patch16_224") == {"drop_path_rate": 0.1}
    assert encoder_args("resnet50") == encoder_args("timm/efficientvit_b0") == {}
    deit = build_encoder("timm/deit_tiny_patch16_224", input_px=64)
    assert deit.embed(torch.zeros(1, 3, 32, 32)).shape == (1, 192)  # a local crop
