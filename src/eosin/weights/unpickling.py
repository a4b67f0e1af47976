"""Checkpoints of others, read without running what they bring.

Files of weights are pickles mostly, and a pickle can run anything. PyTorch's own restricted reader
is tried first. It refuses files with foreign objects, as those of most training scripts have
(`argparse.Namespace`, OmegaConf, Lightning); they are read by `inert_pickle`, which makes stubs of
such objects and calls nothing.
"""

import io
import mmap
import struct
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from eosin.errors import InputError
from eosin.weights.inert_pickle import InertUnpickler
from eosin.weights.inert_values import Storage

# The first of several pickles in a file of PyTorch before 1.6 is this number.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_NOT_OURS = (
    *(ValueError, IndexError, KeyError, TypeError, AttributeError, RuntimeError, EOFError),
    *(RecursionError, OverflowError, MemoryError, OSError, struct.error, zipfile.BadZipFile),
    *(NotImplementedError, UnicodeError, SafetensorError),
)


def read_checkpoint(path: Path) -> Any:
    """Reads a checkpoint: nested tables of tensors and plain values, and stubs for other objects.

    Files of `torch.save` in either of its formats, plain pickles and safetensors are read,
    whatever they are called. Nothing that a file names is imported or called.

    Args:
        path: the file.

    Returns:
        What the file holds; an object of a foreign class is an `eosin.weights.inert_pickle.Stub`.
        Tensors of large files are mapped into memory, not read: use them before the file changes.

    Raises:
        InputError: the file is absent, damaged, or no checkpoint.
    """
    if not path.is_file():
        raise InputError(f"{path} is not a file.")
    try:
        return _read(path)
    except _NOT_OURS as error:
        what = str(error).split("\n")[0][:200].rstrip(".") or type(error).__name__
        raise InputError(
            f"{path} cannot be read as a checkpoint: {what}. It is damaged, or no file of "
            "torch.save, pickle or safetensors."
        ) from None


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        beginning = file.read(9)
    if path.suffix == ".safetensors" or beginning[8:9] == b"{":
        return safetensors.torch.load_file(path)
    if beginning.startswith(b"PK"):
        return _read_archive(path)
    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    try:
        return _read_restricted(path, is_mapped=False)
    except Exception:  # whatever PyTorch's reader refuses, ours reads or explains
        return _read_stream(path)


def _read_restricted(path: Path, *, is_mapped: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)


def _read_archive(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()]
        pickle = next((name for name in names if name.split("/")[-1] == "data.pkl"), None)
        if any(name.split("/")[-1] == "constants.pkl" for name in names):
            raise ValueError("it is a TorchScript program; save its state_dict instead")
        if pickle is None:
            raise ValueError("it is a zip archive without data.pkl")
        # PyTorch does not compare the checksums that it writes.
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"its part {damaged} is not what was written")
        is_stored = all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        try:
            return _read_restricted(path, is_mapped=is_stored)
        except Exception:  # whatever PyTorch's reader refuses, ours reads or explains
            return _read_archive_inertly(archive, pickle.removesuffix("data.pkl"))


def _read_archive_inertly(archive: zipfile.ZipFile, folder: str) -> Any:
    if f"{folder}byteorder" in archive.namelist():
        _check_byte_order(archive.read(f"{folder}byteorder"))
    storages: dict[str, Storage] = {}

    def storage_of(identifier: Any) -> Storage:
        kind, dtype, key, _, count = identifier
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError(f"it refers to a {kind!r}")
        if key not in storages:
            content = bytearray(archive.read(f"{folder}data/{key}"))
            if len(content) < int(count) * dtype.itemsize:
                raise ValueError(f"its storage {key} has too few numbers")
            storages[key] = Storage(_untyped(content), dtype)
        return storages[key]

    return InertUnpickler(storage_of).load(io.BytesIO(archive.read(f"{folder}data.pkl")))


def _read_stream(path: Path) -> Any:
    """Reads a file of PyTorch before 1.6, or a plain pickle."""
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        stream: IO[bytes] = mapped  # pyright: ignore[reportAssignmentType]
        first = _load_plain(stream)
        if not isinstance(first, int) or first != _LEGACY_MAGIC:
            return first
        _load_plain(stream)  # the version of the protocol
        system = _load_plain(stream)
        if isinstance(system, dict):
            _check_byte_order(b"little" if system.get("little_endian", True) else b"big")
        return _read_legacy(stream, path.stat().st_size)


def _read_legacy(stream: IO[bytes], file_bytes: int) -> Any:
    storages: dict[str, Storage] = {}
    declared = 0

    def storage_of(identifier: Any) -> Storage:
        nonlocal declared
        kind, *rest = identifier
        if kind == "module":
            return rest[0]
        dtype, key, _, count, view = rest
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise ValueError(f"it refers to a {kind!r}")
        if key not in storages:
            declared += int(count) * dtype.itemsize
            if int(count) < 0 or declared > file_bytes:
                raise ValueError("it has more numbers than fit into its length")
            storages[key] = Storage(torch.UntypedStorage(int(count) * dtype.itemsize), dtype)
        whole = storages[key]
        if view is None:
            return whole
        _, offset, length = view
        start, end = offset * dtype.itemsize, (offset + length) * dtype.itemsize
        if not 0 <= start <= end <= whole.untyped.nbytes():
            raise ValueError("it has a view beyond its numbers")
        return Storage(whole.untyped[start:end], dtype)

    content = InertUnpickler(storage_of).load(stream)
    for key in _load_plain(stream):
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", stream.read(8))
        size = storage.untyped.nbytes()
        raw = stream.read(size)
        if count * storage.dtype.itemsize != size or len(raw) != size:
            raise ValueError("it ends within its numbers")
        storage.untyped.copy_(_untyped(bytearray(raw)))
    return content


def _load_plain(stream: IO[bytes]) -> Any:
    """Reads a pickle that has no storages."""

    def refuse(identifier: Any) -> Any:
        raise ValueError(f"it refers to {identifier!r}")

    return InertUnpickler(refuse).load(stream)


def _untyped(content: bytearray) -> torch.UntypedStorage:
    if not content:
        return torch.UntypedStorage(0)
    return torch.frombuffer(content, dtype=torch.uint8).untyped_storage()


def _check_byte_order(order: bytes) -> None:
    if order != b"little":
        raise ValueError(f"its numbers are in {order.decode('ascii', 'replace')}-endian order")
