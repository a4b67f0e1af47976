"""The folder of weight files, and what is recorded beside them: checksums, accepted licences."""

import contextlib
import fcntl
import json
import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

from eosin import atomic
from eosin.errors import InputError


def weights_folder() -> Path:
    """Where released weight files are kept: `$EOSIN_WEIGHTS` or `~/.cache/eosin/weights`."""
    return Path(os.environ.get("EOSIN_WEIGHTS") or Path.home() / ".cache" / "eosin" / "weights")


def read_records(file: str) -> dict[str, dict[str, Any]]:
    """Reads one JSON file of records of the weights folder; nothing recorded gives none.

    Args:
        file: its name in the folder, such as `checksums.json`.

    Raises:
        InputError: the file is damaged.
    """
    path = weights_folder() / file
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); repair or delete it.") from None
    entries: Mapping[Any, Any] = content if isinstance(content, dict) else {"": None}
    if not all(isinstance(entry, dict) for entry in entries.values()):
        raise InputError(f"{path} must hold one JSON object a name; repair or delete it.")
    return cast(dict[str, dict[str, Any]], dict(entries))


def add_record(file: str, key: str, record: Mapping[str, Any]) -> None:
    """Adds one record, or replaces it, atomically and one process after another.

    Raises:
        InputError: the file is damaged.
    """
    folder = weights_folder()
    with _one_after_another(folder):
        records = read_records(file)
        atomic.write_json(folder / file, {**records, key: dict(record)})


@contextlib.contextmanager
def _one_after_another(folder: Path) -> Generator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
