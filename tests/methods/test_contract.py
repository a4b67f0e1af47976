"""What every method of the plug-in folder must do; a new one is covered without an edit here."""

import copy
import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from eosin import plugins
from eosin.encoders import build_encoder
from eosin.engine.optimizers import build_optimizer
from eosin.methods._base import Loss, Method, MethodConfig, Plan

NAMES = plugins.names("methods")
# Learning rates are those of a batch of 256; the batches below are smaller.
PLAN = Plan(batch_size=256, updates=40, updates_per_epoch=4)
BATCH_SIZE = 8
# Small widths and crops, wherever a method has such settings.
SMALL = {
    "view_px": 32,
    "global_px": 32,
    "local_px": 16,
    "local_crops": 2,
    "projector": (32, 32),
    "out_dim": 64,
    "hidden_dim": 32,
    "bottleneck_dim": 16,
    "prototypes": 64,
    "dim": 16,
    "queue": 1024,
}


def small_config(name: str) -> MethodConfig:
    config = plugins.load("methods", name).Config()
    fields = {field.name for field in dataclasses.fields(config)}
    return dataclasses.replace(config, **{k: v for k, v in SMALL.items() if k in fields})


def build(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    module = plugins.load("methods", name)
    is_vit = "vit" in module.ENCODER
    encoder = build_encoder("timm/test_vit" if is_vit else "resnet10t", input_px=32)
    return module.build(small_config(name), encoder, PLAN).train()


def batch(method: Method, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = method.views().sizes
    return [torch.randn(BATCH_SIZE, 3, px, px, generator=generator) for px in sizes]


def update(
    method: Method, optimizer: torch.optim.Optimizer, views: Sequence[Tensor], at: int
) -> Loss:
    for group in optimizer.param_groups:
        for setting, schedule in method.schedules()[group["name"]].items():
            group[setting] = schedule(at)
    method.before_forward([views], at)
    loss = method(views, at)
    optimizer.zero_grad()
    loss.total.backward()
    method.on_gradients(at)
    optimizer.step()
    method.after_update(at)
    return loss


def optimizer_of(method: Any) -> torch.optim.Optimizer:
    return build_optimizer(method.config.optimizer, method.param_groups())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "encoder", ["timm/resnetv2_50", "timm/tresnet_m", "timm/deit_tiny_patch16_224", "timm/test_vit"]
)
def test_any_resnet_or_vit_is_built_as_the_paper_does(name: str, encoder: str) -> None:
    args = plugins.load("methods", name).encoder_args(encoder)
    assert build_encoder(encoder, input_px=64, **args).embed_dim > 0


@pytest.mark.parametrize("name", NAMES)
def test_groups_cover_the_trained_parameters_once_and_have_schedules(name: str) -> None:
    method = build(name)
    groups = method.param_groups()
    grouped = [id(p) for group in groups for p in group["params"]]
    trained = {id(p) for p in method.parameters() if p.requires_grad}
    assert len(grouped) == len(set(grouped)) and set(grouped) == trained
    assert {group["name"] for group in groups} == set(method.schedules())
    for schedules in method.schedules().values():
        values = [schedule(at) for schedule in schedules.values() for at in range(PLAN.updates)]
        assert all(value >= 0 for value in values)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_step_along_the_gradient_lowers_the_loss(name: str) -> None:
    method = build(name)
    views = batch(method)
    parameters = [p for p in method.parameters() if p.requires_grad]

    method.before_forward([views], 0)

    def loss() -> Tensor:
        torch.manual_seed(3)
        return method(views, 0).total

    before = loss()
    gradients = torch.autograd.grad(before, parameters)
    length = sum(float(g.square().sum()) for g in gradients) ** 0.5
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-4 * gradient / length
    fallen = float((before - loss()).detach())
    # SwAV's codes have no gradient, but follow the network: its loss falls by up to 1.4 of this.
    assert fallen == pytest.approx(1e-4 * length, rel=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_all_state_is_in_the_state_dict(name: str) -> None:
    method = build(name)
    optimizer = optimizer_of(method)
    for at in range(3):
        update(method, optimizer, batch(method, at), at)
    other = build(name, seed=5)
    # Copied, as a checkpoint does; an optimizer would share the tensors it is given.
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    other_optimizer = optimizer_of(other)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for at in range(3, 5):
        torch.manual_seed(at)
        expected = update(method, optimizer, batch(method, at), at)
        torch.manual_seed(at)
        found = update(other, other_optimizer, batch(other, at), at)
        assert torch.equal(expected.total, found.total)
    for key, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_computed_in_float32_under_bf16(name: str) -> None:
    method = build(name)
    views = batch(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method.before_forward([views], 0)
        loss = method(views, 0)
    assert loss.total.dtype == torch.float32 and torch.isfinite(loss.total)
    assert all(value.dtype == torch.float32 for value in loss.parts.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_exported_encoder_is_one_of_the_method(name: str) -> None:
    method = build(name)
    encoder = method.export_encoder().eval()
    assert encoder in list(method.modules())
    assert encoder.embed(torch.randn(2, 3, 32, 32)).shape == (2, encoder.embed_dim)


@pytest.mark.parametrize("name", NAMES)
def test_presets_have_the_views_of_their_name(name: str) -> None:
    module = plugins.load("methods", name)
    assert list(module.PRESETS) == ["official", "vissl", "pathology"]
    assert module.PRESETS["official"] == module.Config()
    for preset, config in module.PRESETS.items():
        assert config.views == preset


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_described_and_the_official_encoder_exists(name: str) -> None:
    module = plugins.load("methods", name)
    source = inspect.getsource(module) + inspect.getsource(MethodConfig)
    for field in dataclasses.fields(module.Config):
        described = source.partition(f"    {field.name}: ")[2].splitlines()[1:2]
        assert described and described[0].strip().startswith('"""'), field.name
    assert build_encoder(module.ENCODER, input_px=64).embed_dim > 0
