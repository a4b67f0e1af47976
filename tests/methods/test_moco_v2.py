"""MoCo v2 against an independent float64 reference, and its settings against the official code."""

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eosin.encoders import Encoder, EncoderCard, build_encoder
from eosin.engine import distributed
from eosin.engine.optimizers import build_optimizer
from eosin.errors import UsageError
from eosin.methods._base import Plan
from eosin.methods.moco_v2 import PRESETS, Config, MoCoV2, encoder_args, views
from tests import reference_moco
from tests.ranks import run_on_ranks

BATCH_SIZE = 16
SMALL = Config(view_px=32, dim=8, queue=48, key_momentum=0.9)


def plan(**changes: int) -> Plan:
    return Plan(**{"batch_size": BATCH_SIZE, "updates": 12, "updates_per_epoch": 3} | changes)


def linear_encoder() -> Encoder:
    """Pixels times a matrix: an encoder without BatchNorm."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 6, bias=False))
    model.num_features = 6
    return Encoder(model, EncoderCard(name="linear", architecture="linear"))


def build(config: Config = SMALL, *, kind: str = "timm/test_resnet", **changes: int) -> MoCoV2:
    torch.manual_seed(0)
    encoder = linear_encoder() if kind == "linear" else build_encoder(kind, input_px=32)
    return MoCoV2(config, encoder, plan(**changes)).double().train()


def images(update: int, px: int = 32) -> list[Tensor]:
    """Both views of all tiles of an update."""
    generator = torch.Generator().manual_seed(100 + update)
    shape = (BATCH_SIZE, 3, px, px)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2)]


def set_schedules(method: MoCoV2, optimizer: torch.optim.Optimizer, update: int) -> None:
    for group in optimizer.param_groups:
        for setting, schedule in method.schedules()[group["name"]].items():
            group[setting] = schedule(update)


def train(method: MoCoV2, updates: range, px: int = 32, micro_batches: int = 1) -> dict[str, Any]:
    """Trains on this process's share of each update; gives losses, gradients and the state."""
    optimizer = build_optimizer(method.config.optimizer, method.param_groups())
    found: dict[str, Any] = {}
    for update in updates:
        set_schedules(method, optimizer, update)
        share = [v.chunk(distributed.world_size())[distributed.rank()] for v in images(update, px)]
        batch = list(zip(*(view.chunk(micro_batches) for view in share), strict=True))
        method.before_forward(batch, update)
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for micro, pair in enumerate(batch):
            loss = method(pair, update, micro).total / micro_batches
            loss.backward()
            total += loss.detach()
        for name, parameter in method.named_parameters():
            if parameter.grad is not None:
                mean = distributed.all_reduce(parameter.grad) / distributed.world_size()
                parameter.grad = mean
                found[f"{update} gradient of {name}"] = mean.clone()
        found[f"{update} loss"] = distributed.all_reduce(total) / distributed.world_size()
        optimizer.step()
        method.after_update(update)
    return found | {name: value.clone() for name, value in method.state_dict().items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], *, buffers: bool) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Each process has running statistics of its own; nothing is computed from them.
        if buffers or not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            difference = (found[name] - value).double().norm()
            assert difference <= 1e-8 * value.double().norm() + 1e-14, name


# The whole method in NumPy


def arrays(*modules: nn.Module) -> list[np.ndarray]:
    return [p.detach().numpy().copy() for module in modules for p in module.parameters()]


