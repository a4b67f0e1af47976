"""The training loop: micro-batches, processes, faults, stops and exact resumption."""

import json
import math
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eosin.engine import distributed
from eosin.engine.checkpoint import list_checkpoints, load_checkpoint
from eosin.engine.log import read_log
from eosin.engine.loop import LoopConfig, train
from eosin.engine.optimizers import build_optimizer
from eosin.engine.schedules import Schedule
from eosin.engine.trainable import Batch, Observer
from eosin.errors import InputError, Interrupted
from tests.ranks import run_on_ranks

CPU = torch.device("cpu")
UPDATES, ROWS = 8, 8


@dataclass
class Loss:
    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


class Model(nn.Module):
    """A small network with BatchNorm, noise from the global generator and a running average."""

    average: Tensor

    def __init__(self, noise: float = 0.1, spoilt: Sequence[int] = ()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1)).double()
        self.register_buffer("average", torch.zeros(24, dtype=torch.float64))
        self.noise, self.spoilt = noise, spoilt
        self.calls: list[str] = []

    def schedules(self) -> dict[str, dict[str, Schedule]]:
        return {"all": {"lr": lambda update: 0.05 / (1 + update)}}

    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        self.calls.append(f"before {len(batch)}")

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        self.calls.append(f"forward {micro}")
        x = views[0]
        if self.noise:
            x = x + self.noise * torch.rand_like(x)
        if update in self.spoilt:
            x = x * math.nan
        loss = (self.body(x) - x.sum(1, keepdim=True)).square().mean()
        return Loss(loss, {"half": loss / 2})

    def on_gradients(self, update: int) -> None:
        self.calls.append("gradients")

    def after_update(self, update: int) -> None:
        self.calls.append("after")
        weight = next(iter(self.body.parameters())).detach()
        self.average.lerp_(weight.flatten().double(), 0.5)


def rows(update: int) -> Tensor:
    generator = torch.Generator().manual_seed(100 + update)
    return torch.randn(ROWS, 4, dtype=torch.float64, generator=generator)


def batches(micro: int = 1) -> Any:
    """This process's share of each update, in equal micro-batches."""

    def make(start: int) -> Iterator[Batch]:
        for update in range(start, UPDATES):
            share = rows(update).chunk(distributed.world_size())[distributed.rank()]
            names = [f"tile {update}.{distributed.rank()}"]
            parts = [[part] for part in share.chunk(micro)]
            yield Batch(micro=parts, tiles=lambda names=names: names)

    return make


def run(
    model: Model, folder: Path, data: Any = None, observer: Observer | None = None, **settings: Any
) -> dict[str, Tensor]:
    config = LoopConfig(
        **{
            "updates": UPDATES,
            "tiles_per_update": ROWS,
            "precision": "fp32",
            "checkpoint_every": 3,
            "log_every": 2,
            "measure_every": 4,
            **settings,
        }
    )
    groups = [{"name": "all", "params": list(model.body.parameters())}]
    train(
        model,
        build_optimizer("sgd", groups),
        data or batches(),
        folder,
        config,
        device=CPU,
        observer=observer,
    )
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor], rtol: float = 0) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=rtol / 100, msg=name)


def test_an_update_has_its_order(tmp_path: Path) -> None:
    model = Model()
    run(model, tmp_path, batches(micro=2), updates=1)
    assert model.calls == ["before 2", "forward 0", "forward 1", "gradients", "after"]


def without_batch_norm(noise: float = 0.0) -> Model:
    model = Model(noise)
    model.body[1] = nn.Identity()
    return model


def test_micro_batches_equal_the_whole_batch(tmp_path: Path) -> None:
    whole = run(without_batch_norm(), tmp_path / "whole")
    parts = run(without_batch_norm(), tmp_path / "parts", batches(micro=4))
    assert_equal(parts, whole, rtol=1e-10)


def share_of_a_run(folder: Path, micro: int) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    state = run(without_batch_norm(), folder, batches(micro))
    distributed.barrier()
    return state, read_log(folder / "log.jsonl")


