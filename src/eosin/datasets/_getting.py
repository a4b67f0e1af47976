"""Public data sets, fetched because the user asked, verified and unpacked; forms for the others."""

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eosin import plugins
from eosin.atomic import locked, remove_leftovers
from eosin.datasets._base import Archive, Info, data_folder, installed_root
from eosin.datasets._unpacking import unpack
from eosin.downloads.download import Patience, Source, download
from eosin.errors import InputError, UsageError

_FETCHED = ".fetched"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is fetched, and where it goes."""

    name: Annotated[str, tyro.conf.Positional]
    """A name that `eosin datasets` lists."""
    root: Path | None = None
    """Folder of data sets; each has a folder of its name there. By default $EOSIN_DATA, or ./data
    where that is not set."""


@dataclass(frozen=True, kw_only=True)
class Got:
    """A dataset that was asked for.

    Attributes:
        name: of the dataset.
        root: its folder.
        state: `present`, `fetched`, `unpacked` where the user had put the archives there, or `by
            hand` where it must be asked for with a form.
        files: names of the archives that were fetched now.
        steps: what is left for the user to do.
    """

    name: str
    root: Path
    state: str
    files: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


def get(config: Config, *, patience: Patience | None = None, shows_progress: bool = True) -> Got:
    """Fetches what is missing of a dataset, or says what to do by hand.

    An archive that the user has put into the dataset's folder is verified and unpacked, and not
    fetched. What was fetched and unpacked is deleted.

    Args:
        config: which dataset.
        patience: how long downloads try.
        shows_progress: whether bars are shown.

    Raises:
        InputError: an archive cannot be had, is not the right one, or cannot be unpacked.
        UsageError: there is no such dataset.
    """
    info: Info = plugins.load("datasets", config.name).INFO
    folder = data_folder() if config.root is None else config.root
    root = folder / config.name
    if not info.archives and not info.how_to_get:
        raise UsageError(f"{config.name} is for images of your own; name their folder instead.")
    if not info.archives:
        state = "present" if installed_root(config.name, folder) is not None else "by hand"
        return Got(name=config.name, root=root, state=state, steps=steps_by_hand(info, root))
    missing = [archive for archive in info.archives if not (root / archive.gives).exists()]
    if not missing:
        return Got(name=config.name, root=root, state="present")
    print(_terms(info), file=sys.stderr)
    fetched: list[str] = []
    with locked(root):
        remove_leftovers(root)
        for archive in missing:
            if not (root / archive.gives).exists() and _one(
                archive, root, patience or Patience(), shows_progress
            ):
                fetched.append(archive.name)
    state = "fetched" if fetched else "unpacked"
    return Got(name=config.name, root=root, state=state, files=tuple(fetched))


def steps_by_hand(info: Info, root: Path) -> tuple[str, ...]:
    """Gives the steps to get a dataset that cannot be fetched, with its folder filled in."""
    return tuple(step.replace("{root}", str(root)) for step in info.how_to_get)


def _one(archive: Archive, root: Path, patience: Patience, shows_progress: bool) -> bool:
    """Fetches and unpacks one archive; gives whether it was fetched."""
    own = root / archive.name
    if own.is_file() and own != root / archive.gives:
        check(own, archive.checksum)
        unpack(archive, own, root, shows_progress=shows_progress)
        return False
    file = root / _FETCHED / archive.name
    source = Source(
        url=archive.url, hosts=archive.hosts, size_bytes=archive.size_bytes, patience=patience
    )
    is_new = download(
        source,
        file,
        verify=lambda path: check(path, archive.checksum),
        shows_progress=shows_progress,
    )
    unpack(archive, file, root, shows_progress=shows_progress)
    file.unlink()
    if not any(file.parent.iterdir()):
        file.parent.rmdir()
    return is_new


def check(path: Path, checksum: str) -> None:
    """Goes on only if a file has the published hash.

    Args:
        path: the file.
        checksum: kind and hash, such as `md5:2fd1…`.

    Raises:
        InputError: it has another; the message has both.
    """
    kind, _, published = checksum.partition(":")
    with open(path, "rb") as handle:
        found = hashlib.file_digest(
            handle, lambda: hashlib.new(kind, usedforsecurity=False)
        ).hexdigest()
    if found != published:
        raise InputError(
            f"{path} is not the published archive ({path.stat().st_size:,} bytes): its {kind} is "
            f"{found}, published is {published}. It is cut short, damaged or another file."
        )


def _terms(info: Info) -> str:
    return "\n".join(
        [
            info.title,
            f"Licence: {info.licence} ({info.licence_url}); it binds whoever uses the data.",
            f"To cite: {info.citation}",
        ]
    )