@pytest.mark.parametrize("preset", ["official", "vissl"])
def test_ten_updates_equal_the_reference(preset: str) -> None:
    config = dataclasses.replace(SMALL, nesterov=PRESETS[preset].nesterov, lr_per_256=3.0)
    config = dataclasses.replace(config, lr_schedule=PRESETS[preset].lr_schedule)
    method = build(config, kind="linear")
    query, key = (
        arrays(method.encoder, method.head),
        arrays(method.key_encoder, method.key_head),
    )
    queue, pointer = method.queue.numpy().copy(), 0
    buffers = [np.zeros_like(weight) for weight in query]
    peak = 3.0 * BATCH_SIZE / 256
    by_epoch = {
        "official": reference_moco.cosine_by_epoch(peak, 4),
        "vissl": reference_moco.steps_by_epoch(peak, 4, (2, 3)),
    }[preset]
    found = train(method, range(10), px=4)
    for update in range(10):
        key = reference_moco.momentum_update(key, query, 0.9)
        first, second = (view.flatten(1).numpy() for view in images(update, 4))
        keys = reference_moco.directions(reference_moco.head(second @ key[0].T, key[1:]))
        embeddings = first @ query[0].T
        projections = reference_moco.head(embeddings, query[1:])
        queries = reference_moco.directions(projections)
        loss = reference_moco.info_nce(queries, keys, queue, 0.2)
        assert float(found[f"{update} loss"]) == pytest.approx(loss, rel=1e-10)
        by_queries = reference_moco.info_nce_gradient(queries, keys, queue, 0.2)
        by_projections = reference_moco.through_directions(projections, by_queries)
        by_head, by_embeddings = reference_moco.head_gradient(embeddings, query[1:], by_projections)
        gradients = [by_embeddings.T @ first, *by_head]
        updated = [
            reference_moco.sgd_update(*triple, by_epoch[update // 3], nesterov=config.nesterov)
            for triple in zip(query, gradients, buffers, strict=True)
        ]
        query, buffers = [weight for weight, _ in updated], [buffer for _, buffer in updated]
        queue, pointer = reference_moco.enqueue(queue, pointer, keys)
    expected = [*query, *key, queue]
    ours = arrays(method.encoder, method.head, method.key_encoder, method.key_head)
    for one, other in zip([*ours, method.queue.numpy()], expected, strict=True):
        assert np.linalg.norm(one - other) < 1e-9 * np.linalg.norm(other)
    assert int(method.enqueued) % 48 == pointer == 160 % 48


# Processes, micro-batches and parts


def of_ranks(kind: str, bn_splits: int, micro_batches: int) -> dict[str, Any]:
    config = dataclasses.replace(SMALL, bn_splits=bn_splits)
    method = build(config, kind=kind, micro_batches=micro_batches)
    return train(method, range(3), px=4 if kind == "linear" else 32, micro_batches=micro_batches)


@pytest.mark.parametrize(
    ("world_size", "kind"),
    [(2, "resnet10t"), pytest.param(4, "timm/test_resnet", marks=pytest.mark.slow)],
)
def test_processes_equal_one_that_splits_its_batch(
    world_size: int, kind: str, tmp_path: Path
) -> None:
    expected = of_ranks(kind, world_size, 1)
    for found in run_on_ranks(world_size, of_ranks, tmp_path, kind, 1, 1):
        assert_equal(found, expected, buffers=False)


def test_processes_that_split_and_accumulate_equal_one(tmp_path: Path) -> None:
    expected = of_ranks("timm/test_resnet", 4, 1)
    for case in ((1, 2), (2, 1)):
        for found in run_on_ranks(2, of_ranks, tmp_path / str(case), "timm/test_resnet", *case):
            assert_equal(found, expected, buffers=False)


@pytest.mark.parametrize("parts", [2, 4])
def test_micro_batches_equal_one_batch_that_is_split(parts: int) -> None:
    accumulated, split = (of_ranks("timm/test_resnet", *case) for case in ((1, parts), (parts, 1)))
    assert_equal(accumulated, split, buffers=True)


def test_without_batch_norm_processes_and_micro_batches_change_nothing(tmp_path: Path) -> None:
    expected = of_ranks("linear", 1, 1)
    for found in run_on_ranks(2, of_ranks, tmp_path, "linear", 1, 2):
        assert_equal(found, expected, buffers=True)


def test_parts_change_the_result() -> None:
    """What the tests above compare does depend on who is normalised with whom."""
    whole, split = (of_ranks("timm/test_resnet", parts, 1) for parts in (1, 2))
    assert not torch.allclose(whole["queue"], split["queue"], rtol=1e-3)


def seen_by_the_key_encoder(method: MoCoV2, update: int) -> tuple[list[int], Tensor]:
    """In which order the key encoder gets the tiles of an update, and what it makes of each."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = method.key_encoder.model.register_forward_hook(
        lambda _, inputs, output: seen.append((inputs[0], output))
    )
    batch = images(update)
    method.before_forward([batch], update)
    hook.remove()
    got, made = (torch.cat(tensors) for tensors in zip(*seen, strict=True))
    places = [int((batch[1] == image).flatten(1).all(1).nonzero()) for image in got]
    return places, made


def test_keys_are_computed_in_another_order_and_put_back() -> None:
    method = build(dataclasses.replace(SMALL, bn_splits=2))
    orders = []
    for update in range(3):
        order, made = seen_by_the_key_encoder(method, update)
        assert sorted(order) == list(range(BATCH_SIZE))
        assert any(place >= BATCH_SIZE // 2 for place in order[: BATCH_SIZE // 2])
        keys = nn.functional.normalize(method.key_head(made), dim=1)
        method.after_update(update)
        start = update * BATCH_SIZE
        torch.testing.assert_close(method.queue[start:][order], keys, rtol=1e-12, atol=0)
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]
    assert seen_by_the_key_encoder(method, 1)[0] == orders[1]


def test_one_part_keeps_its_order() -> None:
    assert seen_by_the_key_encoder(build(), 0)[0] == list(range(BATCH_SIZE))


# Queue and key encoder


def test_the_queue_takes_the_newest_keys_for_the_oldest() -> None:
    method = build()
    first = method.queue.clone()
    taken = []
    for update in range(4):
        batch = images(update)
        method.before_forward([batch], update)
        loss = method(batch, update)
        assert float(loss.parts["queue_fill"]) == pytest.approx(min(update / 3, 1))
        method.after_update(update)
        places = [(update * BATCH_SIZE + i) % 48 for i in range(BATCH_SIZE)]
        taken.append(method.queue[places])
    assert torch.equal(method.queue, torch.cat([taken[3], taken[1], taken[2]]))
    assert not any(bool((first == row).all(1).any()) for row in method.queue)
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(48, dtype=torch.float64))


def test_the_queue_starts_with_random_directions() -> None:
    torch.manual_seed(3)
    method = MoCoV2(Config(queue=4096), linear_encoder(), plan(batch_size=256))
    torch.testing.assert_close(method.queue.norm(dim=1), torch.ones(4096))
    assert float(method.queue.mean(0).norm()) < 0.05
    similarities = method.queue @ method.queue.T - torch.eye(4096)
    assert float(similarities.square().mean()) == pytest.approx(1 / 128, rel=0.02)


def test_the_key_encoder_moves_before_the_keys_and_nowhere_else() -> None:
    method = build(kind="linear")
    modules = method.key_encoder, method.key_head
    batch = images(0, 4)
    method.before_forward([batch], 0)
    # At first both are equal, and remain so: VISSL need not move it there.
    query = arrays(method.encoder, method.head)
    assert all(map(np.array_equal, arrays(*modules), query))
    with torch.no_grad():
        for parameter in (*method.encoder.parameters(), *method.head.parameters()):
            parameter += 1
    before = arrays(*modules)
    method(batch, 0).total.backward()
    method.after_update(0)
    assert all(map(np.array_equal, arrays(*modules), before))
    method.before_forward([batch], 1)
    query = arrays(method.encoder, method.head)
    expected = reference_moco.momentum_update(before, query, 0.9)
    assert all(map(np.allclose, arrays(*modules), expected))
    method.after_update(1)
    keys = reference_moco.head(batch[1].flatten(1).numpy() @ expected[0].T, expected[1:])
    assert np.allclose(method.queue[16:32].numpy(), reference_moco.directions(keys))


def test_only_the_query_encoder_is_trained_and_exported() -> None:
    method = build()
    assert method.export_encoder() is method.encoder
    trained = {id(p) for p in (*method.encoder.parameters(), *method.head.parameters())}
    (group,) = method.param_groups()
    assert {id(p) for p in group["params"]} == trained and group["name"] == "all"
    batch = images(0)
    method.before_forward([batch], 0)
    method(batch, 0).total.backward()
    assert all((p.grad is not None) == (id(p) in trained) for p in method.parameters())


def test_running_statistics_are_not_averaged() -> None:
    method = build()
    for _, buffer in method.encoder.named_buffers():
        buffer += 5
    keys_own = {name: b.clone() for name, b in method.key_encoder.named_buffers()}
    # In evaluation mode, so that the keys' forward pass does not move them either.
    method.eval()
    method.before_forward([images(0)], 0)
    assert all(torch.equal(b, keys_own[name]) for name, b in method.key_encoder.named_buffers())


def test_a_run_that_goes_on_from_its_state_is_the_same_bit_by_bit() -> None:
    config = dataclasses.replace(SMALL, bn_splits=2, optimizer="sgd", lr_per_256=0.3)
    method = build(config)
    train(method, range(2))
    other = build(config)
    state = copy.deepcopy(method.state_dict())
    assert {"queue", "enqueued"} <= state.keys()
    assert torch.equal(state["enqueued"], torch.tensor(32)) and state["queue"].shape == (48, 8)
    other.load_state_dict(state)
    torch.manual_seed(1)
    expected = train(method, range(2, 4))
    torch.manual_seed(2)
    found = train(other, range(2, 4))
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_collapsed_model_has_the_loss_of_chance() -> None:
    method = build(kind="linear")
    with torch.no_grad():
        for head in (method.head, method.key_head):
            head[2].weight.zero_()
    for update in range(4):
        batch = images(update, 4)
        method.before_forward([batch], update)
        loss = method(batch, update)
        method.after_update(update)
    assert float(loss.total.detach()) == pytest.approx(method.chance_loss(), rel=1e-12)
    assert Config().queue == 65536 and method.chance_loss() == pytest.approx(math.log(49))


# Settings


def test_the_head_is_the_official_one() -> None:
    encoder = build_encoder("resnet50", input_px=32, **encoder_args("resnet50"))
    method = MoCoV2(Config(), encoder, plan(batch_size=256))
    for head in (method.head, method.key_head):
        first, relu, last = head
        assert isinstance(relu, nn.ReLU)
        assert first.weight.shape == (2048, 2048) and last.weight.shape == (128, 2048)
        assert first.bias is not None and last.bias is not None


def test_no_residual_branch_starts_at_zero() -> None:
    encoder = build_encoder("resnet18", input_px=32, **encoder_args("resnet18"))
    blocks = [m for name, m in encoder.model.named_modules() if name.endswith("bn2")]
    assert len(blocks) == 8 and all(bool((m.weight == 1).all()) for m in blocks)
    assert encoder_args("vit_small_patch16") == {}


LONG = {"batch_size": 512, "updates": 1000, "updates_per_epoch": 5}  # 200 epochs


def rates(config: Config, **changes: int) -> list[float]:
    made = plan(**changes)
    lr = MoCoV2(config, linear_encoder(), made).schedules()["all"]["lr"]
    return [lr(update) for update in range(made.updates)]


def test_learning_rates_equal_the_official_and_vissls() -> None:
    for preset, by_epoch in (
        ("official", reference_moco.cosine_by_epoch(0.06, 200)),
        ("vissl", reference_moco.steps_by_epoch(0.06, 200)),
    ):
        found = rates(PRESETS[preset], **LONG)
        assert np.allclose(found, np.repeat(by_epoch, 5), rtol=1e-12, atol=0), preset
        decay = MoCoV2(Config(), linear_encoder(), plan(**LONG)).schedules()["all"]["weight_decay"]
        assert decay(0) == decay(999) == 1e-4


def test_an_unfinished_last_epoch_counts_as_one() -> None:
    found = rates(Config(), batch_size=256, updates=11, updates_per_epoch=4)
    expected = reference_moco.cosine_by_epoch(0.03, 3)
    assert np.allclose(found, np.repeat(expected, 4)[:11], rtol=1e-12)


def test_learning_rates_by_update() -> None:
    cosine = rates(Config(lr_per="update"), **LONG)
    assert np.allclose(cosine, reference_moco.cosine_by_epoch(0.06, 1000), rtol=1e-12, atol=0)
    steps = rates(Config(lr_per="update", lr_schedule="steps", lr_steps=(0.5,)), **LONG)
    assert steps == [0.06] * 500 + [pytest.approx(0.006)] * 500
    warm = rates(Config(lr_per="update", warmup=0.1), **LONG)
    assert np.allclose(warm[:101], np.linspace(0, 0.06, 101))
    assert np.allclose(warm[100:], reference_moco.cosine_by_epoch(0.06, 900), rtol=1e-12)


def test_presets_differ_from_the_official_settings_as_vissl_does() -> None:
    differing = {
        field.name
        for field in dataclasses.fields(Config)
        if getattr(PRESETS["vissl"], field.name) != getattr(Config(), field.name)
    }
    assert differing == {"views", "nesterov", "lr_schedule"}
    assert PRESETS["pathology"] == Config(views="pathology")
    assert "nesterov" not in build(Config(optimizer="adamw", queue=48)).param_groups()[0]


def test_views_are_the_official_two() -> None:
    first, second = views(Config()).specs
    assert first == second and first.size_px == 224 and first.scale == (0.2, 1.0)
    assert first.interpolation == "bilinear" and first.blur_p == 0.5 and first.hflip_p == 0.5
    assert first.jitter == (0.4, 0.4, 0.4, 0.1) and first.grayscale_p == 0.2
    assert views(PRESETS["vissl"]).specs[0].scale == (0.08, 1.0)
    changed = views(Config(view_px=96, scale=(0.5, 1.0))).specs
    assert all((spec.size_px, spec.scale) == (96, (0.5, 1.0)) for spec in changed)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("queue", 0),
        ("dim", 0),
        ("bn_splits", 0),
        ("key_momentum", 1.0),
        ("warmup", -0.1),
        ("temperature", 0.0),
        ("warmup", 0.1),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--method.{setting.replace('_', '-')}"):
        Config(**{setting: value})


def test_a_queue_that_the_batch_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--method.queue 65536 .* --batch-size 96") as refused:
        build(Config(), batch_size=96)
    assert "--method.queue 65568 is." in str(refused.value) and 65568 % 96 == 0
    with pytest.raises(UsageError, match=r"--method.queue 16 is"):
        build(Config(queue=3))


def test_parts_that_do_not_divide_what_passes_at_once_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--method.bn-splits 3 .* 8 tiles"):
        build(dataclasses.replace(SMALL, bn_splits=3), micro_batches=2)
    assert run_on_ranks(2, _refused, tmp_path) == [True, True]


def _refused() -> bool:
    try:
        build(dataclasses.replace(SMALL, bn_splits=16))
    except UsageError as error:
        return "16 does not divide the 8 tiles" in str(error)
    return False
