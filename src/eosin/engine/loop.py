"""The training loop: one for every kind of training, in one process or many."""

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim import Optimizer

from eosin.engine import distributed
from eosin.engine.checkpoint import (
    list_checkpoints,
    load_checkpoint,
    restore_rng,
    save_checkpoint,
)
from eosin.engine.log import TrainingLog, Window
from eosin.engine.precision import Precision
from eosin.engine.step import Step, Stepper
from eosin.engine.stopping import stop_request
from eosin.engine.trainable import Batch, Batches, Observer, Trainable
from eosin.errors import Diverged, Interrupted
from eosin.progress import Bar

_WARM_UP, _TIMED, _LATELY = 2, 3, 100  # updates
_REMEDY = (
    "Lower the learning rate, lengthen the warm-up, look at the tiles, or train with --precision "
    "fp32."
)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long to train, and what to write meanwhile."""

    updates: int
    """Optimizer steps of the whole run."""
    tiles_per_update: int
    """Over all processes; for the rate that is shown."""
    precision: Precision = "auto"
    """Number format of the forward passes."""
    checkpoint_every: int = 500
    """Updates between checkpoints."""
    keep_checkpoints: int = 2
    """How many checkpoints are kept."""
    log_every: int = 10
    """Updates between lines of the log."""
    measure_every: int = 500
    """Updates between measurements by the observer; each is a line of the log too."""
    most_skipped: int = 10
    """How many of 100 updates in a row may be skipped, since their loss was not finite."""
    title: str = "training"
    """What the progress bar says."""


def train(
    module: Trainable,
    optimizer: Optimizer,
    batches: Batches,
    folder: Path,
    config: LoopConfig,
    *,
    device: torch.device,
    observer: Observer | None = None,
) -> None:
    """Trains to the last update, from the newest checkpoint in `folder` where there is one.

    A run that is killed at any update and started again ends with the same weights, bit by bit, as
    one that is not (on the same hardware with the same number of processes and threads). Every
    process calls it; the main one writes.

    An update whose loss or gradient is not finite changes nothing but the state of the data; its
    tiles are written to `skipped.jsonl`.

    Args:
        module: what is trained.
        optimizer: over groups that have the names that `module.schedules()` gives.
        batches: where this process's data comes from.
        folder: where `log.jsonl` and `checkpoints/` go.
        config: how long, and what to write.
        device: where `module` lies.
        observer: what looks on, in the main process.

    Raises:
        Diverged: too many updates were skipped, or the weights are not numbers; the message names
            the last good checkpoint.
        Interrupted: a process was asked to stop; a checkpoint was written.
    """
    run = _Run(module, optimizer, folder, config, device, observer or Observer())
    run.resume()
    with contextlib.closing(TrainingLog(folder / "log.jsonl", keep_through=run.done)) as log:
        run.go_on(batches, log)


class _Run:
    def __init__(
        self,
        module: Trainable,
        optimizer: Optimizer,
        folder: Path,
        config: LoopConfig,
        device: torch.device,
        observer: Observer,
    ) -> None:
        self.module, self.optimizer = module, optimizer
        self.folder, self.config, self.observer = folder, config, observer
        self.stepper = Stepper(module, optimizer, precision=config.precision, device=device)
        self.done = self.skipped = 0
        self.lately = deque[bool](maxlen=_LATELY)  # whether each was skipped

    def resume(self) -> None:
        """Takes back the state of the newest checkpoint, where there is one."""
        newest = distributed.from_main(list_checkpoints(self.folder / "checkpoints")[-1:])
        if not newest:
            return
        state = load_checkpoint(newest[0])
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.stepper.load_state_dict(state["stepper"])
        restore_rng(state["rng"])
        self.done, self.skipped = int(state["update"]), int(state["skipped"])

    def go_on(self, batches: Batches, log: TrainingLog) -> None:
        """Takes the updates that are left."""
        config, start = self.config, self.done
        window, clock = Window(config.tiles_per_update), _Clock()
        is_hidden = not distributed.is_main()
        bar = Bar(config.title, config.updates, "updates", done=start, is_hidden=is_hidden)
        with stop_request() as asked, bar:
            iterator = iter(batches(start)) if start < config.updates else iter(())
            while self.done < config.updates:
                step = self._update(window, iterator, asked)
                bar.advance(note=window.note(self.optimizer.param_groups[0]["lr"]))
                if clock.has_warmed_up() and distributed.is_main() and self.done < config.updates:
                    self.observer.warmed_up(self.done, clock.seconds_per_update)
                if self._is_due(config.log_every) or self._is_due(config.measure_every):
                    self._log(window, log)
                    window = Window(config.tiles_per_update)
                if self._must_save(step):
                    self._save()
                if step.must_stop and self.done < config.updates:
                    distributed.barrier()  # the checkpoint is whole before any process ends
                    raise Interrupted(
                        f"Stopped after update {self.done:,} of {config.updates:,}; "
                        "the same command resumes."
                    )

    def _is_due(self, every: int) -> bool:
        return self.done % every == 0 or self.done == self.config.updates

    def _must_save(self, step: Step) -> bool:
        """Not behind a skipped update, when weights may have gone astray, but for the last."""
        is_last = step.must_stop or self.done == self.config.updates
        return is_last or (self._is_due(self.config.checkpoint_every) and not step.is_skipped)

    def _update(self, window: Window, iterator: Iterator[Batch], asked: Callable[[], bool]) -> Step:
        batch = window.wait_for(iterator)
        step = self.stepper(batch, self.done, asked)
        self.done += 1
        self.lately.append(step.is_skipped)
        if step.is_skipped:
            self._skip(batch, step)
        window.add(None if step.is_skipped else step.loss, step.parts)
        return step

    def _skip(self, batch: Batch, step: Step) -> None:
        """Reports a skipped update with its tiles, and gives up after too many of them.

        Raises:
            Diverged: it was one too many.
        """
        self.skipped += 1
        tiles = [tile for share in distributed.gather_objects(batch.tiles()) for tile in share]
        path = self.folder / "skipped.jsonl"
        with contextlib.closing(TrainingLog(path, keep_through=self.done - 1)) as report:
            report.append({"update": self.done, "loss": str(step.loss), "tiles": tiles})
        if sum(self.lately) > self.config.most_skipped:
            raise Diverged(
                f"The loss or the gradient was not finite in {sum(self.lately)} of the last "
                f"{len(self.lately)} updates, up to update {self.done:,}; their tiles are in "
                f"{path}. {_REMEDY} {self._last_good()}"
            )

    def _log(self, window: Window, log: TrainingLog) -> None:
        line = {"update": self.done, **window.summary(), "skipped": self.skipped}
        line |= _settings(self.optimizer)
        if distributed.is_main():
            if self._is_due(self.config.measure_every):
                line |= self.observer.measure(self.done, window.last_loss)
            line = {key: value for key, value in line.items() if math.isfinite(value)}
            log.append(line)
            self.observer.logged(line)

    def _save(self) -> None:
        """Writes a checkpoint, of weights that are all numbers.

        Raises:
            Diverged: they are not.
        """
        state = self.module.state_dict()
        is_finite = all(bool(v.isfinite().all()) for v in state.values() if v.is_floating_point())
        if not distributed.from_main(is_finite):
            raise Diverged(
                f"The weights are not finite at update {self.done:,}. {_REMEDY} {self._last_good()}"
            )
        state = {
            "module": state,
            "optimizer": self.optimizer.state_dict(),
            "stepper": self.stepper.state_dict(),
            "skipped": self.skipped,
        }
        folder, keep = self.folder / "checkpoints", self.config.keep_checkpoints
        checkpoint = save_checkpoint(folder, self.done, state, keep)
        if distributed.is_main():
            self.observer.saved(self.done, checkpoint)

    def _last_good(self) -> str:
        checkpoints = list_checkpoints(self.folder / "checkpoints")
        if not checkpoints:
            return "There is no checkpoint yet."
        return f"The last good checkpoint is {checkpoints[-1]}."


class _Clock:
    """Times the first updates but those that warm up."""

    def __init__(self) -> None:
        self._updates = 0
        self._started = 0.0
        self.seconds_per_update = 0.0

    def has_warmed_up(self) -> bool:
        """Counts an update; true once, when the time of one is known."""
        self._updates += 1
        if self._updates == _WARM_UP:
            self._started = time.perf_counter()
        if self._updates != _WARM_UP + _TIMED:
            return False
        self.seconds_per_update = (time.perf_counter() - self._started) / _TIMED
        return True


def _settings(optimizer: Optimizer) -> dict[str, float]:
    """The scheduled settings of each group, for the log."""
    return {
        f"{setting}/{group['name']}": group[setting]
        for group in optimizer.param_groups
        for setting in ("lr", "weight_decay")
    }
