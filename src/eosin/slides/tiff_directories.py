"""Whether a TIFF file holds all of its own header; what parsers skip in silence is missed here."""

import os
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from eosin.errors import InputError

_SUB_DIRECTORIES = 330
_FIRST_PRIVATE_TAG = 32768
_MOST_DIRECTORIES = 4096
_MOST_ENTRIES = 65535
_BYTES_OF_TYPE = {
    **{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8},
    **{13: 4, 16: 8, 17: 8, 18: 8},
}


class _Form(NamedTuple):
    """How this kind of TIFF writes numbers."""

    order: str
    entries: str
    """How many entries a directory has."""
    word: str
    """How many values an entry has, and where things lie."""


def check_complete(path: Path) -> None:
    """Refuses a TIFF file whose directories, or values in them, lie beyond its end.

    A writer may put its directories anywhere, so a truncated file can look like a whole one of
    fewer levels, or like one that says nothing of what it is.

    Raises:
        InputError: the file is truncated.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            _walk(file, size)
        except (struct.error, EOFError) as error:
            raise InputError(
                f"{path} is truncated, or its header is damaged: a part of it lies beyond the"
                " file's end; get a whole copy of it."
            ) from error


def _walk(file: BinaryIO, size: int) -> None:
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None:
        return
    (version,) = struct.unpack_from(f"{order}H", start, 2)
    forms = {42: _Form(order, f"{order}H", f"{order}I"), 43: _Form(order, f"{order}Q", f"{order}Q")}
    if version not in forms:
        return
    form = forms[version]
    waiting = [*struct.unpack_from(form.word, start, 4 if version == 42 else 8)]
    seen = {0}
    while waiting and len(seen) <= _MOST_DIRECTORIES:
        offset = waiting.pop()
        if offset not in seen:
            seen.add(offset)
            waiting += _read_directory(file, size, offset, form)


def _read_directory(file: BinaryIO, size: int, offset: int, form: _Form) -> list[int]:
    """Checks a directory, and gives where the next one and those below it lie."""
    word_bytes = struct.calcsize(form.word)
    entry_bytes = 4 + 2 * word_bytes
    start = offset + struct.calcsize(form.entries)
    (count,) = struct.unpack(form.entries, _read(file, size, offset, start - offset))
    if count > _MOST_ENTRIES:
        raise EOFError
    content = _read(file, size, start, count * entry_bytes + word_bytes)
    found = [*struct.unpack_from(form.word, content, count * entry_bytes)]
    for at in range(0, count * entry_bytes, entry_bytes):
        tag, kind = struct.unpack_from(f"{form.order}HH", content, at)
        (number,) = struct.unpack_from(form.word, content, at + 4)
        if tag == _SUB_DIRECTORIES and number > _MOST_DIRECTORIES:
            raise EOFError
        length = _BYTES_OF_TYPE.get(kind, 0) * number
        value = content[at + 4 + word_bytes : at + entry_bytes]
        if length > word_bytes and tag < _FIRST_PRIVATE_TAG:
            (place,) = struct.unpack(form.word, value)
            if length > size - place:
                raise EOFError
            if tag == _SUB_DIRECTORIES:
                value = _read(file, size, place, length)
        if tag == _SUB_DIRECTORIES and _BYTES_OF_TYPE.get(kind) in (4, 8):
            letter = "I" if _BYTES_OF_TYPE[kind] == 4 else "Q"
            found += struct.unpack_from(f"{form.order}{number}{letter}", value)
    return found


def _read(file: BinaryIO, size: int, offset: int, length: int) -> bytes:
    if length > size - offset:
        raise EOFError
    file.seek(offset)
    return file.read(length)
