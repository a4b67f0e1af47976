"""Barlow Twins: its gradient at any number of processes, and its settings against the sources."""

import dataclasses
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from eosin.encoders import build_encoder
from eosin.engine import batch_norm, distributed
from eosin.engine.optimizers import build_optimizer
from eosin.errors import UsageError
from eosin.methods._base import Method, Plan
from eosin.methods.barlow_twins import (
    PRESETS,
    Config,
    build,
    encoder_args,
    lr_notes,
    views,
)
from tests import reference as float64
from tests.ranks import run_on_ranks

TILES = 8
PLAN = Plan(batch_size=2048, updates=1000, updates_per_epoch=10)
# Fewer and more dimensions than tiles: the loss through C, and through Gram matrices.
PROJECTORS = {"direct": (12, 6), "gram": (12, 24)}


def small(config: Config, plan: Plan = PLAN) -> Method:
    encoder = build_encoder(
        "timm/test_resnet", input_px=32, seed=0, **encoder_args("timm/test_resnet")
    )
    torch.manual_seed(0)
    return build(config, encoder, plan).double()


def tiles(update: int = 0) -> tuple[Tensor, Tensor]:
    """Two views of the whole batch, in float64."""
    generator = torch.Generator().manual_seed(update)
    first = torch.randn(TILES, 3, 32, 32, generator=generator, dtype=torch.float64)
    noise = torch.randn(TILES, 3, 32, 32, generator=generator, dtype=torch.float64)
    return first, 0.7 * first + 0.5 * noise


def own_share(views: tuple[Tensor, Tensor]) -> list[Tensor]:
    return [view.chunk(distributed.world_size())[distributed.rank()] for view in views]


def mean_gradients(method: nn.Module) -> dict[str, Tensor]:
    """The mean over processes, as `DistributedDataParallel` takes it."""
    size = distributed.world_size()
    named = [(name, p.grad) for name, p in method.named_parameters() if p.grad is not None]
    return {name: distributed.all_reduce(grad) / size for name, grad in named}


def gradients_and_statistics(configs: list[Config]) -> list[dict[str, Tensor]]:
    found: list[dict[str, Tensor]] = []
    for config in configs:
        method = small(config)
        loss = method(own_share(tiles()), 0)
        loss.total.backward()
        found.append(mean_gradients(method) | dict(method.named_buffers()))
        found[-1]["loss"] = loss.total.detach()
    return found


def assert_close(found: dict[str, Tensor], whole: dict[str, Tensor], rtol: float) -> None:
    """Relative L2 distance of each tensor."""
    assert found.keys() == whole.keys()
    for name, value in whole.items():
        difference = float((found[name] - value).double().norm())
        assert difference <= rtol * float(value.double().norm()), name


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_have_the_gradient_and_statistics_of_one(world_size: int, tmp_path: Path) -> None:
    presets = (dataclasses.replace(PRESETS["official"], zero_init_last=False), PRESETS["vissl"])
    configs = [
        dataclasses.replace(preset, projector=projector)
        for preset in presets
        for projector in PROJECTORS.values()
    ]
    whole = gradients_and_statistics(configs)
    assert all(len(each) > 50 for each in whole)
    for found in run_on_ranks(world_size, gradients_and_statistics, tmp_path, configs):
        for of_rank, of_one in zip(found, whole, strict=True):
            assert_close(of_rank, of_one, 1e-8)


def test_own_statistics_are_not_those_of_one_process(tmp_path: Path) -> None:
    shared = Config(projector=(12, 24), zero_init_last=False)
    configs = [shared, dataclasses.replace(shared, bn_ranks=1)]
    both, own = run_on_ranks(2, gradients_and_statistics, tmp_path, configs)[0]
    name = "projector.1.running_mean"
    assert float((both[name] - own[name]).norm()) > 1e-3 * float(both[name].norm())


# The official arithmetic


