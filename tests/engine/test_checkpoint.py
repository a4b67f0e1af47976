"""Checkpoints hold every generator, rotate, and load without unpickling."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from eosin.engine.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    restore_rng,
    rng_state,
    save_checkpoint,
)
from eosin.engine.log import TrainingLog, read_log
from eosin.errors import InputError


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_generators_go_back_to_where_they_were(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 3, {}, keep=2)
    expected = draw()
    draw()
    restore_rng(load_checkpoint(path)["rng"])
    assert draw() == expected
    assert set(rng_state()) == {"torch", "cuda", "python", "numpy"}


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for update in (5, 10, 100):
        save_checkpoint(tmp_path, update, {"module": {"w": torch.tensor(update)}}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "update-00000010.pt",
        "update-00000100.pt",
    ]
    assert load_checkpoint(list_checkpoints(tmp_path)[-1])["module"]["w"] == 100


def test_other_formats_are_refused(tmp_path: Path) -> None:
    torch.save({"format": 99}, tmp_path / "update-00000001.pt")
    with pytest.raises(InputError, match="format 99"):
        load_checkpoint(tmp_path / "update-00000001.pt")


def test_the_log_is_cut_back_and_a_half_line_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"update": 1, "loss": 3.0}\n{"update": 2, "loss": 2.0}\n{"update": 3, "lo')
    assert [line["update"] for line in read_log(path)] == [1, 2]
    log = TrainingLog(path, keep_through=1)
    log.append({"update": 2, "loss": 2.5})
    log.close()
    assert path.read_text() == '{"update": 1, "loss": 3.0}\n{"update": 2, "loss": 2.5}\n'
