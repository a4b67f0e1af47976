"""Copies of the training log for TensorBoard, Weights & Biases and MLflow.

`log.jsonl` stays the record of a run; a tracker that fails is left out with a warning, and the run
goes on. Nothing leaves the machine unless the environment asks for it.
"""

import importlib
import importlib.util
import json
import math
import os
import secrets
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eosin import atomic
from eosin.errors import InputError, UsageError

_PROJECT = "eosin"
_IDS = "trackers.json"
_MOST_PARAMS, _LONGEST_PARAM = 100, 500  # that MLflow takes at once, and of any version


class Tracker(ABC):
    """Takes the lines of the log of one run, as of `open_trackers`."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self._folder, self._config = folder, config
        self._has_failed = False

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the copy lies, and how to look at it."""

    def log(self, update: int, metrics: Mapping[str, Any]) -> None:
        """Takes the finite numbers of a line of the log; what is no number is passed over."""
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if name != "update" and isinstance(value, (int, float)) and math.isfinite(value)
        }
        if not self._has_failed:
            try:
                self._write(update, numbers)
            except Exception as error:  # of any kind: a copy is not worth a run
                self._has_failed = True
                _warn(self, error)

    def close(self) -> None:
        """Writes what is left; the run may be opened again to go on."""
        try:
            self._finish()
        except Exception as error:
            _warn(self, error)

    @abstractmethod
    def _write(self, update: int, metrics: Mapping[str, float]) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that cannot be opened, before anything is written.

    Raises:
        UsageError: there is no tracker of that name, or its package is not installed.
    """
    for name in names:
        if name not in _KINDS:
            raise UsageError(f"There is no tracker {name!r}; choose from: {', '.join(_KINDS)}.")
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise UsageError(
                f'The tracker {name} is not installed; install it with: pip install "eosin[track]"'
            )


def open_trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> list[Tracker]:
    """Opens copies of the log of the run in `folder`, or goes on with those of its earlier part.

    Args:
        names: any of `tensorboard`, `wandb` and `mlflow`.
        folder: of the run; TensorBoard writes to `tensorboard/` in it, W&B to `wandb/` (offline;
            `WANDB_MODE=online` sends it away), MLflow to `mlflow/` (`MLFLOW_TRACKING_URI` names a
            server instead).
        config: settings of the run, as JSON has them.

    Raises:
        UsageError: as of `check_trackers`.
        InputError: a tracker refuses, such as for want of a server or a login.
    """
    check_trackers(names)
    opened: list[Tracker] = []
    for name in dict.fromkeys(names):
        try:
            opened.append(_KINDS[name](folder, config))
        except Exception as error:
            raise InputError(f"The tracker {name} cannot be opened: {error}") from error
    return opened


class TensorBoard(Tracker):
    """Writes event files; where a run goes on, later events of its earlier part are hidden."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder, config)
        self._module = importlib.import_module("torch.utils.tensorboard")
        self._writer: Any = None

    @property
    def place(self) -> str:
        """The folder of the event files."""
        return f"{self._folder / 'tensorboard'} (tensorboard --logdir {self._folder})"

    def _write(self, update: int, metrics: Mapping[str, float]) -> None:
        if self._writer is None:
            # Only the first line tells where a run goes on.
            self._writer = self._module.SummaryWriter(
                str(self._folder / "tensorboard"), purge_step=update
            )
            text = json.dumps(self._config, indent=2, ensure_ascii=False)
            self._writer.add_text("config", "\n".join(f"    {line}" for line in text.split("\n")))
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, update)
        self._writer.flush()

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()