class _PassingOn(torch.autograd.Function):
    """The sum over processes whose gradient passes as it is: `all_reduce` in place."""

    @staticmethod
    def forward(ctx: object, c: Tensor) -> Tensor:
        total = c.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return grad


def official_loss(method: Method, last: nn.Module, share: list[Tensor]) -> Tensor:
    """As main.py lines 207-221 compute it; `last` is the BatchNorm of line 205, synchronised."""
    z1, z2 = (method.get_submodule("projector")(method.export_encoder()(view)) for view in share)
    c = _PassingOn.apply(last(z1).T @ last(z2) / TILES)
    off = ~torch.eye(len(c), dtype=torch.bool)
    return (c.diagonal() - 1).square().sum() + 0.0051 * c[off].square().sum()


def official_gradient(config: Config) -> dict[str, Tensor]:
    method = small(config)
    last = nn.BatchNorm1d(config.projector[-1], affine=False).double()
    batch_norm.synchronise(last)
    official_loss(method, last, own_share(tiles())).backward()
    return mean_gradients(method)


def copy_of_parameters(method: Method) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in method.named_parameters()}


def official_training(config: Config, updates: int) -> dict[str, Tensor]:
    """What parameters moved by, with the published settings and the official gradient."""
    method = small(config, Plan(batch_size=TILES, updates=updates, updates_per_epoch=1))
    last = nn.BatchNorm1d(config.projector[-1], affine=False).double()
    batch_norm.synchronise(last)
    start = copy_of_parameters(method)
    factor = float64.barlow_twins_learning_rates(TILES / 256, updates, 2)
    buffers = {name: np.zeros(p.shape) for name, p in method.named_parameters()}
    for update in range(updates):
        method.zero_grad()
        official_loss(method, last, own_share(tiles(update))).backward()
        gradients = mean_gradients(method)
        for name, parameter in method.named_parameters():
            rate = factor[update] * (0.2 if parameter.ndim > 1 else 0.0048)
            value, buffers[name] = float64.lars_update(
                parameter.detach().numpy(), gradients[name].numpy(), buffers[name], rate, 0.01
            )
            parameter.data.copy_(torch.from_numpy(value))
    return {name: value - start[name] for name, value in copy_of_parameters(method).items()}


def our_training(config: Config, updates: int) -> dict[str, Tensor]:
    method = small(config, Plan(batch_size=TILES, updates=updates, updates_per_epoch=1))
    start = copy_of_parameters(method)
    optimizer = build_optimizer("lars", method.param_groups())
    for update in range(updates):
        for group in optimizer.param_groups:
            for setting, schedule in method.schedules()[group["name"]].items():
                group[setting] = schedule(update)
        optimizer.zero_grad()
        method(own_share(tiles(update)), update).total.backward()
        for parameter, gradient in zip(
            method.parameters(), mean_gradients(method).values(), strict=True
        ):
            parameter.grad = gradient
        optimizer.step()
    return {name: value - start[name] for name, value in copy_of_parameters(method).items()}


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_the_official_gradient_is_the_true_one_divided_by_the_processes(
    world_size: int, tmp_path: Path
) -> None:
    config = Config(projector=(12, 24), zero_init_last=False)
    (whole,) = gradients_and_statistics([config])
    official = run_on_ranks(world_size, official_gradient, tmp_path, config)[0]
    scaled = {name: whole[name] / world_size for name in official}
    assert_close(official, scaled, 1e-8)


def test_reference_world_size_gives_the_official_updates_at_any_world_size(tmp_path: Path) -> None:
    # A weight decay large enough to be felt, as in `official_training`.
    config = Config(
        projector=(12, 24),
        zero_init_last=False,
        warmup=0.5,
        weight_decay=0.01,
        reference_world_size=4,
    )
    official = run_on_ranks(4, official_training, tmp_path / "official", config, 4)[0]
    assert_close(our_training(config, 4), official, 1e-8)
    assert_close(run_on_ranks(2, our_training, tmp_path / "two", config, 4)[0], official, 1e-8)
    other = our_training(dataclasses.replace(config, reference_world_size=1), 4)
    for name in ("projector.1.bias", "encoder.model.bn1.weight", "projector.0.weight"):
        assert float((other[name] - official[name]).norm()) > 1e-4 * float(official[name].norm())


