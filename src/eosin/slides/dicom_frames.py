"""Where the frames of a DICOM file lie: in the file, and on the slide."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError

_PIXEL_DATA = bytes.fromhex("e07f1000 4f42 0000 ffffffff")
_ITEM, _END_OF_SEQUENCE = bytes.fromhex("feff00e0"), bytes.fromhex("feffdde0")
_ITEM_BYTES = 8


@dataclass(frozen=True, slots=True)
class DicomFile:
    """One file of a slide."""

    path: Path
    header: Any
    """What pydicom makes of it, without the pixels."""
    start: int
    """Where the element of the pixels starts."""


def damaged(path: Path, what: str) -> InputError:
    """Says what is wrong with a file."""
    return InputError(f"{path} is damaged: {what}; get a whole copy of it.")


def positive(file: DicomFile, tag: str) -> int:
    """Reads a number above 0 from the header.

    Raises:
        InputError: there is none.
    """
    value = file.header.get(tag)
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number <= 0:
        raise damaged(file.path, f"its {tag} is {value}")
    return number


def place_frames(
    file: DicomFile, shape: tuple[int, int], tile_px: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Says at which tile of the slide, counted row by row, each frame lies.

    Where the header says nothing, they are taken to go on row by row; see `is_order_known`.

    Args:
        file: the file.
        shape: how many rows and columns of tiles there are.
        tile_px: width and height of a tile.

    Raises:
        InputError: the frames make no such grid.
    """
    tiles = shape[0] * shape[1]
    frames = positive(file, "NumberOfFrames") if "NumberOfFrames" in file.header else 1
    groups = file.header.get("PerFrameFunctionalGroupsSequence")
    if _is_full(file) or not _has_places(file):
        if frames != tiles:
            raise damaged(file.path, f"it has {frames} frames for {tiles} tiles")
        return np.arange(frames)
    if len(groups) != frames:
        raise damaged(file.path, f"it has {frames} frames and {len(groups)} places for them")
    places = np.array([_place(file.path, group, shape, tile_px) for group in groups], np.int64)
    if len(np.unique(places)) < frames:
        raise InputError(
            f"{file.path} has several frames at one place, such as focal planes or optical paths;"
            " export one of them."
        )
    return places


def is_order_known(file: DicomFile) -> bool:
    """Whether the header says how the frames lie on the slide."""
    return _is_full(file) or _has_places(file)


def _is_full(file: DicomFile) -> bool:
    return file.header.get("DimensionOrganizationType") == "TILED_FULL"


def _has_places(file: DicomFile) -> bool:
    groups = file.header.get("PerFrameFunctionalGroupsSequence")
    return bool(groups) and "PlanePositionSlideSequence" in groups[0]


def _place(path: Path, group: Any, shape: tuple[int, int], tile_px: tuple[int, int]) -> int:
    position = group.PlanePositionSlideSequence[0]
    x_px = int(position.ColumnPositionInTotalImagePixelMatrix) - 1
    y_px = int(position.RowPositionInTotalImagePixelMatrix) - 1
    column, row = x_px // tile_px[0], y_px // tile_px[1]
    is_on_grid = (x_px % tile_px[0], y_px % tile_px[1]) == (0, 0)
    if not is_on_grid or not (0 <= column < shape[1] and 0 <= row < shape[0]):
        raise InputError(
            f"{path} has a frame at x {x_px}, y {y_px}, which is not on the grid of its frames;"
            " Eosin does not read overlapping frames. Convert it."
        )
    return row * shape[1] + column


def find_frames(
    file: DicomFile, frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Finds where the stream of each frame starts in the file, and how long it is.

    The extended offset table says it. Without one, the headers of all frames are read, since the
    basic offset table says nothing of their lengths, nor whether they are in one piece.

    Raises:
        InputError: the file is truncated, or damaged there, or has its frames in several pieces.
    """
    with open(file.path, "rb", buffering=0) as stream:
        stream.seek(file.start)
        if stream.read(len(_PIXEL_DATA)) != _PIXEL_DATA:
            raise damaged(file.path, "it has no frames")
        start = file.start + len(_PIXEL_DATA)
        table_bytes = _read_item(file.path, stream, start)
        if table_bytes is None:
            raise damaged(file.path, "it has no frames")
        start += _ITEM_BYTES + table_bytes
        if file.header.get("ExtendedOffsetTable"):
            return _read_table(file, stream, start, frames)
        return _walk(file, stream, start, frames)


def _read_table(
    file: DicomFile, stream: BinaryIO, start: int, frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    offsets, lengths = (
        np.frombuffer(file.header.get(tag) or b"", "<u8").astype(np.int64)
        for tag in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
    )
    if (len(offsets), len(lengths)) != (frames, frames):
        raise damaged(file.path, f"its extended offset table is not for {frames} frames")
    for number in (0, frames - 1):
        # Streams of an odd length are padded.
        item_bytes = _read_item(file.path, stream, start + int(offsets[number]))
        if item_bytes is None or item_bytes - lengths[number] not in (0, 1):
            raise damaged(file.path, f"its extended offset table is wrong for frame {number}")
    return start + offsets + _ITEM_BYTES, lengths


def _walk(
    file: DicomFile, stream: BinaryIO, start: int, frames: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    places: list[tuple[int, int]] = []
    while len(places) <= frames:
        length = _read_item(file.path, stream, start)
        if length is None:
            break
        places.append((start + _ITEM_BYTES, length))
        start += _ITEM_BYTES + length
    if len(places) > frames:
        raise InputError(
            f"{file.path} has its {frames} frames in several fragments each, which Eosin does not"
            " read; convert it."
        )
    if len(places) < frames:
        raise damaged(file.path, f"it has {len(places)} of {frames} frames")
    offsets, lengths = np.array(places, np.int64).T
    return offsets, lengths


def _read_item(path: Path, stream: BinaryIO, start: int) -> int | None:
    """Reads how long the item at `start` is; None if the sequence ends there."""
    size = os.fstat(stream.fileno()).st_size
    stream.seek(start)
    head = stream.read(_ITEM_BYTES)
    length = int.from_bytes(head[4:], "little")
    if len(head) < _ITEM_BYTES or (head[:4] == _ITEM and start + _ITEM_BYTES + length > size):
        raise InputError(f"{path} is truncated: its frames go on beyond its end; get a whole copy.")
    if head[:4] == _END_OF_SEQUENCE:
        return None
    if head[:4] != _ITEM:
        raise damaged(path, f"there is no frame at byte {start}")
    return length
