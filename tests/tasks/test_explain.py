"""`--why` over encoders and tasks, on the embeddings that the evaluation has left."""

from pathlib import Path

import pytest

from eosin.errors import UsageError
from eosin.tasks._evaluate import Config, evaluate
from eosin.tasks._explain import explain_all
from tests.stripes import write_labelled


def config(folder: Path, **changes) -> Config:
    given = {
        "encoders": ("colour_histogram",),
        "on": (folder / "stripes",),
        "out": folder / "out",
        "task": ("linear", "knn"),
        "protocol": ("strict", "uni-linear"),
        "why": True,
    }
    return Config(**{**given, **changes})


def test_each_encoder_is_led_from_its_first_number_to_its_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labelled(tmp_path / "stripes")
    asked = config(tmp_path)
    rows = {
        (row.encoder.name, row.task, row.protocol.id): row.metrics[row.metric].value
        for row in evaluate(asked)
        if row.data.shift == "none"
    }

    def refuse(*_: object) -> None:
        raise AssertionError("an image was read again")

    monkeypatch.setattr("eosin.datasets._files._read_one", refuse)
    said, facts = explain_all(asked)
    assert {(each["encoder"], each["dataset"], each["task"]) for each in facts} == {
        ("colour_histogram", "stripes", task) for task in ("linear", "knn")
    }
    for each in facts:
        first, *_, last = each["steps"]
        key = (each["encoder"], each["task"])
        assert first["value"] == pytest.approx(rows[*key, "strict"])
        assert last["value"] == pytest.approx(rows[*key, "uni-linear"])
    assert said[0] == "Settings in which strict and uni-linear differ:"
    assert "  linear: PenaltyPath | UniHead" in said
    assert "colour_histogram on stripes." in said


def test_protocols_that_share_no_task_are_refused(tmp_path: Path) -> None:
    asked = config(tmp_path, protocol=("paper", "strict"), task=("knn",))
    with pytest.raises(UsageError, match="paper and strict share none of the tasks knn"):
        explain_all(asked)
