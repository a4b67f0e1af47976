"""SwAV against its float64 references, and at several processes against itself at one."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from eosin.encoders import build_encoder
from eosin.engine import distributed
from eosin.engine.optimizers import build_optimizer
from eosin.errors import UsageError
from eosin.methods import swav
from eosin.methods._base import Plan
from eosin.methods._swapped_prediction import describe_codes, swav_loss
from eosin.methods.swav import Config, SwAV
from tests import reference_swav as reference
from tests.ranks import run_on_ranks
from tests.reference import numerical_gradient

BATCH = 8
ENCODER = "timm/test_resnet"  # a small one
SMALL: dict[str, Any] = {
    "global_px": 32,
    "local_px": 16,
    "local_crops": 2,
    "hidden_dim": 16,
    "dim": 8,
    "prototypes": 12,
    "lr_per_256": 20.0,
    "warmup": 0.0,
}


def build(**settings: Any) -> SwAV:
    """A float64 SwAV whose run has 20 updates."""
    torch.manual_seed(0)
    encoder = build_encoder(ENCODER, input_px=32, **swav.encoder_args(ENCODER))
    plan = Plan(batch_size=BATCH, updates=20, updates_per_epoch=4)
    return swav.build(Config(**{**SMALL, **settings}), encoder, plan).double().train()


def crops(update: int) -> list[Tensor]:
    """Crops of an update, of this process's share of the tiles."""
    generator = torch.Generator().manual_seed(update)
    whole = [
        torch.randn(BATCH, 3, px, px, dtype=torch.float64, generator=generator)
        for px in (32, 32, 16, 16)
    ]
    return [crop.chunk(distributed.world_size())[distributed.rank()] for crop in whole]


def train(method: SwAV, optimizer: torch.optim.Optimizer, updates: range) -> list[dict]:
    """Updates in the loop's order; gives each update's gradients, mean over the processes."""
    history = []
    for at in updates:
        for group in optimizer.param_groups:
            for setting, schedule in method.schedules()[group["name"]].items():
                group[setting] = schedule(at)
        views = crops(at)
        method.before_forward([views], at)
        loss = method(views, at)
        optimizer.zero_grad()
        loss.total.backward()
        for parameter in method.parameters():
            assert parameter.grad is not None
            parameter.grad = distributed.all_reduce(parameter.grad) / distributed.world_size()
        found = {
            name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None
        }
        total = distributed.all_reduce(loss.total.detach()) / distributed.world_size()
        history.append({**found, "loss": total, "used": loss.parts["prototypes_used"]})
        method.on_gradients(at)
        optimizer.step()
        method.after_update(at)
    return history


def optimizer_of(method: SwAV) -> torch.optim.Optimizer:
    return build_optimizer(method.config.optimizer, method.param_groups())


# Several processes


def run() -> list[tuple[list[dict], dict[str, Tensor]]]:
    """Updates without and with a queue, which the last update uses."""
    queue = {"queue_length": 2 * BATCH, "queue_start": 0.0, "bn_ranks": 8}
    runs = []
    for updates, settings in ((2, {}), (3, queue)):
        method = build(freeze_prototypes=1, **settings)
        history = train(method, optimizer_of(method), range(updates))
        runs.append((history, method.state_dict()))
    return runs


@pytest.fixture(scope="module")
def of_one_process() -> list[tuple[list[dict], dict[str, Tensor]]]:
    return run()


@pytest.mark.parametrize("world_size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_processes_trains_alike(
    world_size: int, tmp_path: Path, of_one_process: list[tuple[list[dict], dict[str, Tensor]]]
) -> None:
    for runs in run_on_ranks(world_size, run, tmp_path):
        for (history, state), (whole_history, whole_state) in zip(
            runs, of_one_process, strict=True
        ):
            for found, whole in zip([*history, state], [*whole_history, whole_state], strict=True):
                assert found.keys() == whole.keys()
                for name, value in whole.items():
                    error = (found[name] - value).double().norm()
                    assert error <= 1e-8 * value.double().norm() + 1e-15, name