class WandB(Tracker):
    """Writes a W&B run; all parts of one run have the same id, so that a server joins them.

    A server takes no step twice: what was sent before a run was killed stays, and the same updates
    done again are passed over.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder, config)
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode in ("offline", "disabled"):
            # The package else reports its own errors over the network, whatever the mode.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb: Any = importlib.import_module("wandb")
        identity = _ids(folder).get("wandb") or secrets.token_hex(4)
        _remember(folder, "wandb", identity)
        self._mode = mode
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=folder.resolve().name,
            id=identity,
            resume="allow",
            dir=str(folder),
            mode=mode,
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )

    @property
    def place(self) -> str:
        """The folder of the run's parts, or where they were sent."""
        if self._mode == "offline":
            return f"{self._folder / 'wandb'} (wandb sync {self._folder / 'wandb'}/offline-run-*)"
        return f"Weights & Biases, {self._mode}"

    def _write(self, update: int, metrics: Mapping[str, float]) -> None:
        self._run.log(dict(metrics), step=update)

    def _finish(self) -> None:
        self._run.finish()


class MLflow(Tracker):
    """Writes a run of the experiment `eosin` (or `MLFLOW_EXPERIMENT_NAME`)."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder, config)
        # The package else reports its use over the network.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        tracking: Any = importlib.import_module("mlflow.tracking")
        self._entities: Any = importlib.import_module("mlflow.entities")
        own = folder.resolve() / "mlflow"
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server is None:
            own.mkdir(parents=True, exist_ok=True)
        self._database = None if server is not None else f"sqlite:///{own / 'mlflow.db'}"
        self._client = tracking.MlflowClient(tracking_uri=server or self._database)
        where = "mlflow" if server is None else "mlflow_server"
        artifacts = own.as_uri() if server is None else None
        self._taken = 0  # updates of an earlier part, which would else be there twice
        earlier = _ids(folder).get(where)
        self._run_id: str = self._go_on(earlier) if earlier else self._begin(artifacts)
        _remember(folder, where, self._run_id)

    def _begin(self, artifacts: str | None) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = (
            experiment.experiment_id
            if experiment is not None
            else self._client.create_experiment(name, artifact_location=artifacts)
        )
        run = self._client.create_run(number, run_name=self._folder.resolve().name)
        params = [
            self._entities.Param(key, value[:_LONGEST_PARAM])
            for key, value in _flat(self._config).items()
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(run.info.run_id, params=params[start : start + _MOST_PARAMS])
        return run.info.run_id

    def _go_on(self, run_id: str) -> str:
        self._client.update_run(run_id, status="RUNNING")
        metrics = self._client.get_run(run_id).data.metrics
        if metrics:
            name = "loss" if "loss" in metrics else next(iter(metrics))
            history = self._client.get_metric_history(run_id, name)
            self._taken = max(each.step for each in history)
        return run_id

    @property
    def place(self) -> str:
        """The database or server."""
        if self._database is None:
            return "the server of MLFLOW_TRACKING_URI"
        return f"{self._database} (mlflow ui --backend-store-uri {self._database})"

    def _write(self, update: int, metrics: Mapping[str, float]) -> None:
        if update <= self._taken:
            return
        now_ms = round(time.time() * 1000)
        entries = [
            self._entities.Metric(name, value, now_ms, update) for name, value in metrics.items()
        ]
        self._client.log_batch(self._run_id, metrics=entries)

    def _finish(self) -> None:
        self._client.set_terminated(self._run_id)


_KINDS: Mapping[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


def _warn(tracker: Tracker, error: Exception) -> None:
    name = type(tracker).__name__
    print(f"Warning: {name} failed ({error}); the log goes on without it.", file=sys.stderr)


def _ids(folder: Path) -> dict[str, str]:
    """The runs' names in the trackers, by which an earlier part is found again."""
    path = folder / _IDS
    return json.loads(path.read_text()) if path.is_file() else {}


def _remember(folder: Path, tracker: str, identity: str) -> None:
    atomic.write_json(folder / _IDS, {**_ids(folder), tracker: identity})


def _flat(content: Any, name: str = "") -> dict[str, str]:
    """Turns nested settings into one level, with dots in the names."""
    if not isinstance(content, Mapping):
        return {name: str(content)}
    found: dict[str, str] = {}
    for key, value in content.items():
        found |= _flat(value, f"{name}.{key}" if name else str(key))
    return found