@pytest.mark.parametrize("micro", [1, 2])
def test_processes_equal_one_process(micro: int, tmp_path: Path) -> None:
    whole = run(without_batch_norm(), tmp_path / "one")
    expected = read_log(tmp_path / "one" / "log.jsonl")
    ranks = run_on_ranks(2, share_of_a_run, tmp_path / "ranks", tmp_path / "two", micro)
    for state, log in ranks:
        assert_equal(state, whole, rtol=1e-10)
        for line, wanted in zip(log, expected, strict=True):
            for key in ("update", "loss", "half", "grad_norm", "lr/all"):
                assert line[key] == pytest.approx(wanted[key], rel=1e-9), key


class Killer(Observer):
    """Ends the process without a chance to write anything, after a line of the log."""

    def __init__(self, update: int) -> None:
        self.update = update

    def logged(self, line: Any) -> None:
        if line["update"] == self.update:
            os.kill(os.getpid(), signal.SIGKILL)


def killable(folder: Path, kill_at: int) -> dict[str, Tensor]:
    torch.manual_seed(distributed.rank())
    model = Model()
    torch.manual_seed(7 + distributed.rank())  # each process draws its own noise
    return run(model, folder, observer=Killer(kill_at), log_every=1)


@pytest.mark.parametrize("kill_at", [2, 5, 7])
def test_killed_processes_resume_to_the_same_bits(kill_at: int, tmp_path: Path) -> None:
    whole = run_on_ranks(2, killable, tmp_path / "a", tmp_path / "whole", 0)
    with pytest.raises(AssertionError):
        run_on_ranks(2, killable, tmp_path / "b", tmp_path / "killed", kill_at)
    resumed = run_on_ranks(2, killable, tmp_path / "c", tmp_path / "killed", 0)
    assert not torch.equal(whole[0]["body.1.running_mean"], whole[1]["body.1.running_mean"])
    # The statistics of BatchNorm are each process's own; the main one's are what is kept.
    assert_equal(resumed[0], whole[0])
    timings = ("tiles_per_s", "data_wait")
    logs = [read_log(tmp_path / name / "log.jsonl") for name in ("whole", "killed")]
    plain = [[{k: v for k, v in line.items() if k not in timings} for line in log] for log in logs]
    assert plain[0] == plain[1] and len(plain[0]) == UPDATES


def test_a_loss_that_is_not_finite_changes_nothing_and_is_reported(tmp_path: Path) -> None:
    def clean_of(skipped: int) -> Any:
        def make(start: int) -> Iterator[Batch]:
            for update, batch in enumerate(batches()(start), start):
                if update != skipped:
                    yield batch

        return make

    spoilt = run(without_batch_norm(), tmp_path / "clean", clean_of(3), updates=UPDATES - 1)
    model = Model(0.0, spoilt=[3])
    model.body[1] = nn.Identity()
    # The schedule goes on over a skipped update, so only updates before it can be compared.
    run(model, tmp_path / "spoilt", updates=4)
    before = load_checkpoint(list_checkpoints(tmp_path / "spoilt" / "checkpoints")[0])
    assert_equal({k: v for k, v in model.state_dict().items()}, before["module"])
    assert spoilt.keys() == model.state_dict().keys()
    (line,) = read_log(tmp_path / "spoilt" / "skipped.jsonl")
    assert line == {"update": 4, "loss": "nan", "tiles": ["tile 3.0"]}
    assert read_log(tmp_path / "spoilt" / "log.jsonl")[-1]["skipped"] == 1


def test_statistics_of_batch_norm_survive_a_skipped_update(tmp_path: Path) -> None:
    model = Model(spoilt=[1])
    state = run(model, tmp_path, updates=3)
    assert all(value.isfinite().all() for value in state.values())


def test_too_many_skipped_updates_end_the_run(tmp_path: Path) -> None:
    model = Model(spoilt=[3, 4, 5])
    with pytest.raises(
        InputError, match=r"3 of the last 6 updates.* update 6.*-00000003.pt"
    ) as caught:
        run(model, tmp_path, most_skipped=2, checkpoint_every=3)
    assert "skipped.jsonl" in str(caught.value)


