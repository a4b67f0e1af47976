"""The training log: one JSON line each time, which a resumed run cuts back and goes on with."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from eosin import atomic
from eosin.engine import distributed

ItemT = TypeVar("ItemT")


class TrainingLog:
    """Appends to `log.jsonl`; only the main process writes.

    Args:
        path: the file.
        keep_through: the update to go on from; later lines, which a killed run left, are removed.
    """

    def __init__(self, path: Path, keep_through: int) -> None:
        self._file = None
        if distributed.is_main():
            kept = [line for line in read_log(path) if line["update"] <= keep_through]
            atomic.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
            self._file = path.open("a")

    def append(self, line: Mapping[str, Any]) -> None:
        """Writes one line, which has an `update`, and flushes it."""
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """Reads a log's whole lines; a last line that a killed run left in half is passed over."""
    if not path.is_file():
        return []
    return [
        json.loads(line)
        for line in path.read_text().splitlines(keepends=True)
        if line.endswith("\n") and line.startswith("{")
    ]


class Window:
    """What happened since the last line of the log.

    Args:
        tiles_per_update: over all processes, for the rate.
    """

    def __init__(self, tiles_per_update: int) -> None:
        self._tiles_per_update = tiles_per_update
        self._started = time.perf_counter()
        self._waited = 0.0
        self._updates = 0
        self._losses: list[float] = []
        self._parts: dict[str, float] = {}

    def wait_for(self, iterator: Iterator[ItemT]) -> ItemT:
        """Takes the next item and counts the seconds that it took."""
        started = time.perf_counter()
        item = next(iterator)
        self._waited += time.perf_counter() - started
        return item

    def add(self, loss: float | None, parts: Mapping[str, float]) -> None:
        """Counts an update; `None` is the loss of one that was skipped."""
        self._updates += 1
        if loss is not None:
            self._losses.append(loss)
            self._parts = dict(parts)

    @property
    def last_loss(self) -> float:
        """The loss of the last update that was not skipped."""
        return self._losses[-1] if self._losses else float("nan")

    def _rates(self) -> dict[str, float]:
        seconds = max(time.perf_counter() - self._started, 1e-9)
        return {
            "tiles_per_s": self._updates * self._tiles_per_update / seconds,
            "data_wait": self._waited / seconds,
        }

    def note(self, lr: float) -> str:
        """What the progress bar says."""
        rates = self._rates()
        return (
            f"loss {self.last_loss:.4g}, learning rate {lr:.3g}, {rates['tiles_per_s']:,.0f} "
            f"tiles/s, waiting for data {rates['data_wait']:.0%}"
        )

    def summary(self) -> dict[str, float]:
        """Mean loss, the last parts of it and the rates; no loss if every update was skipped."""
        loss = {"loss": sum(self._losses) / len(self._losses)} if self._losses else {}
        return {**loss, **self._parts, **self._rates()}
