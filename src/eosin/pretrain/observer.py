"""All that looks on while a run trains: monitor, scores, trackers, the page and the best so far."""

import contextlib
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eosin.datasets._base import Options
from eosin.encoders import Encoder
from eosin.engine.log import read_log
from eosin.engine.trainable import Observer
from eosin.errors import InputError
from eosin.images.views import Image
from eosin.methods._base import Method, Plan
from eosin.pretrain.config import Config
from eosin.pretrain.diagnosis import best_update
from eosin.pretrain.labelled import LabelledTiles, load_labelled, score_labelled
from eosin.pretrain.monitor import CollapseMonitor, fix_tiles
from eosin.pretrain.plan import describe_warm_up
from eosin.pretrain.record import record_plan
from eosin.pretrain.sources import TileSource
from eosin.pretrain.trackers import open_trackers
from eosin.pretrain.training_page import write_training_page
from eosin.provenance import plain

_MONITORED_TILES = 256
_BEST = "best.pt"


class WarmUp(Observer):
    """Tells how long the run will take, once its first updates have been timed."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self.notes: list[str] = []

    def warmed_up(self, update: int, seconds_per_update: float) -> None:
        """Keeps the note for whoever asks."""
        self.notes.append(describe_warm_up(self._plan, update, seconds_per_update, self._device))


class RunObserver(Observer):
    """Looks on for the main process of a run.

    Args:
        config: of the run.
        plan: of the run.
        method: what is trained.
        sources: where the tiles to watch come from.
        device: where the method lies.

    Raises:
        InputError: the labelled images cannot be used.
        UsageError: a tracker is not installed.
    """

    def __init__(
        self,
        config: Config,
        plan: Plan,
        method: Method,
        sources: Sequence[TileSource],
        device: torch.device,
    ) -> None:
        self._config, self._method = config, method
        self._warm_up = WarmUp(plan, device)
        encoder = method.export_encoder()
        self._labelled = _load_labelled(config, encoder)
        self._monitor = CollapseMonitor(
            method,
            fix_tiles(_spread_tiles(sources), config.views(), encoder),
            plan.updates,
            precision=config.precision,
            earlier=read_log(config.out / "log.jsonl"),
        )
        facts = {"updates": plan.updates, "batch_size": plan.batch_size}
        facts |= {"micro_batches": plan.micro_batches}
        judged_by = {
            "chance_loss": method.chance_loss(),
            "directions": self._monitor.directions,
        }
        record_plan(config.out, {**facts, **judged_by})
        self._trackers = open_trackers(config.track, config.out, {**plain(config), **facts})
        for tracker in self._trackers:
            print(tracker.place, file=sys.stderr)
        keep_best(config.out)

    def warmed_up(self, update: int, seconds_per_update: float) -> None:
        """Prints how long it will take."""
        self._warm_up.warmed_up(update, seconds_per_update)
        print(self._warm_up.notes[-1], file=sys.stderr)

    def measure(self, update: int, loss: float) -> Mapping[str, float]:
        """Measures the embeddings of fixed tiles and of labelled images."""
        found = self._monitor.measure(update, loss)
        if self._labelled is None:
            return found
        encoder = self._method.export_encoder()
        return {**found, **score_labelled(encoder, self._labelled, self._config.precision)}

    def logged(self, line: Mapping[str, Any]) -> None:
        """Judges the run, and passes its metrics on."""
        self._monitor.logged(line)
        for tracker in self._trackers:
            tracker.log(line["update"], line)

    def saved(self, update: int, checkpoint: Path) -> None:
        """Keeps the best checkpoint, and draws the page."""
        keep_best(self._config.out)
        write_training_page(self._config.out)

    def close(self) -> None:
        """Closes the trackers."""
        for tracker in self._trackers:
            tracker.close()


def _load_labelled(config: Config, encoder: Encoder) -> LabelledTiles | None:
    if config.monitor_on is None:
        return None
    options = Options(groups=config.monitor_groups)
    labelled = load_labelled(
        config.monitor_on, encoder, options=options, most_images=config.monitor_images
    )
    print(f"scores on the way: {labelled}", file=sys.stderr)
    return labelled


def find_best(folder: Path) -> Path | None:
    """The checkpoint with the best kNN score, where a run has scores."""
    path = folder / "checkpoints" / _BEST
    return path if path.is_file() else None


def keep_best(folder: Path) -> None:
    """Links the checkpoint with the best kNN score in the log, where it still lies there."""
    best = best_update(read_log(folder / "log.jsonl"))
    if best is None:
        return
    source = folder / "checkpoints" / f"update-{best:08d}.pt"
    target = folder / "checkpoints" / _BEST
    if not source.is_file() or (target.is_file() and source.samefile(target)):
        return
    temporary = target.with_name(f".writing-{os.getpid()}-{_BEST}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    try:
        os.link(source, temporary)
    except OSError:  # a file system without links
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _spread_tiles(sources: Sequence[TileSource]) -> list[Image]:
    """Tiles spread evenly over the sources; one that cannot be read is left out.

    Raises:
        InputError: hardly any can be read.
    """
    tiles: list[Image] = []
    message = ""
    for source in sources:
        wanted = min(max(_MONITORED_TILES // len(sources), 2), len(source))
        for index in np.linspace(0, len(source) - 1, wanted).astype(int).tolist():
            try:
                tiles.append(source.read(index))
            except InputError as error:  # the loader replaces it, and reports it
                message = str(error)
    if len(tiles) < 2:
        raise InputError(f"Hardly any of the tiles of --data can be read; the last: {message}")
    return tiles
