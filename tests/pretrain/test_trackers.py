"""Trackers get the log's numbers, keep what leaves the machine, and never stop a run."""

import importlib.machinery
import json
import os
import random
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from eosin.errors import InputError, UsageError
from eosin.pretrain.trackers import check_trackers, open_trackers

CONFIG = {"method": {"lr": 0.1, "jitter": [0.4, 0.1]}, "batch_size": 8}
LINE = {"update": 10, "loss": 2.5, "lr/weights": 0.1, "note": "text", "rankme": float("nan")}
VARIABLES = (
    *("WANDB_MODE", "WANDB_PROJECT", "WANDB_ERROR_REPORTING"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_DISABLE_TELEMETRY"),
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is taken back
        monkeypatch.delenv(name)


def fake_module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    for key, value in content.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)


class FakeWandB:
    """What the tracker uses of the package, recorded."""

    def __init__(self) -> None:
        self.opened: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **arguments: Any) -> "FakeWandB":
        self.opened.append(arguments)
        return self

    def log(self, metrics: dict[str, float], step: int) -> None:
        if metrics.get("loss") == 13:
            raise OSError("no space left on device")
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandB:
    fake = FakeWandB()
    fake_module(monkeypatch, "wandb", init=fake.init, Settings=lambda **given: given)
    return fake


def test_what_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no tracker 'comet'; choose from: tensorboard, wandb"):
        check_trackers(["comet"])
    for name in ("tensorboard", "wandb", "mlflow"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("tensorboard", "wandb", "mlflow"):
        with pytest.raises(UsageError, match=rf'{name} is not .*pip install "eosin\[track\]"'):
            open_trackers([name], tmp_path, CONFIG)
    assert list(tmp_path.iterdir()) == []


def test_wandb_stays_offline_unless_asked(
    tmp_path: Path, wandb: FakeWandB, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tracker,) = open_trackers(["wandb"], tmp_path, CONFIG)
    assert wandb.opened[0]["mode"] == "offline" and wandb.opened[0]["dir"] == str(tmp_path)
    assert wandb.opened[0]["config"] == CONFIG and wandb.opened[0]["project"] == "eosin"
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    assert "wandb sync" in tracker.place
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    monkeypatch.setenv("WANDB_MODE", "online")
    open_trackers(["wandb"], tmp_path, CONFIG)
    assert wandb.opened[1]["mode"] == "online"
    assert "WANDB_ERROR_REPORTING" not in os.environ


def test_only_finite_numbers_are_logged_and_a_run_keeps_its_name(
    tmp_path: Path, wandb: FakeWandB
) -> None:
    for _ in range(2):  # as when a run goes on
        (tracker,) = open_trackers(["wandb", "wandb"], tmp_path, CONFIG)
        tracker.log(10, LINE)
        tracker.close()
    assert wandb.logged == [(10, {"loss": 2.5, "lr/weights": 0.1})] * 2
    assert wandb.finished == 2
    first, second = (each["id"] for each in wandb.opened)
    assert first == second == json.loads((tmp_path / "trackers.json").read_text())["wandb"]
    open_trackers(["wandb"], tmp_path / "another", CONFIG)
    assert wandb.opened[2]["id"] != first


def test_a_tracker_that_fails_is_left_out_with_one_warning(
    tmp_path: Path, wandb: FakeWandB, capsys: pytest.CaptureFixture[str]
) -> None:
    (tracker,) = open_trackers(["wandb"], tmp_path, CONFIG)
    for update, loss in ((10, 1.0), (20, 13), (30, 13), (40, 1.0)):
        tracker.log(update, {"loss": loss})
    tracker.close()
    assert [step for step, _ in wandb.logged] == [10]
    warned = capsys.readouterr().err
    assert warned.count("Warning") == 1 and "WandB failed (no space left on device)" in warned


def test_a_tracker_that_refuses_is_an_error_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**arguments: Any) -> None:
        raise PermissionError("no API key configured")

    fake_module(monkeypatch, "wandb", init=refuse, Settings=dict)
    with pytest.raises(InputError, match=r"wandb cannot be opened: no API key configured"):
        open_trackers(["wandb"], tmp_path, CONFIG)


class FakeMlflowClient:
    """What the tracker uses of MLflow's client, kept for all of its instances."""

    uris: list[str]
    runs: dict[str, dict[str, Any]]

    def __init__(self, tracking_uri: str) -> None:
        self.uris.append(tracking_uri)

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        return f"{name} at {artifact_location}"

    def create_run(self, experiment: str, run_name: str) -> Any:
        name = f"run {len(self.runs)}"
        self.runs[name] = {"experiment": experiment, "params": {}, "metrics": []}
        return SimpleNamespace(info=SimpleNamespace(run_id=name))

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100
        self.runs[run_id]["metrics"] += metrics
        self.runs[run_id]["params"] |= dict(params)

    def update_run(self, run_id: str, status: str) -> None:
        self.runs[run_id]["status"] = status

    def get_run(self, run_id: str) -> Any:
        metrics = {name: value for name, value, _, _ in self.runs[run_id]["metrics"]}
        return SimpleNamespace(data=SimpleNamespace(metrics=metrics))

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        found = self.runs[run_id]["metrics"]
        return [SimpleNamespace(step=step) for name, _, _, step in found if name == key]

    def set_terminated(self, run_id: str) -> None:
        self.runs[run_id]["status"] = "FINISHED"


def test_mlflow_keeps_a_file_in_the_run_and_no_update_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = FakeMlflowClient
    client.uris, client.runs = [], {}
    entities = {"Metric": lambda *values: values, "Param": lambda *values: values}
    fake_module(monkeypatch, "mlflow")
    fake_module(monkeypatch, "mlflow.tracking", MlflowClient=client)
    fake_module(monkeypatch, "mlflow.entities", **entities)
    many = {**CONFIG, **{f"setting {number}": "x" * 900 for number in range(150)}}
    for updates in ((10, 20, 30), (20, 30, 40)):  # stopped at 30, gone on from 10
        (tracker,) = open_trackers(["mlflow"], tmp_path, many)
        for update in updates:
            tracker.log(update, {"loss": 1.0, "lr/weights": 0.1})
        tracker.close()
    (run,) = client.runs.values()
    steps = [step for name, _, _, step in run["metrics"] if name == "loss"]
    assert steps == [10, 20, 30, 40] and run["status"] == "FINISHED"
    assert run["params"]["method.lr"] == "0.1" and len(run["params"]["setting 7"]) == 500
    assert client.uris == [f"sqlite:///{tmp_path.resolve()}/mlflow/mlflow.db"] * 2
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    (tracker,) = open_trackers(["mlflow"], tmp_path, CONFIG)
    assert client.uris[-1] == "http://tracking:5000" and len(client.runs) == 2


def test_tensorboard_writes_events_and_hides_those_done_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for part, updates in enumerate(((10, 20, 30), (20, 30, 40))):
        (tracker,) = open_trackers(["tensorboard"], tmp_path, CONFIG)
        for update in updates:
            tracker.log(update, {"loss": float(part), "lr/weights": 0.1})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("loss")]
    assert found == [(10, 0.0), (20, 1.0), (30, 1.0), (40, 1.0)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_the_packages_draw_nothing_from_the_global_generators(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # pyright: ignore
    (tracker,) = open_trackers([name], tmp_path, CONFIG)
    tracker.log(10, LINE)
    tracker.close()
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]  # pyright: ignore
    assert torch.equal(torch.get_rng_state(), before[2])
    assert (tmp_path / name).is_dir()
