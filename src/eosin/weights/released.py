"""Released weights on this machine: fetched on request, verified, and made into encoders."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eosin.downloads.download import Source, download
from eosin.encoders._base import Encoder, EncoderCard, create_timm_model
from eosin.encoders.vit import resizing_as_dino
from eosin.errors import InputError
from eosin.weights.catalogue import (
    LICENCE,
    RELEASE_URL,
    RELEASED,
    Released,
    released_statistics_note,
)
from eosin.weights.checksums import check_checksum, expected_checksum, record_checksum
from eosin.weights.licences import require_acceptance
from eosin.weights.local_records import weights_folder
from eosin.weights.strict import check_fit, flat_tensors, load_strictly
from eosin.weights.unpickling import read_checkpoint

__all__ = [
    "LICENCE",
    "RELEASED",
    "RELEASE_URL",
    "Obtained",
    "Released",
    "get_released",
    "load_released",
    "read_released",
    "released_statistics_note",
    "verify_released",
    "weights_folder",
]


@dataclass(frozen=True, kw_only=True)
class Obtained:
    """A released file that is in the weights folder and verified.

    Attributes:
        name: of the encoder.
        path: where the file lies.
        sha256: of the file.
        checksum: how the hash was checked: `published`, `recorded`, or `unknown` where this was
            the first file of its name.
        origin: `present`, `downloaded` or `imported`.
        note: what else is to be said, or empty.
    """

    name: str
    path: Path
    sha256: str
    checksum: str
    origin: str
    note: str = ""


def load_released(name: str, *, download: bool = False, accept_licence: bool = False) -> Encoder:
    """Loads a released encoder, in evaluation mode, with the statistics of its release notes.

    Args:
        name: one of `RELEASED`.
        download: fetches the file if it is not in `weights_folder()`.
        accept_licence: accepts the licence of the weights, which a download asks for once.

    Raises:
        InputError: the file is absent, is not the released one, or does not fit; or the licence
            was not accepted.
    """
    row = RELEASED[name]
    tensors, sha256 = read_released(name, download=download, accept_licence=accept_licence)
    model = create_timm_model(row.architecture, _model_args(row))
    load_strictly(model, tensors, row.path)
    card = EncoderCard(
        name=name,
        architecture=row.architecture,
        model_args=_model_args(row),
        input_px=row.input_px,
        mean=row.mean,
        std=row.std,
        pooling=row.pooling,
        provenance={
            "file": row.file,
            "file_sha256": sha256,
            "url": row.url,
            "licence": row.licence.short,
            "licence_url": row.licence.url,
            "citation": row.citation,
            "normalisation": "release notes",
        },
    )
    return Encoder(resizing_as_dino(model), card).eval()


def read_released(
    name: str,
    *,
    download: bool = False,
    accept_licence: bool = False,
    shows_progress: bool = True,
) -> tuple[dict[str, Tensor], str]:
    """Reads the tensors of a released file whose checksum holds.

    Args:
        name: one of `RELEASED`.
        download: fetches the file if it is not in `weights_folder()`.
        accept_licence: accepts the licence of the weights, which a download asks for once.
        shows_progress: whether a download shows a bar.

    Returns:
        The tensors by their names in the file, and the file's sha256.

    Raises:
        InputError: the file is absent or not the released one, or the licence was not accepted.
    """
    row = RELEASED[name]
    if not row.path.is_file():
        if not download:
            raise InputError(
                f"{name}: {row.path} is not there. Fetch it with: eosin weights get {name}, or "
                f"download=True; or download {row.url} ({row.licence.short}) and type: eosin "
                f"weights import {row.file}; or set EOSIN_WEIGHTS to the folder that has it."
            )
        get_released(name, accept_licence=accept_licence, shows_progress=shows_progress)
    sha256 = _checksum_of_present(row, name)
    return _read(row.path), sha256


def get_released(
    name: str, *, accept_licence: bool = False, shows_progress: bool = True
) -> Obtained:
    """Downloads a released file into `weights_folder()`, or verifies the one that is there.

    Args:
        name: one of `RELEASED`.
        accept_licence: accepts the licence of the weights; asked for once.
        shows_progress: whether a bar is shown.

    Raises:
        InputError: the licence was not accepted; the file cannot be had or is not the right one.
    """
    row = RELEASED[name]
    if row.path.is_file():
        _checksum_of_present(row, name)
        return record_obtained(name, "present")
    require_acceptance(
        row.licence,
        accept=accept_licence,
        command=f"eosin weights get {name} --accept-licence",
    )
    source = Source(url=row.url, hosts=row.hosts, size_bytes=row.size_bytes)
    is_new = download(
        source,
        row.path,
        verify=lambda path: _verify(path, name),
        shows_progress=shows_progress,
    )
    return record_obtained(name, "downloaded" if is_new else "present")


def verify_released(path: Path, name: str) -> str:
    """Gives the sha256 of a file if it is the released one and all its weights fit.

    Args:
        path: the file, wherever it lies.
        name: one of `RELEASED`.

    Raises:
        InputError: it is another file; the message has both hashes, or what does not fit.
    """
    row = RELEASED[name]
    sha256 = check_checksum(path, row.file, row.sha256)
    with torch.device("meta"):  # names and shapes alone
        model = create_timm_model(row.architecture, _model_args(row))
    check_fit(model, _read(path), path)
    return sha256


def record_obtained(name: str, origin: str) -> Obtained:
    """Describes a verified file in the weights folder, and records its hash if it is the first.

    Args:
        name: one of `RELEASED`.
        origin: `present`, `downloaded` or `imported`.
    """
    row = RELEASED[name]
    expected = expected_checksum(row.file, row.sha256)
    sha256, note = check_checksum(row.path, row.file, row.sha256), ""
    if expected.sha256 is None:
        if origin == "present":  # put there by hand
            verify_released(row.path, name)
        note = record_checksum(row.file, sha256, row.url if origin == "downloaded" else origin)
    return Obtained(
        name=name,
        path=row.path,
        sha256=sha256,
        checksum=expected.source,
        origin=origin,
        note=note,
    )


def _verify(path: Path, name: str) -> None:
    verify_released(path, name)


def _checksum_of_present(row: Released, name: str) -> str:
    try:
        return check_checksum(row.path, row.file, row.sha256)
    except InputError as error:
        raise InputError(
            f"{error} To get it anew, delete it and type: eosin weights get {name}"
        ) from None


def _model_args(row: Released) -> dict[str, Any]:
    return {"img_size": row.input_px, "dynamic_img_size": True} if row.pooling == "cls" else {}


def _read(path: Path) -> dict[str, Tensor]:
    return flat_tensors(read_checkpoint(path), path)