# Settings


def test_learning_rates_equal_the_official_ones(reference: ModuleType) -> None:
    schedules = small(Config(projector=(8, 8))).schedules()
    for group, base in (("weights", 0.2), ("biases", 0.0048 / 32)):
        expected = reference.barlow_twins_learning_rates(base * 8, 1000, 10)
        found = [schedules[group]["lr"](update) for update in range(1000)]
        assert np.allclose(found, expected, rtol=1e-12, atol=0)
    assert schedules["weights"]["weight_decay"](500) == pytest.approx(32 * 1e-6)
    assert "weight_decay" not in schedules["biases"]


def test_learning_rates_equal_those_of_vissl() -> None:
    """Composite of a rescaled linear and a fixed cosine part, in terms of the share of the run."""
    config = dataclasses.replace(PRESETS["vissl"], projector=(8, 8))
    schedules = small(config).schedules()
    for group, divisor in (("weights", 1), ("biases", 32)):
        for update in range(1000):
            where = update / 1000
            if where + 1e-6 > 0.01:
                expected = 0.016 + 0.5 * (1.6 - 0.016) * (1 + math.cos(math.pi * where))
            else:
                expected = 1.6 * (where / 0.01) + 0.4 * (1 - where / 0.01)
            assert schedules[group]["lr"](update) == pytest.approx(expected / divisor, rel=1e-9)


def test_the_notes_are_the_peaks_of_the_schedules() -> None:
    assert lr_notes(Config(), PLAN) == [
        "weights: 0.2 x 2048/256 = 1.6, with a weight decay of "
        "1e-06 x 32 processes of the published run = 3.2e-05",
        "biases and BatchNorm: 0.0048 x 2048/256 / 32 processes of the published run = 0.0012",
    ]
    assert lr_notes(Config(optimizer="adamw", lr_per_256=0.001), PLAN) == [
        "weights: 0.001 x 2048/256 = 0.008, with a weight decay of 1e-06",
        "biases and BatchNorm: 0.001 x 2048/256 = 0.008",
    ]
    for config in (*PRESETS.values(), Config(reference_world_size=1), Config(optimizer="adamw")):
        schedules = small(dataclasses.replace(config, projector=(8, 8))).schedules()
        notes = lr_notes(config, PLAN)
        for group, note in zip(("weights", "biases"), notes, strict=True):
            peak = max(schedules[group]["lr"](update) for update in range(1000))
            stated = note.partition(", with")[0].rpartition("= ")[2]
            assert float(stated) == pytest.approx(peak, rel=1e-3)


def test_vissl_scales_the_loss_and_not_its_parts() -> None:
    config = dataclasses.replace(PRESETS["vissl"], projector=(12, 24))
    loss = small(config)(list(tiles()), 0)
    unscaled = loss.parts["on_diagonal"] + 0.0051 * loss.parts["off_diagonal"]
    assert float(loss.total.detach()) == pytest.approx(0.024 * float(unscaled), rel=1e-12)


def test_joint_views_are_one_batch_to_the_network() -> None:
    config = Config(projector=(12, 24), joint_views=True)
    method, alone = small(config), small(config)
    method(list(tiles()), 0)
    alone.export_encoder().embed(torch.cat(tiles()))
    for name, value in alone.export_encoder().state_dict().items():
        assert torch.equal(value, method.export_encoder().state_dict()[name]), name


def test_presets_differ_where_the_sources_do() -> None:
    official, vissl, pathology = PRESETS.values()
    assert pathology == dataclasses.replace(official, views="pathology")
    differing = {
        field.name: getattr(vissl, field.name)
        for field in dataclasses.fields(Config)
        if getattr(vissl, field.name) != getattr(official, field.name)
    }
    assert differing == {
        "views": "vissl",
        "loss_scale": 0.024,
        "lr_biases_per_256": 0.2,
        "final_lr": 0.01,
        "warmup_from": 0.25,
        "cosine_from_start": True,
        "zero_init_last": False,
        "bn_ranks": 8,
        "joint_views": True,
    }


