"""Folders on this machine and behind URLs, read and written in the same way."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import fsspec
import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from eosin import atomic
from eosin.errors import UsageError
from eosin.store.tile_bytes import OpenFiles

_OPEN_FILES = 64


def is_url(location: str | Path) -> bool:
    """Tells whether a location is a URL of any kind that fsspec may know."""
    return "://" in str(location)


class Location:
    """A folder: a path, or a URL that fsspec reads, such as `s3://bucket/tiles`.

    Files appear whole or not at all: on a disk by a rename, elsewhere by the upload of a file that
    was finished before. Safe to use from threads and from forked processes.

    Args:
        location: path or URL.

    Raises:
        UsageError: no installed package reads URLs of this kind.
    """

    def __init__(self, location: str | Path) -> None:
        self.name = str(location)
        self.local: Path | None = None if is_url(location) else Path(location)
        self._opened: tuple[int, Any] | None = None
        self._files = OpenFiles(_OPEN_FILES)
        if self.local is None:
            files, self._root = self._open()
            if isinstance(files, LocalFileSystem):
                self.local = Path(self._root)

    def __reduce__(self) -> tuple[type["Location"], tuple[str]]:
        return Location, (self.name,)

    def __str__(self) -> str:
        return self.name

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Reads `length` bytes of a file from `offset`, or fewer where it ends before.

        Raises:
            OSError: it cannot be read.
        """
        if self.local is not None:
            return self._files.read(self.local / name, offset, length)
        with _as_os_error():
            return self._remote.cat_file(self._path(name), start=offset, end=offset + length)

    def read_all(self, name: str) -> bytes:
        """Reads a whole file.

        Raises:
            OSError: it cannot be read; FileNotFoundError if there is none.
        """
        if self.local is not None:
            return (self.local / name).read_bytes()
        with _as_os_error():
            return self._remote.cat_file(self._path(name))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Lists the files of a folder below, with their sizes; none if there is no such folder."""
        if self.local is not None:
            files = (path for path in (self.local / folder).glob("*") if path.name[0] != ".")
            return {path.name: path.stat().st_size for path in files if path.is_file()}
        try:
            with _as_os_error():
                self._remote.invalidate_cache()
                found = self._remote.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        return {each["name"].rsplit("/", 1)[-1]: each["size"] for each in found if each["size"]}

    @contextlib.contextmanager
    def copy_of(self, name: str) -> Generator[Path]:
        """Gives a file as one on this machine, for as long as the block lasts."""
        if self.local is not None:
            yield self.local / name
            return
        with tempfile.TemporaryDirectory(prefix="eosin-") as folder:
            path = Path(folder) / Path(name).name
            self.download(name, path)
            yield path

    def download(self, name: str, path: Path) -> None:
        """Copies a file to this machine."""
        with _as_os_error():
            self._remote.get_file(self._path(name), str(path))

    @contextlib.contextmanager
    def writing(self, name: str) -> Generator[Path]:
        """Gives a path to write a file to, which becomes `name` if the block ends without error."""
        if self.local is not None:
            with atomic.replacing(self.local / name) as path:
                yield path
            return
        with tempfile.TemporaryDirectory(prefix="eosin-") as folder:
            path = Path(folder) / Path(name).name
            yield path
            with _as_os_error():
                target = self._path(name)
                self._remote.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._remote.put_file(str(path), target)

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Writes a whole file.

        Args:
            name: below the folder.
            content: all of it.
            durable: whether it must outlive a power cut from now on, for which a disk takes
                milliseconds; otherwise a power cut may leave it shorter than it was.
        """
        if self.local is None:
            target = self._path(name)
            with _as_os_error():
                self._remote.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._remote.pipe_file(target, content)
        elif durable:
            atomic.write_bytes(self.local / name, content)
        else:
            path = self.local / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".writing-{os.getpid()}-{path.name}")
            temporary.write_bytes(content)
            temporary.replace(path)

    def is_empty(self) -> bool:
        """Tells whether there is nothing in the folder, hidden files aside."""
        if self.local is not None:
            return all(path.name.startswith(".") for path in self.local.glob("*"))
        try:
            with _as_os_error():
                return not self._remote.ls(self._path(""), detail=False)
        except FileNotFoundError:
            return True

    @contextlib.contextmanager
    def locked(self) -> Generator[None]:
        """Holds the folder for one writing run.

        Behind a URL there is nothing to hold: two exports to one URL are the user's to avoid, and
        since equal input gives equal files, they do no harm but to the time.

        Raises:
            InputError: another process holds it.
        """
        with contextlib.nullcontext() if self.local is None else atomic.locked(self.local):
            yield

    def remove_leftovers(self, folder: str = "") -> None:
        """Removes what a killed run left in a folder; only to be called while holding the lock."""
        if self.local is not None:
            atomic.remove_leftovers(self.local / folder)

    @property
    def _remote(self) -> Any:
        # The connections of a forked process's parent must not be shared.
        if self._opened is None or self._opened[0] != os.getpid():
            self._open()
        assert self._opened is not None
        return self._opened[1]

    def _open(self) -> tuple[Any, str]:
        try:
            files, root = fsspec.core.url_to_fs(self.name)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{self.name} cannot be opened: {error}.") from error
        self._opened = (os.getpid(), files)
        return files, str(root)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")


@contextlib.contextmanager
def _as_os_error() -> Generator[None]:
    """Turns what the many packages behind fsspec raise into one kind of error."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def cache_folder(location: Location, fingerprint: str) -> Path:
    """Where what is fetched or derived of a read-only store is kept on this machine.

    `~/.cache/eosin/stores`, or below `XDG_CACHE_HOME`.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = hashlib.sha256(str(location).encode()).hexdigest()
    return root / "eosin" / "stores" / f"{place[:16]}-{fingerprint[:16]}"
