"""Runs that really collapse are named with their mend, and a healthy one is left alone."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from eosin.encoders import build_encoder
from eosin.engine.optimizers import build_optimizer
from eosin.methods import barlow_twins, dino
from eosin.methods._base import Method, Plan
from eosin.pretrain.diagnosis import best_update, diagnose
from eosin.pretrain.monitor import CollapseMonitor, FixedTiles

OUTPUTS = 16


def tiny_dino(updates: int, **settings: Any) -> Method:
    encoder = build_encoder("timm/test_vit", input_px=32, seed=0)
    plan = Plan(batch_size=8, updates=updates, updates_per_epoch=updates)
    config = dino.Config(
        global_px=32,
        local_crops=0,
        out_dim=OUTPUTS,
        hidden_dim=32,
        bottleneck_dim=16,
        freeze_last_layer=0.0,
        lr_per_256=0.1,
        norm_last_layer=False,
        **settings,
    )
    torch.manual_seed(0)
    return dino.build(config, encoder, plan)


def tiny_barlow(updates: int) -> Method:
    encoder = build_encoder("timm/test_vit", input_px=32, seed=0)
    config = barlow_twins.Config(
        view_px=32, projector=(32, 32), optimizer="adamw", lr_per_256=0.01, warmup=0.1
    )
    torch.manual_seed(0)
    plan = Plan(batch_size=8, updates=updates, updates_per_epoch=updates)
    return barlow_twins.build(config, encoder, plan)


def patterns(seed: int, count: int = 8) -> Tensor:
    """Tiles of coarse noise, which differ."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return coarse.repeat_interleave(8, 2).repeat_interleave(8, 3)


def same_tiles(seed: int, count: int = 8) -> Tensor:
    """Tiles without anything in them."""
    return torch.full((count, 3, 32, 32), 200, dtype=torch.uint8)


def watch(method: Method, updates: int, tiles: Any = patterns) -> Iterator[str]:
    """Trains, and yields what the log up to each update says of it."""
    groups = method.param_groups()
    optimizer = build_optimizer("adamw", groups)
    encoder = method.export_encoder()
    fixed = tiles(1000, 24)
    monitor = CollapseMonitor(method, FixedTiles(whole=fixed, first=fixed, second=fixed), updates)
    for update in range(updates):
        images = encoder.normalise(tiles(update))
        views: Sequence[Tensor] = (images, images.flip(3))
        for group in optimizer.param_groups:
            for setting, schedule in method.schedules()[group["name"]].items():
                group[setting] = schedule(update)
        method.before_forward([views], update)
        loss = method(views, update)
        optimizer.zero_grad()
        loss.total.backward()
        method.on_gradients(update)
        optimizer.step()
        method.after_update(update)
        total = float(loss.total.detach())
        parts = {name: float(value) for name, value in loss.parts.items()}
        measured = monitor.measure(update + 1, total) if update % 5 == 4 else {}
        monitor.logged({"update": update + 1, "loss": total, **parts, **measured})
        yield monitor.diagnosis()


def test_a_healthy_run_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(watch(tiny_barlow(20), 20)) == {""}
    assert set(watch(tiny_dino(20), 20)) == {""}
    assert capsys.readouterr().err == ""


def test_tiles_without_content_collapse_the_embeddings(capsys: pytest.CaptureFixture[str]) -> None:
    said = list(watch(tiny_barlow(20), 20, same_tiles))
    assert "nearly the same embedding (spread 0.000 of 1)" in said[-1]
    assert "Lower the learning rate" in said[-1]
    assert said[:4] == [""] * 4  # the first fifth is not judged
    assert capsys.readouterr().err.count("Warning, update") == 1


def test_a_teacher_that_nothing_sharpens_becomes_uniform() -> None:
    said = list(watch(tiny_dino(40, teacher_temp=1.0, warmup_teacher_temp=1.0), 40, same_tiles))
    assert "the teacher's outputs are uniform" in said[-1]
    assert f"of at most {math.log(OUTPUTS):.3f}" in said[-1]
    assert "--method.teacher-temp" in said[-1]


def test_a_teacher_that_nothing_centres_gives_one_output() -> None:
    never_centred = tiny_dino(50, center_momentum=1.0)
    said = list(watch(never_centred, 50, same_tiles))
    assert "one output has all the probability" in said[-1]
    assert "--method.center-momentum" in said[-1]


def test_a_loss_at_the_logarithm_of_its_outputs_is_named() -> None:
    logits = torch.zeros(4, 4097)  # of a collapsed encoder with 4,096 negatives
    loss = float(torch.nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long)))
    lines = [{"update": update, "loss": loss} for update in (50, 60, 70)]
    said = diagnose(lines, updates=100, chance_loss=math.log(4097))
    assert "the loss stays at 8.318" in said and "Raise the learning rate" in said
    assert diagnose(lines[:2], updates=100, chance_loss=math.log(4097)) == ""  # too few
    lines[1]["loss"] = 0.99 * loss
    assert diagnose(lines, updates=100, chance_loss=math.log(4097)) == ""
    assert diagnose(lines, updates=100) == ""


def test_a_teacher_and_student_may_pass_the_logarithm_but_not_stay() -> None:
    chance = math.log(4096)
    lines = [
        {"update": update, "loss": chance, "teacher_entropy": 7.0, "divergence": chance - 7}
        for update in (30, 40, 50, 60)
    ]
    lines.insert(2, {"update": 45, "skipped": 1.0})
    assert "the loss stays at" in diagnose(lines, updates=100, chance_loss=chance)
    lines[0]["loss"] = 0.99 * chance
    assert diagnose(lines, updates=100, chance_loss=chance) == ""


def test_an_encoder_that_loses_its_dimensions_is_named() -> None:
    method = tiny_barlow(100)
    tiles = patterns(0, 24)
    monitor = CollapseMonitor(method, FixedTiles(whole=tiles, first=tiles, second=tiles), 100)
    monitor.logged({"update": 50, **monitor.measure(50, 1.0)})
    assert monitor.diagnosis() == ""
    with torch.no_grad():  # one channel is all that is left of the last layer
        encoder = method.export_encoder()
        encoder.model.norm.weight[1:] = 0  # pyright: ignore
        encoder.model.norm.bias.zero_()  # pyright: ignore
    monitor.logged({"update": 60, **monitor.measure(60, 1.0)})
    assert "have shrunk to 1.0 directions" in monitor.diagnosis()
    assert "Lower the learning rate" in monitor.diagnosis()


def test_few_directions_from_the_start_are_no_fall() -> None:
    lines = [{"update": update, "rankme": 3.5} for update in (30, 60, 90)]
    assert diagnose(lines, updates=100, directions=24) == ""
    lines[0]["rankme"] = 30.0
    assert "3.5 directions (RankMe; it was 30.0)" in diagnose(lines, updates=100, directions=24)


def test_the_best_update_is_the_first_of_equal_ones() -> None:
    scores = {10: 0.4, 20: 0.8, 30: 0.8, 40: float("nan"), 50: 0.7}
    lines = [{"update": update, "knn": score} for update, score in scores.items()]
    assert best_update([{"update": 5, "loss": 9.0}, *lines]) == 20
    assert best_update([{"update": 5, "loss": 9.0}]) is None
    assert best_update([]) is None
