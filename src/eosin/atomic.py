"""Files that are either whole or absent: temporary file, fsync, rename; and a lock on a folder."""

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from eosin.errors import InputError

_TEMPORARY_PREFIX = ".writing-"


@contextlib.contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Gives a temporary path beside `path` that becomes `path` if the block ends without an error.

    The temporary file has the same suffix as `path`, since some writers choose their format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY_PREFIX}{os.getpid()}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a whole file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Writes a whole UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, atomically and with the keys in the order given."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed run left in `folder`; only to be called while holding its lock."""
    for leftover in folder.glob(f"{_TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, is_shared: bool = False) -> Generator[None]:
    """Holds the folder for one writing run; the lock falls with the process, however it ends.

    Args:
        folder: it is made where it is not there.
        is_shared: holds it together with others that share it, but with nobody else.

    Raises:
        InputError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as handle:
        try:
            kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{folder} is being written by another run; wait for it, or choose another --out."
            ) from None
        yield


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
