"""A file that is still coming: its bytes so far, and the version of the file they belong to."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Generator
from pathlib import Path


class PartialFile:
    """What has come of a file, in `<name>.part`; in `<name>.part.version` which version it is.

    Made by `held`, which keeps other processes away from it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._version_file = path.with_name(f"{path.name}.version")
        self._descriptor = descriptor

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return os.fstat(self._descriptor).st_size

    @property
    def version(self) -> str:
        """What the server calls the version that the bytes belong to; empty if it says nothing."""
        try:
            return self._version_file.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def restart(self, version: str) -> None:
        """Begins anew, with the version that comes now."""
        os.ftruncate(self._descriptor, 0)
        self._version_file.unlink(missing_ok=True)
        if version:
            self._version_file.write_text(version, encoding="utf-8")

    def append(self, block: bytes) -> None:
        """Adds bytes; on an error those that fitted are there, and counted."""
        view = memoryview(block)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        """Waits until all bytes are on the disk."""
        os.fsync(self._descriptor)

    def discard(self) -> None:
        """Removes everything."""
        self.path.unlink(missing_ok=True)
        self._version_file.unlink(missing_ok=True)

    def become(self, path: Path) -> None:
        """Gives the complete file its name."""
        os.replace(self.path, path)
        self._version_file.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def held(path: Path) -> Generator[PartialFile]:
    """Gives the partial file of `path` to one process at a time; the others wait.

    An empty one is removed at the end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    descriptor = _locked_descriptor(part)
    try:
        partial = PartialFile(part, descriptor)
        yield partial
    finally:
        if os.fstat(descriptor).st_nlink and not os.fstat(descriptor).st_size:
            PartialFile(part, descriptor).discard()
        os.close(descriptor)


def _locked_descriptor(part: Path) -> int:
    """Opens and locks a file that still has its name when the lock is held."""
    while True:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that writes {part}.", file=sys.stderr)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(part)):
                return descriptor
        os.close(descriptor)
