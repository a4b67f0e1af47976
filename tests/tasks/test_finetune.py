"""The task as a whole, on small random encoders and two textures."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eosin.datasets._base import LabelledImages
from eosin.encoders import build_encoder
from eosin.engine import distributed
from eosin.engine.step import Stepper
from eosin.errors import Diverged, InputError, Interrupted, UsageError
from eosin.images import stain_shift
from eosin.protocols._base import FineTuning, find_protocol
from eosin.results.schema import Result
from eosin.tasks import finetune
from eosin.tasks._base import Job
from eosin.tasks._grid import row_ids
from tests.finetuning.textures import PX, SETTINGS, images, make_inputs, make_splits
from tests.ranks import run_on_ranks

VIT = build_encoder("timm/test_vit", input_px=PX, seed=0).eval()
RESNET = build_encoder("resnet10t", input_px=PX).reinitialised(0)
for module in RESNET.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.momentum = 0.4  # so that few updates tell the statistics
STRICT = find_protocol("strict")
TWO_RATES = replace(SETTINGS, learning_rates=(0.001, 0.03))


def make_job(settings: FineTuning = SETTINGS, **changes) -> Job:
    return Job(task="finetune", protocol=replace(STRICT, finetune=settings), **changes)


def scores_of(rows: list) -> np.ndarray:
    return rows[0][1].scores


def test_it_learns_and_says_how(tmp_path: Path) -> None:
    splits = make_splits(train=64, test=40, valid=20)
    shifts = ("none", stain_shift.NAME)
    before, flags = RESNET.weights_sha256(), [each.training for each in RESNET.modules()]
    inputs = make_inputs(RESNET, tmp_path / "unfinished", splits, shifts)
    job = make_job(replace(TWO_RATES, min_updates=14, epochs=2))
    rows = finetune.run(job, inputs)
    assert [row.row_id for row, _ in rows] == row_ids(job, inputs)
    (clean, predictions), (shifted, other) = rows
    assert (clean.task, clean.data.shift, shifted.data.shift) == ("finetune", *shifts)
    assert clean.metrics["balanced_accuracy"].value > 0.8
    assert predictions.sample.tolist() == list(splits["test"].ids)
    assert np.allclose(predictions.scores.sum(1), 1, atol=1e-5)
    assert not np.allclose(predictions.scores, other.scores, atol=1e-3)
    selection = dict(clean.selection)
    tried = selection.pop("tried")
    assert selection == {
        "split": "validation split",
        "n_fit": 64,
        "learning_rate": 0.03,
        "updates": 14,
        "batch_size": 16,
        "balanced_accuracy": max(tried.values()),
    }
    assert list(tried) == ["0.001", "0.03"] and shifted.selection == clean.selection
    assert RESNET.weights_sha256() == before
    assert [each.training for each in RESNET.modules()] == flags
    assert not list((tmp_path / "unfinished").iterdir())


def test_the_same_seed_gives_the_same_and_another_another(tmp_path: Path) -> None:
    inputs = make_inputs(VIT, tmp_path, make_splits())
    one, again, other = (scores_of(finetune.run(make_job(seed=seed), inputs)) for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_half_precision_is_for_the_encoder_alone(tmp_path: Path) -> None:
    inputs = make_inputs(VIT, tmp_path, make_splits())
    inputs = replace(inputs, encoder_stamp=replace(inputs.encoder_stamp, precision="bf16"))
    ((row, predictions),) = finetune.run(make_job(), inputs)
    assert row.encoder.precision == "bf16"
    # Rounded to bfloat16, few of the scores would differ.
    assert len(np.unique(predictions.scores)) > 30
    whole = scores_of(finetune.run(make_job(), make_inputs(VIT, tmp_path, make_splits())))
    assert not np.array_equal(predictions.scores, whole)
    assert np.allclose(predictions.scores, whole, atol=0.05)


def test_the_generators_of_the_caller_go_on_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    finetune.run(make_job(), make_inputs(VIT, tmp_path, make_splits()))
    found = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(found, torch.rand(3))


def _killed_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Kills each run before its update number `count`; gives the updates that were begun."""
    begun: list[int] = []
    take = Stepper.__call__
    left = [count]

    def step(self: Stepper, batch, update: int, asked: Callable[[], bool]):
        if left[0] == 0:
            left[0] = count
            raise KeyboardInterrupt
        left[0] -= 1
        begun.append(update)
        return take(self, batch, update, asked)

    monkeypatch.setattr(Stepper, "__call__", step)
    return begun


