"""The training log: one JSON line each time, which a resumed run cuts back and goes on with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eosin import atomic


class TrainingLog:
    """Appends to `log.jsonl`.

    Args:
        path: the file.
        keep_through: the update to go on from; later lines, which a killed run left, are removed.
    """

    def __init__(self, path: Path, keep_through: int) -> None:
        kept = [line for line in read_log(path) if line["update"] <= keep_through]
        atomic.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a")

    def append(self, line: Mapping[str, Any]) -> None:
        """Writes one line, which has an `update`, and flushes it."""
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
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