def faulty_on_one_rank(folder: Path) -> tuple[dict[str, Tensor], bool]:
    model = Model(0.0, spoilt=[2] if distributed.rank() == 1 else [])
    state = run(model, folder, updates=4)
    return state, all(bool(v.isfinite().all()) for v in state.values())


def test_a_fault_in_one_process_skips_the_update_in_all(tmp_path: Path) -> None:
    (first, ok), (second, also_ok) = run_on_ranks(
        2, faulty_on_one_rank, tmp_path / "r", tmp_path / "run"
    )
    assert ok and also_ok
    assert torch.equal(first["body.0.weight"], second["body.0.weight"])
    (line,) = read_log(tmp_path / "run" / "skipped.jsonl")
    assert line["tiles"] == ["tile 2.0", "tile 2.1"]


class Stopper(Observer):
    def __init__(self, number: int) -> None:
        self.number = number
        self.saves: list[int] = []

    def logged(self, line: Any) -> None:
        if line["update"] == 4:
            os.kill(os.getpid(), self.number)

    def saved(self, update: int, checkpoint: Path) -> None:
        assert checkpoint.is_file()
        self.saves.append(update)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_save_and_stop(number: int, tmp_path: Path) -> None:
    observer = Stopper(number)
    with pytest.raises(Interrupted, match="after update 5 of 8; the same command resumes"):
        run(Model(), tmp_path / "stopped", observer=observer)
    assert observer.saves == [3, 5]
    resumed = run(Model(), tmp_path / "stopped")
    assert_equal(resumed, run(Model(), tmp_path / "whole"))


def stopped_on_one_rank(folder: Path) -> str:
    observer = Stopper(signal.SIGUSR1)
    try:
        run(Model(), folder, observer=observer)
    except Interrupted as error:
        return str(error)
    return ""


def test_a_signal_to_one_process_stops_all_at_one_update(tmp_path: Path) -> None:
    messages = run_on_ranks(2, stopped_on_one_rank, tmp_path / "r", tmp_path / "run")
    assert messages[0] == messages[1] and "after update 5 of 8" in messages[0]
    assert len(list_checkpoints(tmp_path / "run" / "checkpoints")) == 2


class Looker(Observer):
    def __init__(self) -> None:
        self.measured: list[int] = []
        self.warm: list[tuple[int, float]] = []

    def measure(self, update: int, loss: float) -> dict[str, float]:
        self.measured.append(update)
        return {"rankme": 3.0, "strange": math.inf}

    def warmed_up(self, update: int, seconds_per_update: float) -> None:
        self.warm.append((update, seconds_per_update))


def test_measurements_join_the_log_and_the_warm_up_is_timed(tmp_path: Path) -> None:
    observer = Looker()
    run(Model(), tmp_path, observer=observer, measure_every=3)
    lines = read_log(tmp_path / "log.jsonl")
    assert [line["update"] for line in lines] == [2, 3, 4, 6, 8]
    assert observer.measured == [3, 6, 8]
    assert [line["update"] for line in lines if "rankme" in line] == [3, 6, 8]
    assert "Infinity" not in (tmp_path / "log.jsonl").read_text()
    (warm,) = observer.warm
    assert warm[0] == 5 and warm[1] > 0


def test_fp16_scales_the_loss_and_resumes_with_its_scale(tmp_path: Path) -> None:
    def trained(folder: Path, updates: int) -> dict[str, Tensor]:
        model = Model()
        model.body.float()
        data = lambda start: (  # noqa: E731
            Batch(micro=[[part.float() for part in views] for views in batch.micro])
            for batch in batches()(start)
        )
        return run(model, folder, data, precision="fp16", updates=updates)

    whole = trained(tmp_path / "whole", UPDATES)
    trained(tmp_path / "parts", 4)
    saved = load_checkpoint(list_checkpoints(tmp_path / "parts" / "checkpoints")[-1])
    assert saved["stepper"]["scale"] > 0
    assert_equal(trained(tmp_path / "parts", UPDATES), whole)
    lines = [json.dumps(line) for line in read_log(tmp_path / "whole" / "log.jsonl")]
    assert len(lines) == 4