def test_killed_at_any_update_and_resumed_it_gives_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(replace(TWO_RATES, drop_path=0.3))
    splits = make_splits()
    ((row, whole),) = finetune.run(job, make_inputs(VIT, tmp_path / "whole", splits))
    monkeypatch.setattr("eosin.finetuning.training.CHECKPOINT_EVERY", 2)
    begun = _killed_after(5, monkeypatch)
    inputs = make_inputs(VIT, tmp_path / "killed", splits)
    rows, kills = None, 0
    while rows is None:
        try:
            rows = finetune.run(job, inputs)
        except KeyboardInterrupt:
            kills += 1
            assert kills < 10 and list((tmp_path / "killed").iterdir())
    assert kills >= 3
    # Each kill costs the update since the last checkpoint, and no more.
    assert 18 <= len(begun) <= 18 + kills
    assert np.array_equal(scores_of(rows), whole.scores)
    assert rows[0][0].selection == row.selection
    assert not list((tmp_path / "killed").iterdir())


def test_a_stop_that_is_asked_for_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(VIT, tmp_path, make_splits())
    take, begun = Stepper.__call__, []

    def step(self: Stepper, batch, update: int, asked: Callable[[], bool]):
        begun.append(update)
        return take(self, batch, update, lambda: len(begun) == 3)

    monkeypatch.setattr(Stepper, "__call__", step)
    with pytest.raises(Interrupted):
        finetune.run(make_job(), inputs)
    finetune.run(make_job(), inputs)
    assert begun == [0, 1, 2, 3, 4, 5]


def test_what_another_job_has_left_is_not_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = make_splits()
    fresh = scores_of(finetune.run(make_job(), make_inputs(VIT, tmp_path / "a", splits)))
    inputs = make_inputs(VIT, tmp_path / "b", splits)
    monkeypatch.setattr("eosin.finetuning.training.CHECKPOINT_EVERY", 1)
    with monkeypatch.context() as patched:
        _killed_after(4, patched)
        # Of the same name and version, and so of the same row.
        with pytest.raises(KeyboardInterrupt):
            finetune.run(make_job(replace(SETTINGS, weight_decay=0.3)), inputs)
    assert list((tmp_path / "b").rglob("*.pt"))
    assert np.array_equal(scores_of(finetune.run(make_job(), inputs)), fresh)


def test_what_is_chosen_never_depends_on_the_test_labels(tmp_path: Path) -> None:
    splits = make_splits()
    test = splits["test"]
    swapped = {**splits, "test": replace(test, labels=1 - test.labels)}
    one, two = (
        finetune.run(make_job(TWO_RATES), make_inputs(VIT, tmp_path, each))[0]
        for each in (splits, swapped)
    )
    assert one[0].selection == two[0].selection
    assert np.array_equal(one[1].scores, two[1].scores)
    total = one[0].metrics["accuracy"].value + two[0].metrics["accuracy"].value
    assert total == pytest.approx(1)


def test_without_a_validation_split_one_fold_is_held_out(tmp_path: Path) -> None:
    inputs = make_inputs(VIT, tmp_path, make_splits())
    selection = finetune.run(make_job(TWO_RATES), inputs)[0][0].selection
    assert selection["split"] == "the first of 5 folds of whole groups of the training split"
    assert selection["n_fit"] == 40


def test_one_rate_is_not_chosen_and_nothing_is_held_out(tmp_path: Path) -> None:
    read: set[str] = set()

    def watched(images: LabelledImages) -> LabelledImages:
        def reader(index: int) -> np.ndarray:
            read.add(images.ids[index])
            return images.reader(index)

        return replace(images, reader=reader)

    splits = make_splits(valid=10)
    splits = {name: watched(each) for name, each in splits.items()}
    row = finetune.run(make_job(), make_inputs(VIT, tmp_path, splits))[0][0]
    assert row.selection == {
        "split": "nothing is chosen",
        "n_fit": 40,
        "learning_rate": 0.02,
        "updates": 6,
        "batch_size": 16,
    }
    assert not any(name.startswith("valid") for name in read)