@pytest.mark.parametrize("is_zero", [True, False])
def test_residual_branches_start_at_zero_or_at_one(is_zero: bool) -> None:
    encoder = build_encoder("resnet18", input_px=32, **encoder_args("resnet18"))
    last = [m.weight for n, m in encoder.model.named_modules() if n.endswith("bn2")]
    kept = torch.full_like(last[0], 0.3)
    last[0].data.copy_(kept)  # as if it were trained
    build(Config(projector=(8, 8), zero_init_last=is_zero), encoder, PLAN)
    assert len(last) == 8 and torch.equal(last[0], kept)
    assert all(bool((weight == (0 if is_zero else 1)).all()) for weight in last[1:])
    assert encoder_args("vit_small_patch16") == {}


def test_only_vectors_are_neither_decayed_nor_adapted() -> None:
    groups = {group["name"]: group for group in small(Config(projector=(8, 8))).param_groups()}
    assert groups["weights"]["adapt"] and not groups["biases"]["adapt"]
    assert {p.ndim for p in groups["biases"]["params"]} == {1}
    assert 1 not in {p.ndim for p in groups["weights"]["params"]}


def test_the_projector_is_the_papers(reference: ModuleType) -> None:
    projector = small(Config(projector=(16, 12, 8))).get_submodule("projector")
    assert isinstance(projector, nn.Sequential)
    kinds = [type(m).__name__ for m in projector]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert Config().projector == (8192, 8192, 8192)
    generator = torch.Generator().manual_seed(0)
    parameters = {}
    for name, parameter in projector.named_parameters():
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        parameters[name] = parameter.detach().numpy()
    assert not any("bias" in name for name in parameters if name[0] in "036")
    x = torch.randn(7, parameters["0.weight"].shape[1], generator=generator, dtype=torch.float64)
    expected = x.numpy()
    for linear, norm in (("0", "1"), ("3", "4")):
        normal = reference.standardise(expected @ parameters[f"{linear}.weight"].T)
        scaled = normal * parameters[f"{norm}.weight"] + parameters[f"{norm}.bias"]
        expected = np.maximum(scaled, 0)
    expected = expected @ parameters["6.weight"].T
    np.testing.assert_allclose(projector(x).detach().numpy(), expected, rtol=1e-9, atol=1e-9)


def test_views_are_the_official_two() -> None:
    first, second = views(Config()).specs
    assert (first.blur_p, first.solarize_p) == (1.0, 0.0)
    assert (second.blur_p, second.solarize_p) == (0.1, 0.2)
    for spec in (first, second):
        assert spec.size_px == 224 and spec.scale == (0.08, 1.0)
        assert spec.interpolation == "bicubic"
        assert spec.jitter == (0.4, 0.4, 0.2, 0.1) and spec.jitter_p == 0.8
        assert spec.grayscale_p == 0.2 and spec.hflip_p == 0.5 and spec.vflip_p == 0.0


def test_micro_batches_are_refused() -> None:
    plan = dataclasses.replace(PLAN, micro_batches=2)
    with pytest.raises(UsageError, match="Barlow Twins cannot accumulate"):
        small(Config(projector=(8, 8)), plan)


@pytest.mark.parametrize(
    "settings",
    [
        {"projector": ()},
        {"warmup": 1.0},
        {"warmup_from": -0.1},
        {"reference_world_size": 0},
        {"bn_ranks": -1},
        {"loss_scale": 0.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_without_sense_are_refused(settings: dict[str, object]) -> None:
    (name,) = settings
    with pytest.raises(UsageError, match=f"--method.{name.replace('_', '-')} is"):
        Config(**settings)  # pyright: ignore[reportArgumentType]
