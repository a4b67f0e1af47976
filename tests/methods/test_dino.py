"""DINO against an independent float64 reference, and its settings against the official script."""

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from timm.layers import DropPath

from eosin.encoders import build_encoder
from eosin.engine import distributed
from eosin.engine.optimizers import build_optimizer
from eosin.errors import UsageError
from eosin.methods._base import Plan
from eosin.methods._dino_networks import clip_each
from eosin.methods._heads import DINOHead
from eosin.methods.dino import DINO, PRESETS, Config, encoder_args, views
from tests.ranks import run_on_ranks

SMALL = {
    "global_px": 32,
    "local_px": 16,
    "local_crops": 2,
    "out_dim": 24,
    "hidden_dim": 16,
    "bottleneck_dim": 8,
}
PLAN = Plan(batch_size=1024, updates=100, updates_per_epoch=10)


def small(plan: Plan = PLAN, drop_path: float = 0.1, **settings: object) -> DINO:
    torch.manual_seed(0)
    encoder = build_encoder("timm/test_vit", input_px=32, drop_path_rate=drop_path)
    return DINO(Config(**{**SMALL, **settings}), encoder, plan).train()


def crops(method: DINO, batch: int = 4) -> list[torch.Tensor]:
    return [torch.randn(batch, 3, px, px) for px in method.views().sizes]


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


def test_an_unfinished_update_leaves_nothing_behind() -> None:
    method, other = small(drop_path=0), small(drop_path=0)
    batch = crops(method)
    method([crop + 1 for crop in batch], 0)  # its loss was not finite, say
    for each in (method, other):
        each.before_forward([batch], 1)
        each(batch, 1)
        each.after_update(1)
    assert torch.equal(method.center, other.center)


def test_schedules_equal_the_official_ones(reference: ModuleType) -> None:
    schedules = small().schedules()
    lr = reference.cosine_schedule(0.0005 * 4, 1e-6, 100, 10)
    decay = reference.cosine_schedule(0.04, 0.4, 100)
    for update in range(100):
        for group in ("decayed", "free"):
            assert schedules[group]["lr"](update) == pytest.approx(lr[update], rel=1e-9)
        assert schedules["decayed"]["weight_decay"](update) == pytest.approx(decay[update])
        assert schedules["free"]["weight_decay"](update) == 0


def vissl_learning_rates() -> list[float]:
    """Those of dino_16gpus_deits16.yaml for each of its 300 epochs, as fvcore computes them."""
    rates = []
    for epoch in range(300):
        where = epoch / 300
        if where + 1e-6 > 0.0333:  # the cosine is not rescaled to what is left of the run
            rates.append(1e-5 + 0.5 * (0.002 - 1e-5) * (1 + math.cos(math.pi * where)))
        else:
            part = where / 0.0333
            rates.append(0.002 * part + 1e-5 * (1 - part))
    return rates


def test_schedules_of_the_vissl_preset_equal_its_configuration(reference: ModuleType) -> None:
    plan = Plan(batch_size=1024, updates=375_300, updates_per_epoch=1251)
    method = small(plan, **{**vars(PRESETS["vissl"]), **SMALL})
    schedules, rates = method.schedules()["decayed"], vissl_learning_rates()
    decay = reference.cosine_schedule(0.04, 0.4, 300)
    assert rates[0] == 1e-5 and rates[9] < 0.00181 and 0.00199 < rates[10] < 0.001995
    for epoch in range(300):
        for update in (1251 * epoch, 1251 * epoch + 1250):
            assert schedules["lr"](update) == pytest.approx(rates[epoch], rel=1e-9)
            assert schedules["weight_decay"](update) == pytest.approx(decay[epoch], rel=1e-9)
    temps = reference.teacher_temperatures(0.04, 0.07, 37_530, 375_300)
    momentum = reference.cosine_schedule(0.996, 1.0, 375_300)
    for update in (0, 1, 1250, 1251, 37_528, 37_529, 37_530, 375_299):
        assert method._teacher_temp(update) == pytest.approx(temps[update], rel=1e-9)
        assert method._teacher_momentum(update) == pytest.approx(momentum[update], rel=1e-12)
    for update, is_frozen in ((0, True), (1250, True), (1251, False)):
        weight = method.student_head.last_layer.weight_v
        weight.grad = torch.full_like(weight, 100.0)
        method.on_gradients(update)
        assert (weight.grad is None) is is_frozen
    assert float(weight.grad.max()) == 100  # it does not clip


def test_the_teacher_temperature_steps_by_epoch_or_by_update(reference: ModuleType) -> None:
    by_epoch = small(teacher_temp=0.07, teacher_temp_per="epoch")._teacher_temp
    expected = reference.teacher_temperatures(0.04, 0.07, 3, 10)
    assert [by_epoch(update) for update in range(0, 100, 10)] == pytest.approx(expected)
    assert by_epoch(10) == by_epoch(19)
    by_update = small(teacher_temp=0.07, teacher_temp_per="update")._teacher_temp
    expected = reference.teacher_temperatures(0.04, 0.07, 30, 100)
    assert [by_update(update) for update in range(100)] == pytest.approx(expected)


