"""Weight files that the user already has, such as on a machine without a network."""

import errno
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eosin import atomic
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of_file
from eosin.weights.checksums import expected_checksum
from eosin.weights.licences import require_acceptance
from eosin.weights.released import RELEASED, Obtained, record_obtained, verify_released


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which file becomes one of the released encoders."""

    file: Annotated[Path, tyro.conf.Positional]
    """A released file that was downloaded elsewhere."""
    name: str | None = None
    """Which encoder it is, where neither its checksum nor its file name says so."""
    accept_licence: bool = False
    """Accepts the licence of the weights, which is shown and asked for once."""

    def __post_init__(self) -> None:
        if self.name is not None and self.name not in RELEASED:
            raise UsageError(f"--name {self.name} is none of {', '.join(RELEASED)}.")


def import_file(config: Config) -> Obtained:
    """Copies a released file into the weights folder after the same checks as a download.

    Raises:
        InputError: the file is absent, another one, damaged or does not fit; or the licence was
            not accepted. Nothing is copied then.
        UsageError: it is not clear which encoder it is.
    """
    if not config.file.is_file():
        raise InputError(f"{config.file} is not a file.")
    name = _name_of(config)
    row = RELEASED[name]
    accepting = f"eosin weights import {config.file} --accept-licence"
    if config.name is not None:
        accepting += f" --name {name}"
    sha256 = verify_released(config.file, name)
    require_acceptance(row.licence, accept=config.accept_licence, command=accepting)
    if row.path.is_file():
        present = sha256_of_file(row.path)
        if present == sha256:
            return record_obtained(name, "present")
        if expected_checksum(row.file, row.sha256).sha256 is None:
            raise InputError(
                f"{config.file} has the sha256 {sha256}, but the {row.file} that is there, "
                f"{row.path}, has {present}, and none is published. Delete the one that you do "
                "not trust."
            )
    _copy(config.file, row.path, sha256)
    return record_obtained(name, "imported")


def _name_of(config: Config) -> str:
    """Which encoder a file is: by its checksum, else by its name, else as the user says."""
    sha256 = sha256_of_file(config.file)
    for name, row in RELEASED.items():
        if row.mirror.sha256 == sha256:
            raise InputError(
                f"{config.file} is the copy of {name} from {row.mirror.repo}, which has other "
                f"bytes than the release; its config declares {row.mirror.statistics}. Import "
                f"{row.file} instead, or load that copy by its folder."
            )
        if expected_checksum(row.file, row.sha256).sha256 == sha256:
            if config.name not in (None, name):
                raise UsageError(f"{config.file} is {name} by its sha256, not {config.name}.")
            return name
    by_file = [name for name, row in RELEASED.items() if row.file == config.file.name]
    if config.name is None and not by_file:
        raise UsageError(
            f"{config.file}: neither its sha256 ({sha256}) nor its name is that of a released "
            f"file ({', '.join(row.file for row in RELEASED.values())}). Say which it is: --name "
            f"{'|'.join(RELEASED)}"
        )
    return config.name or by_file[0]


def _copy(file: Path, path: Path, sha256: str) -> None:
    try:
        with atomic.replacing(path) as temporary:
            shutil.copyfile(file, temporary)
            if sha256_of_file(temporary) != sha256:
                raise InputError(f"{file} changed while it was copied; import it again.")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"The disk of {path.parent} is full; {file.stat().st_size:,} bytes are to be copied. "
            "Make room, or set EOSIN_WEIGHTS to another folder."
        ) from None
