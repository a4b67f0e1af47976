"""Archives of others, unpacked into one folder, within limits, whole or not at all."""

import errno
import gzip
import os
import shutil
import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from eosin.atomic import replacing
from eosin.datasets._base import Archive
from eosin.errors import InputError
from eosin.progress import Bar

_BLOCK_BYTES = 1 << 20
_MB = 10**6
_MOST_MEMBERS = 1_000_000
_UNPACKING = ".unpacking"
_JUNK = ("__MACOSX/",)
# What zipfile, gzip and zlib raise for damaged files, besides an OSError of an impossible place.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    ValueError,
    struct.error,
)


def unpack(archive: Archive, file: Path, root: Path, *, shows_progress: bool = True) -> None:
    """Unpacks a `.zip` or `.gz` into `root`; any other file is moved there.

    What comes gets its name in `root` when it is complete. What a killed run left is removed.

    Args:
        archive: what the file is; `gives` must be there in the end.
        file: the archive, verified.
        root: the dataset's folder.
        shows_progress: whether a bar is shown.

    Raises:
        InputError: the archive is damaged, too large, leads out of the folder, or lacks what it
            should give; or there is no room, or something of its names is there already.
    """
    try:
        if file.suffix == ".zip":
            _unzip(archive, file, root, shows_progress)
        elif file.suffix == ".gz":
            _gunzip(archive, file, root / archive.gives, shows_progress)
        else:
            with replacing(root / archive.gives) as temporary:
                shutil.copyfile(file, temporary)
    except _DAMAGED as error:
        raise InputError(f"{file} is damaged: {error}. Delete it and repeat.") from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InputError(f"{file} is damaged. Delete it and repeat.") from None
    except RuntimeError as error:  # what zipfile raises for encrypted members
        raise InputError(f"{file} cannot be unpacked: {error}.") from None


def _gunzip(archive: Archive, file: Path, path: Path, shows_progress: bool) -> None:
    with replacing(path) as temporary, gzip.open(file) as packed, open(temporary, "wb") as out:
        with _bar(archive, 0, shows_progress) as bar:
            done = _copy(packed, out, archive.most_bytes, bar)
        if not done:
            raise EOFError("it is empty")
        if done > archive.most_bytes:
            raise _too_large(file, archive)


def _unzip(archive: Archive, file: Path, root: Path, shows_progress: bool) -> None:
    folder = root / _UNPACKING
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with zipfile.ZipFile(file) as packed:
            members = _members(packed, archive, file)
            total = sum(member.file_size for member in members)
            if total > (free := shutil.disk_usage(root).free):
                raise InputError(
                    f"{root} has no room: {total:,} bytes are to be unpacked, {free:,} are free."
                )
            with _bar(archive, total, shows_progress) as bar:
                for member in members:
                    path = folder / member.filename
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with packed.open(member) as source, open(path, "wb") as out:
                        _copy(source, out, member.file_size, bar)
        if not (folder / archive.gives).exists():
            raise InputError(f"{file} holds no {archive.gives}; it is another archive.")
        _move_in(folder, root)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _members(packed: zipfile.ZipFile, archive: Archive, file: Path) -> list[zipfile.ZipInfo]:
    """Gives the files to unpack, if all of them stay in the folder and within the limits."""
    members = [
        member
        for member in packed.infolist()
        if not member.is_dir() and not member.filename.startswith((*_JUNK, *archive.leaves_out))
    ]
    for member in members:
        path = PurePosixPath(member.filename)
        is_link = stat.S_ISLNK(member.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or is_link:
            raise InputError(
                f"{file} has a member that leads elsewhere ({member.filename!r}); nothing of it "
                "was unpacked."
            )
    total = sum(member.file_size for member in members)
    if total > archive.most_bytes or len(members) > _MOST_MEMBERS:
        raise _too_large(file, archive)
    return members


def _move_in(folder: Path, root: Path) -> None:
    inner = sorted(folder.iterdir()) if folder.is_dir() else []
    there = [path.name for path in inner if (root / path.name).exists()]
    if there:
        raise InputError(
            f"{root / there[0]} is there already and is not complete; move it away and repeat."
        )
    os.sync()  # before they get their names, as single files are
    for path in inner:
        os.replace(path, root / path.name)


def _copy(source: IO[bytes] | gzip.GzipFile, out: IO[bytes], most_bytes: int, bar: Bar) -> int:
    """Copies at most a block more than `most_bytes`, and gives how many bytes there were."""
    done = 0
    while done <= most_bytes and (block := source.read(_BLOCK_BYTES)):
        out.write(block)
        done += len(block)
        bar.advance(len(block) / _MB)
    return done


def _bar(archive: Archive, total_bytes: int, shows_progress: bool) -> Bar:
    total = max(total_bytes or archive.most_bytes, _MB) // _MB
    return Bar(f"unpacking {archive.name}", total, "MB", is_hidden=not shows_progress)


def _too_large(file: Path, archive: Archive) -> InputError:
    return InputError(
        f"{file} would take more than {archive.most_bytes:,} bytes unpacked, which this archive "
        "cannot; nothing of it was unpacked."
    )
