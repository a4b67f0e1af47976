"""Which DICOM files belong together: the series each is of, read off its header alone.

A DICOM slide is a folder of files, one for each level, label and overview. This is asked of every
file of a cohort, also where pydicom is missing, so it reads a few hundred bytes of each.
"""

import functools
import struct
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".dcm"

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_TRANSFER_SYNTAX = 0x00020010
_SERIES_INSTANCE_UID = 0x0020000E
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_IMPLICIT_VR = "1.2.840.10008.1.2"
# Deflated, and with the large end first: neither is in use for slides.
_UNKNOWN_SYNTAXES = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")
_VRS_WITH_LONG_LENGTH = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_MOST_TEXT_BYTES = 256


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is a DICOM file."""
    with open(path, "rb") as file:
        return _is_dicom(file)


def files_of_series(path: Path) -> list[Path]:
    """Lists the files of one slide, sorted: those of the same series, folder and suffix."""
    series = series_uid(path)
    if series is None:
        return [path]
    beside = (one for one in path.parent.iterdir() if one.suffix.lower() == path.suffix.lower())
    return sorted(one for one in beside if one.is_file() and series_uid(one) == series)


def series_uid(path: Path) -> str | None:
    """Reads which series a DICOM file is of; None if it is none, or does not say."""
    try:
        return _series_uid(path, path.stat().st_mtime_ns)
    except OSError:
        return None


# A folder may hold thousands of slides, of which each asks for all.
@functools.lru_cache(maxsize=2**17)
def _series_uid(path: Path, modified_ns: int) -> str | None:
    del modified_ns
    with open(path, "rb") as file:
        try:
            return _find_series(file) if _is_dicom(file) else None
        except (struct.error, RecursionError, UnicodeDecodeError):
            return None


def _is_dicom(file: BinaryIO) -> bool:
    return file.read(_PREAMBLE_BYTES + len(_MAGIC))[_PREAMBLE_BYTES:] == _MAGIC


def _find_series(file: BinaryIO) -> str | None:
    """Walks over the elements, which come in the order of their tags."""
    is_explicit, syntax = True, ""
    while True:
        start = file.tell()
        (group,) = _unpack(file, "<H")
        file.seek(start)
        if group > 2 and syntax in _UNKNOWN_SYNTAXES:
            return None
        tag, vr, length = _read_element(file, is_explicit or group <= 2)
        if tag > _SERIES_INSTANCE_UID:
            return None
        if tag in (_TRANSFER_SYNTAX, _SERIES_INSTANCE_UID):
            text = file.read(min(length, _MOST_TEXT_BYTES)).decode("ascii").strip("\0 ")
            if tag == _SERIES_INSTANCE_UID:
                return text or None
            syntax, is_explicit = text, text != _IMPLICIT_VR
        else:
            _skip_value(file, vr, length, is_explicit)


def _read_element(file: BinaryIO, is_explicit: bool) -> tuple[int, bytes, int]:
    """Reads tag, kind of value and length, up to where the value starts."""
    group, element = _unpack(file, "<HH")
    tag = group << 16 | element
    if not is_explicit or group == _ITEM >> 16:
        return tag, b"", _unpack(file, "<I")[0]
    vr = file.read(2)
    if vr in _VRS_WITH_LONG_LENGTH:
        file.seek(2, 1)
        return tag, vr, _unpack(file, "<I")[0]
    return tag, vr, _unpack(file, "<H")[0]


def _skip_value(file: BinaryIO, vr: bytes, length: int, is_explicit: bool) -> None:
    if length != _UNDEFINED:
        file.seek(length, 1)
        return
    # What somebody did not know, he passed on as he got it: without kinds of values.
    is_explicit = is_explicit and vr != b"UN"
    while (item := _read_element(file, is_explicit))[0] != _END_OF_SEQUENCE:
        if item[2] != _UNDEFINED:
            file.seek(item[2], 1)
            continue
        while (inner := _read_element(file, is_explicit))[0] != _END_OF_ITEM:
            _skip_value(file, inner[1], inner[2], is_explicit)


def _unpack(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))