def refusal() -> str:
    encoder = build_encoder(ENCODER, input_px=32)
    try:
        plan = Plan(batch_size=9, updates=4, updates_per_epoch=4)
        swav.build(Config(**SMALL, queue_length=9), encoder, plan)
    except UsageError as error:
        return str(error)
    return ""


def test_a_queue_that_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    assert all("multiple of the 2 processes" in text for text in run_on_ranks(2, refusal, tmp_path))


# Head, codes, queue and loss of the method as a whole


@contextmanager
def watched(method: SwAV) -> Iterator[SimpleNamespace]:
    """What the projector gets and what the prototypes get and give, at the last forward pass."""
    seen = SimpleNamespace(embeddings=None, projections=None, scores=None)

    def of_projector(_: Any, inputs: tuple[Tensor], __: Tensor) -> None:
        seen.embeddings = inputs[0].detach().numpy()

    def of_prototypes(_: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        if len(inputs[0]) == 4 * BATCH and inputs[0].ndim == 2:
            seen.projections = inputs[0].detach().numpy()
            seen.scores = output.detach().numpy()

    handles = [
        method.projector.register_forward_hook(of_projector),
        method.prototypes.register_forward_hook(of_prototypes),
    ]
    yield seen
    for handle in handles:
        handle.remove()


def test_the_head_equals_the_reference() -> None:
    method = build()
    method.before_forward([], 0)
    with watched(method) as seen:
        method(crops(0), 0)
    first, norm, _, second = (
        [p.detach().numpy() for p in layer.parameters()] for layer in method.projector
    )
    prototypes = method.prototypes.weight.detach().numpy()
    z, scores = reference.swav_head(seen.embeddings, first, norm, second, prototypes)
    np.testing.assert_allclose(seen.projections, z, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(seen.scores, scores, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(prototypes, axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize(
    ("processes", "queue_length"), [(1, 0), (1, BATCH), (1, 3 * BATCH), (2, 3 * BATCH), (4, BATCH)]
)
def test_losses_equal_those_of_the_official_queues(processes: int, queue_length: int) -> None:
    """The start of the queue, its filling, its use and the forgetting of the oldest tiles."""
    method = build(queue_length=queue_length, queue_start=0.1, freeze_prototypes=1)
    start = 2 if queue_length else 100
    official = reference.Queues(processes, max(queue_length, processes), 8, start)
    optimizer = optimizer_of(method)
    with watched(method) as seen:
        for at in range(8):
            [found] = train_one(method, optimizer, at)
            projections = seen.projections.reshape(4, BATCH, -1)
            codes = official.codes(projections[:2], found["prototypes"], at)
            expected = reference.swav_loss(seen.scores.reshape(4, BATCH, -1), codes)
            assert found["loss"] == pytest.approx(expected, rel=1e-9), at


def train_one(method: SwAV, optimizer: torch.optim.Optimizer, at: int) -> list[dict]:
    method.before_forward([], at)  # a second time changes no more than the last bit
    prototypes = method.prototypes.weight.detach().numpy().copy()
    [found] = train(method, optimizer, range(at, at + 1))
    return [{"loss": float(found["loss"]), "prototypes": prototypes}]


def test_the_queue_fills_from_its_start_and_is_used_when_full() -> None:
    method = build(queue_length=2 * BATCH, queue_start=0.1)
    assert method.queue is not None
    optimizer = optimizer_of(method)
    fills = []
    for at in range(6):
        fills.append(float(method(crops(at), at).parts["queue_fill"]))
        train(method, optimizer, range(at, at + 1))
        filled = method.queue.tiles.norm(dim=2)
        rows = BATCH * max(0, min(at - 1, 2))
        torch.testing.assert_close(filled[:, :rows], torch.ones(2, rows, dtype=torch.float64))
        assert not filled[:, rows:].any()
    assert fills == [0, 0, 0, 0.5, 1, 1]


def test_a_skipped_update_adds_nothing_to_the_queue() -> None:
    method = build(queue_length=2 * BATCH, queue_start=0.0)
    assert method.queue is not None
    optimizer = optimizer_of(method)
    train(method, optimizer, range(1))
    method(crops(1), 1)  # whose loss was not finite, say: `after_update` is not called
    train(method, optimizer, range(2, 3))
    assert float(method(crops(3), 3).parts["queue_fill"]) == 1
    assert method.queue.tiles.norm(dim=2).min() > 0.99


def test_the_queue_and_all_else_survive_a_checkpoint() -> None:
    settings = {"queue_length": 2 * BATCH, "queue_start": 0.0}
    method = build(**settings)
    optimizer = optimizer_of(method)
    train(method, optimizer, range(3))
    other = build(**settings)
    with torch.no_grad():
        other.prototypes.weight.add_(1)
    other.load_state_dict(copy.deepcopy(method.state_dict()))
    other_optimizer = optimizer_of(other)
    other_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    expected = train(method, optimizer, range(3, 5))
    found = train(other, other_optimizer, range(3, 5))
    assert [run["loss"] for run in found] == [run["loss"] for run in expected]
    for name, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_prototypes_are_held_still_until_the_update_that_is_named() -> None:
    method = build(freeze_prototypes=2)
    weight = method.prototypes.weight
    optimizer = optimizer_of(method)
    for at in range(4):
        method.before_forward([], at)
        method.before_forward([], at)
        before = weight.detach().clone()
        method.before_forward([], at)
        train(method, optimizer, range(at, at + 1))
        assert torch.allclose(before, weight, rtol=0, atol=1e-15) == (at < 2)
        assert (weight in optimizer.state) == (at >= 2)


def test_with_codes_that_are_held_the_loss_falls_as_its_gradient_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Codes have no gradient though they move with the network, so they are given here."""
    method = build()
    codes = torch.softmax(torch.randn(2, BATCH, 12, dtype=torch.float64) * 3, -1)
    monkeypatch.setattr(swav, "sinkhorn", lambda scores, **settings: codes)
    method.before_forward([], 0)
    before = method(crops(0), 0).total
    parameters = list(method.parameters())
    gradients = torch.autograd.grad(before, parameters)
    length = sum(float(g.square().sum()) for g in gradients) ** 0.5
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter -= 1e-6 * gradient / length
    fallen = (before - method(crops(0), 0).total).item()
    assert fallen == pytest.approx(1e-6 * length, rel=1e-3)


# The loss on its own


@pytest.mark.parametrize("views", [2, 3, 8])
def test_loss_and_gradient_equal_the_reference(views: int) -> None:
    rng = np.random.default_rng(views)
    scores = rng.uniform(-1, 1, (views, 5, 7))
    codes = np.stack([reference.sinkhorn_knopp(s) for s in scores[:2]])
    tensor = torch.tensor(scores, requires_grad=True)
    loss = swav_loss(tensor, torch.tensor(codes), 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(reference.swav_loss(scores, codes), rel=1e-12)
    assert tensor.grad is not None
    expected = reference.swav_loss_gradient(scores, codes)
    np.testing.assert_allclose(tensor.grad.numpy(), expected, rtol=1e-9, atol=1e-12)


def test_the_reference_of_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    scores, codes = rng.uniform(-1, 1, (3, 2, 4)), rng.dirichlet(np.ones(4), (2, 2))
    expected = numerical_gradient(lambda s: reference.swav_loss(s, codes), scores)
    found = reference.swav_loss_gradient(scores, codes)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_collapsed_encoder_has_the_loss_of_chance() -> None:
    method = build()
    scores = torch.full((4, BATCH, 12), 0.3)
    codes = swav.sinkhorn(scores[:2], epsilon=0.05, iterations=3)
    chance = method.chance_loss()
    assert swav_loss(scores, codes, 0.1).item() == pytest.approx(chance, rel=1e-6)
    assert describe_codes(codes)["code_entropy"].item() == pytest.approx(math.log(12), rel=1e-6)
    assert describe_codes(codes)["prototypes_used"] == 1


def test_prototypes_that_codes_prefer_are_counted() -> None:
    codes = torch.eye(5)[torch.tensor([[0, 1, 1], [3, 0, 0]])]
    assert describe_codes(codes)["prototypes_used"] == 3
    assert describe_codes(codes)["code_entropy"] == 0


# Schedules and settings


def rates(config: Config, plan: Plan) -> np.ndarray:
    return np.array([swav.learning_rate(config, plan)(at) for at in range(plan.updates)])


def test_learning_rates_equal_the_official_scripts() -> None:
    plan = Plan(batch_size=4096, updates=800 * 6, updates_per_epoch=6)
    expected = reference.learning_rates(4.8, 0.0048, 0.3, 4800, 60)
    np.testing.assert_allclose(rates(Config(), plan), expected, rtol=1e-9)
    assert expected[[0, 59, 60]] == pytest.approx([0.3, 4.8, 4.8])
    plan = Plan(batch_size=256, updates=2000, updates_per_epoch=10)
    expected = reference.learning_rates(0.6, 0.0006, 0.0, 2000, 0)
    np.testing.assert_allclose(rates(Config(lr_per_256=0.6, warmup=0), plan), expected, rtol=1e-9)


def test_learning_rates_of_the_vissl_preset_equal_its_schedule() -> None:
    plan = Plan(batch_size=4096, updates=400 * 6, updates_per_epoch=6)
    expected = reference.vissl_learning_rates(4.8, 0.0048, 0.6, 2400, 60)
    np.testing.assert_allclose(rates(swav.PRESETS["vissl"], plan), expected, rtol=1e-9)


def test_weight_decay_is_constant_and_of_all_parameters() -> None:
    method = build()
    [group] = method.param_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in method.parameters()}
    assert [method.schedules()["all"]["weight_decay"](at) for at in (0, 19)] == [1e-6, 1e-6]


@pytest.mark.parametrize(
    ("settings", "batch", "updates", "expected"),
    [
        ({}, 4096, 800 * 312, 313),
        ({}, 256, 200 * 5004, 5005),
        ({}, 256, 1000, 10),
        ({}, 256, 99, 0),
        ({"freeze_prototypes": 7}, 256, 99, 7),
        ({"freeze_prototypes": 0}, 256, 200 * 5004, 0),
    ],
)
def test_prototypes_are_frozen_for_a_pass_of_imagenet(
    settings: dict, batch: int, updates: int, expected: int
) -> None:
    plan = Plan(batch_size=batch, updates=updates, updates_per_epoch=312)
    assert swav.frozen_updates(Config(**settings), plan) == expected


def test_views_follow_the_settings() -> None:
    assert swav.views(Config()).sizes == (224, 224, *[96] * 6)
    changed = swav.views(
        Config(local_crops=1, local_px=48, global_scale=(0.5, 1.0), local_scale=(0.1, 0.2))
    )
    assert changed.sizes == (224, 224, 48)
    assert [spec.scale for spec in changed.specs] == [(0.5, 1.0), (0.5, 1.0), (0.1, 0.2)]
    assert swav.views(Config(local_crops=0)).sizes == (224, 224)


@pytest.mark.parametrize(
    "settings",
    [
        {"queue_start": 1.5},
        {"warmup": -0.1},
        {"local_crops": -1},
        {"freeze_prototypes": -1},
        {"queue_length": -8},
        {"bn_ranks": -1},
        {"epsilon": 0.0},
        {"temperature": -1.0},
        {"sinkhorn_iterations": 0},
        {"dim": 0},
        {"prototypes": 1},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict) -> None:
    [name] = settings
    with pytest.raises(UsageError, match=f"--method.{name.replace('_', '-')} is"):
        Config(**settings)


def test_queues_of_parts_of_batches_and_accumulation_are_refused() -> None:
    with pytest.raises(UsageError, match="queue-length is 12; it must be a multiple of the 8"):
        build(queue_length=12)
    plan = Plan(batch_size=8, micro_batches=2, updates=4, updates_per_epoch=4)
    with pytest.raises(UsageError, match="SwAV cannot accumulate"):
        swav.build(Config(), build_encoder(ENCODER, input_px=32), plan)