def test_a_part_of_the_labels_is_all_that_is_trained_on(tmp_path: Path) -> None:
    read: set[str] = set()
    train = images("train", 80)

    def reader(index: int) -> np.ndarray:
        read.add(train.ids[index])
        return train.reader(index)

    splits = {**make_splits(), "train": replace(train, reader=reader)}
    row = finetune.run(make_job(label_fraction=0.1), make_inputs(VIT, tmp_path, splits))[0][0]
    assert row.selection["n_fit"] == len(read) == row.selection["batch_size"] == 8
    assert row.label_fraction == 0.1


@pytest.mark.parametrize("updates", [6, 20])  # ended by embeddings, or by its loss
def test_a_rate_with_which_training_diverges_is_not_chosen(
    updates: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(SETTINGS, learning_rates=(1e30, 0.02), min_updates=updates)
    inputs = make_inputs(VIT, tmp_path / "unfinished", make_splits())
    ((row, _),) = finetune.run(make_job(settings), inputs)
    assert row.selection["learning_rate"] == 0.02
    assert row.selection["tried"]["1e+30"] == "diverged"
    assert "learning rate 1e+30: " in capsys.readouterr().err
    assert Result.from_json_line(row.to_json_line(), tmp_path, 1).selection == row.selection


def test_where_every_rate_diverges_that_is_said(tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rates=(1e30, 1e31))
    with pytest.raises(Diverged, match=r"diverged with every learning rate \(1e\+30, 1e\+31\)"):
        finetune.run(make_job(settings), make_inputs(VIT, tmp_path, make_splits()))


def test_several_rates_without_anything_held_out_are_refused(tmp_path: Path) -> None:
    protocol = replace(find_protocol("uni-linear"), finetune=TWO_RATES)
    inputs = make_inputs(VIT, tmp_path, make_splits())
    job = Job(task="finetune", protocol=protocol)
    if protocol.division.divide(inputs.splits, {"train": np.arange(40)}, 0).folds:
        pytest.skip("this protocol holds something out")
    with pytest.raises(UsageError, match="2 learning rates to choose from"):
        finetune.run(job, inputs)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    def reader(index: int) -> np.ndarray:
        raise InputError("test/7.png cannot be read")

    splits = make_splits()
    splits["test"] = replace(splits["test"], reader=reader)
    with pytest.raises(InputError, match=r"test/7\.png"):
        finetune.run(make_job(), make_inputs(VIT, tmp_path, splits))


def _on_a_rank(folder: str) -> tuple[list[np.ndarray], str]:
    scores: list[np.ndarray] = []
    for encoder, rates in ((VIT, (0.02, 0.1, 1e30)), (RESNET, (0.02,))):
        # Shares of 8 and 7, and 13 and 12 test images.
        job = make_job(replace(SETTINGS, learning_rates=rates, batch_size=15, min_updates=4))
        splits = make_splits(train=30, test=25)
        ((row, predictions),) = finetune.run(job, make_inputs(encoder, Path(folder), splits))
        assert row.selection["batch_size"] == 15
        scores.append(predictions.scores)
    # The main process, which removes what is not needed any more, may be the last to be here.
    if distributed.is_main():
        assert not list(Path(folder).iterdir())
    splits["train"] = replace(splits["train"], reader=_refuse_one)
    with pytest.raises(InputError) as caught:
        finetune.run(make_job(), make_inputs(VIT, Path(folder), splits))
    return scores, str(caught.value)


def _refuse_one(index: int) -> np.ndarray:
    if index == 3:
        raise InputError("train/3.png cannot be read")
    return images("train", 30).read(index)


def test_two_processes_give_what_one_does_and_end_together(tmp_path: Path) -> None:
    ((one, _),) = run_on_ranks(1, _on_a_rank, tmp_path / "1", str(tmp_path / "a"))
    (first, told), (second, also) = run_on_ranks(2, _on_a_rank, tmp_path / "2", str(tmp_path / "b"))
    for alone, main, other in zip(one, first, second, strict=True):
        assert np.array_equal(main, other)
        assert np.abs(alone - 0.5).max() > 0.02
        assert np.allclose(main, alone, atol=2e-3)
    assert told == also == "train/3.png cannot be read"