def test_the_official_preset_has_the_durations_of_its_hundred_epochs() -> None:
    method = small(Plan(batch_size=512, updates=250_200, updates_per_epoch=2502))
    lr = method.schedules()["decayed"]["lr"]
    assert lr(0) == 0 and lr(25_018) < lr(25_019) == lr(25_020) == 0.001 > lr(25_021)
    weight = method.student_head.last_layer.weight_v
    for update, is_frozen in ((2501, True), (2502, False)):
        weight.grad = torch.ones_like(weight)
        method.on_gradients(update)
        assert (weight.grad is None) is is_frozen


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


def test_vissl_would_decay_the_same_parameters_of_a_vit() -> None:
    method = small(norm_last_layer=False)
    names = {
        id(parameter): name
        for network in (method.student, method.student_head)
        for name, parameter in network.named_parameters()
    }
    for group in method.param_groups():
        for parameter in group["params"]:
            name = names[id(parameter)]
            is_free = name.endswith(".bias") or "norm" in name  # param_groups/dino.py line 39
            assert group["name"] == ("free" if is_free else "decayed"), name


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


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings, option in (
        ({"warmup": 1.5}, "warmup"),
        ({"freeze_last_layer": -0.1}, "freeze-last-layer"),
        ({"out_dim": 1}, "out-dim"),
        ({"bn_ranks": -1}, "bn-ranks"),
    ):
        with pytest.raises(UsageError, match=f"--method.{option} is "):
            Config(**settings)


UPDATES = 2
EXACT = Plan(batch_size=8, updates=8, updates_per_epoch=4)
# A rate at which two updates move the weights, and no share of them frozen.
FAST = {"lr_per_256": 0.1, "warmup": 0.0, "freeze_last_layer": 0.0, "norm_last_layer": False}


def exact(encoder: str, micro_batches: int = 1) -> DINO:
    torch.manual_seed(0)
    plan = Plan(**{**vars(EXACT), "micro_batches": micro_batches})
    built = build_encoder(encoder, input_px=32)
    return DINO(Config(**SMALL, **FAST), built, plan).double().train()


def trained(encoder: str, micro_batches: int = 1) -> dict[str, torch.Tensor]:
    """Gradients, centre and networks of some updates of a process with its share of the tiles."""
    method = exact(encoder, micro_batches)
    optimizer = build_optimizer("adamw", method.param_groups())
    size, rank = distributed.world_size(), distributed.rank()
    found: dict[str, torch.Tensor] = {}
    for update in range(UPDATES):
        generator = torch.Generator().manual_seed(update)
        tiles = [
            torch.randn(8, 3, px, px, generator=generator, dtype=torch.float64)
            for px in method.views().sizes
        ]
        shares = [crop.chunk(size)[rank].chunk(micro_batches) for crop in tiles]
        batch = list(zip(*shares, strict=True))
        for group in optimizer.param_groups:
            for setting, schedule in method.schedules()[group["name"]].items():
                group[setting] = schedule(update)
        method.before_forward(batch, update)
        optimizer.zero_grad()
        for micro, part in enumerate(batch):
            (method(part, update, micro).total / micro_batches).backward()
        for name, parameter in method.named_parameters():
            if parameter.grad is not None:
                parameter.grad.copy_(distributed.all_reduce(parameter.grad) / size)
                found[f"{update} gradient of {name}"] = parameter.grad.clone()
        method.on_gradients(update)
        optimizer.step()
        method.after_update(update)
    return found | method.state_dict()


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if value.is_floating_point():
            length = float(value.norm())
            assert float((found[name] - value).norm()) <= 1e-8 * length, name


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_equal_one_process_with_the_whole_batch(world_size: int, tmp_path: Path) -> None:
    expected = trained("timm/test_vit")
    assert float(expected["center"].norm()) > 0
    for found in run_on_ranks(world_size, trained, tmp_path, "timm/test_vit"):
        assert_equal(found, expected)


def test_micro_batches_equal_the_whole_batch(tmp_path: Path) -> None:
    expected = trained("timm/test_vit")
    assert_equal(trained("timm/test_vit", 4), expected)
    assert_equal(run_on_ranks(2, trained, tmp_path, "timm/test_vit", 2)[1], expected)


def test_batch_norm_sees_all_processes(tmp_path: Path) -> None:
    expected = trained("resnet10t")
    assert_equal(run_on_ranks(2, trained, tmp_path, "resnet10t")[0], expected)


def test_an_encoder_with_batch_norm_cannot_accumulate() -> None:
    with pytest.raises(UsageError, match="DINO with BatchNorm cannot accumulate"):
        exact("resnet10t", micro_batches=2)


def test_the_gradient_under_bf16_is_close_to_that_in_float32() -> None:
    gradients = []
    for is_narrow in (False, True):
        method = small(drop_path=0, norm_last_layer=False)
        torch.manual_seed(1)
        batch = crops(method, batch=16)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_narrow):
            total = method(batch, 0).total
        total.backward()
        gradients.append({n: p.grad for n, p in method.named_parameters() if p.requires_grad})
    for name, expected in gradients[0].items():
        found = gradients[1][name]
        assert expected is not None and found is not None and found.dtype == torch.float32
        assert float((found - expected).norm() / expected.norm()) < 0.1, name
