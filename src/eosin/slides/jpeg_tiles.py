"""Levels that a file holds as JPEG tiles, decoded from the file straight into the wanted box."""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from eosin.errors import InputError
from eosin.slides.encoding import JpegEncoding, read_encoding
from eosin.slides.jpeg_layout import JpegLayout, JpegLevel
from eosin.slides.pixels import RGB

# A JPEG starts with this marker, and so does the stream of a tile behind shared tables.
_START = b"\xff\xd8"


class JpegTilesPixels:
    """A slide read by its layout.

    Args:
        path: the slide, for messages and for its folder.
        layout: where its tiles lie.
        cache_bytes: size of a cache of tiles that were used in part, which pays where boxes that
            are read one after another share them.

    Raises:
        InputError: a file cannot be opened, or ends before its last tile.
    """

    def __init__(self, path: Path, layout: JpegLayout, cache_bytes: int = 0) -> None:
        self.layout = layout
        self.name = layout.back_end
        self.vendor = layout.vendor
        self.mpp = layout.mpp
        self.level_dimensions = tuple((level.width_px, level.height_px) for level in layout.levels)
        self.level_downsamples = layout.level_downsamples
        self.scales = tuple(level.scales for level in layout.levels)
        self._path = path
        self._kept = _Kept(cache_bytes) if cache_bytes > 0 else None
        self._scratch = threading.local()
        self._files: dict[str, _File] = {}
        for level in layout.levels:
            if level.file_name not in self._files:
                self._files[level.file_name] = _File(path.parent / level.file_name)
            self._files[level.file_name].check_holds(level)

    def read_level(
        self, level: int, x_px: int, y_px: int, width_px: int, height_px: int, scale: int = 1
    ) -> RGB:
        """See `Pixels.read_level`."""
        grid = self.layout.levels[level]
        left, top = max(x_px, 0), max(y_px, 0)
        right = min(x_px + width_px, -(-grid.width_px // scale))
        bottom = min(y_px + height_px, -(-grid.height_px // scale))
        is_inside = (right - left, bottom - top) == (width_px, height_px)
        out = np.empty((height_px, width_px, 3), np.uint8)
        if not is_inside:
            out[:] = 255
        if right <= left or bottom <= top:
            return out
        tile_width, tile_height = grid.tile_width_px // scale, grid.tile_height_px // scale
        columns = range(left // tile_width, -(-right // tile_width))
        for row in range(top // tile_height, -(-bottom // tile_height)):
            tile_top = row * tile_height
            y0, y1 = max(top, tile_top), min(bottom, tile_top + tile_height)
            kept, jpegs = self._fetch_row(level, row, columns, scale)
            for column in columns:
                tile_left = column * tile_width
                x0, x1 = max(left, tile_left), min(right, tile_left + tile_width)
                target = out[y0 - y_px : y1 - y_px, x0 - x_px : x1 - x_px]
                is_whole = target.shape[:2] == (tile_height, tile_width)
                tile = kept.get(column)
                if tile is None:
                    if column not in jpegs:
                        target[:] = 255
                        continue
                    buffer = self._choose_buffer(target, is_whole, (tile_height, tile_width, 3))
                    self._decode(level, row, column, jpegs[column], scale, buffer)
                    if buffer is target:
                        continue
                    tile = _Tile(buffer, buffer.size)
                target[:] = tile.pixels[
                    y0 - tile_top : y1 - tile_top, x0 - tile_left : x1 - tile_left
                ]
                if self._kept is not None and not is_whole:
                    self._kept.put((level, scale, row, column), tile, target.size)
        return out

    def _fetch_row(
        self, level: int, row: int, columns: range, scale: int
    ) -> "tuple[dict[int, _Tile], dict[int, bytes]]":
        """Gives the kept tiles of a row, and the JPEGs of the others that were scanned."""
        grid = self.layout.levels[level]
        kept: dict[int, _Tile] = {}
        if self._kept is not None:
            for column in columns:
                tile = self._kept.take((level, scale, row, column))
                if tile is not None:
                    kept[column] = tile
        row_offsets = grid.offsets[row, columns.start : columns.stop].tolist()
        row_lengths = grid.lengths[row, columns.start : columns.stop].tolist()
        places = {
            column: (offset, length)
            for column, offset, length in zip(columns, row_offsets, row_lengths, strict=True)
            if length > 0 and column not in kept
        }
        return kept, self._read_jpegs(grid, places)

    def _read_jpegs(self, grid: JpegLevel, places: dict[int, tuple[int, int]]) -> dict[int, bytes]:
        """Reads tiles as whole JPEGs, all at once where they lie side by side in the file."""
        file, start_of_jpeg = self._files[grid.file_name], _START + grid.head
        if len(places) > 1:
            start = min(offset for offset, _ in places.values())
            end = max(offset + length for offset, length in places.values())
            # Scanners pad by some bytes; what lies further apart is cheaper to read one by one.
            if end - start <= 1.25 * sum(length for _, length in places.values()):
                block = file.read(start, end - start)
                return {
                    column: start_of_jpeg + block[offset - start + 2 : offset - start + length]
                    for column, (offset, length) in places.items()
                }
        return {
            column: start_of_jpeg + file.read(offset, length)[2:]
            for column, (offset, length) in places.items()
        }

    def _choose_buffer(self, target: RGB, is_whole: bool, shape: tuple[int, int, int]) -> RGB:
        """Where to decode a tile: into its place, or beside it if it does not fill that as a block.

        A buffer of the tile's size also keeps a forged header from asking for more.
        """
        if is_whole and target.flags.c_contiguous:
            return target
        if self._kept is not None and not is_whole:
            return np.empty(shape, np.uint8)
        scratch: RGB | None = getattr(self._scratch, "buffer", None)
        if scratch is None or scratch.shape != shape:
            scratch = self._scratch.buffer = np.empty(shape, np.uint8)
        return scratch

    def _decode(
        self, level: int, row: int, column: int, jpeg: bytes, scale: int, buffer: RGB
    ) -> None:
        grid = self.layout.levels[level]
        try:
            if scale > 1:
                height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
                if (height, width) != (grid.tile_height_px, grid.tile_width_px):
                    raise ValueError(f"it is {width} x {height} px")
            pixels = simplejpeg.decode_jpeg(
                jpeg,
                min_height=buffer.shape[0] if scale > 1 else 0,
                min_width=buffer.shape[1] if scale > 1 else 0,
                min_factor=scale,
                buffer=buffer,
            )
            if pixels.shape != buffer.shape:
                raise ValueError(f"it is {pixels.shape[1]} x {pixels.shape[0]} px")
        except ValueError as error:
            downsample = self.level_downsamples[level]
            x, y = column * grid.tile_width_px, row * grid.tile_height_px
            raise InputError(
                f"{self._path} is damaged: no pixels at x {round(x * downsample)},"
                f" y {round(y * downsample)} of level {level} ({error}); get a whole copy of it."
            ) from error

    def encoding(self, level: int) -> JpegEncoding | None:
        """See `Pixels.encoding`; read off the first tile that was scanned."""
        jpeg = first_jpeg(self._path, self.layout.levels[level])
        return read_encoding(jpeg) if jpeg is not None else None

    def close(self) -> None:
        """Releases the files."""
        for file in self._files.values():
            file.close()


def first_jpeg(slide: Path, level: JpegLevel) -> bytes | None:
    """Reads the first tile of a level that was scanned, as a whole JPEG; None if there is none.

    Raises:
        InputError: the file is truncated.
    """
    scanned = np.flatnonzero(level.lengths)
    if len(scanned) == 0:
        return None
    file = _File(slide.parent / level.file_name)
    try:
        file.check_holds(level)
        stream = file.read(int(level.offsets.flat[scanned[0]]), int(level.lengths.flat[scanned[0]]))
    finally:
        file.close()
    return _whole(level, stream)


def _whole(level: JpegLevel, stream: bytes) -> bytes:
    return _START + level.head + stream[2:]


class _File:
    """A file that is read by place, from any thread and also after a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error.strerror}.") from error
        self._size = os.fstat(self._descriptor).st_size

    def check_holds(self, level: JpegLevel) -> None:
        """Refuses a file that ends before the last tile of a level."""
        # Not by its end, which may be beyond what 64 bits hold.
        is_beyond = level.offsets > self._size - level.lengths
        missing = int((is_beyond & (level.lengths > 0)).sum())
        if missing or (level.offsets < 0).any() or (level.lengths < 0).any():
            raise InputError(
                f"{self._path} is truncated: {missing or 'some'} of its {level.lengths.size} tiles"
                f" of {level.width_px} x {level.height_px} px lie beyond its end; get a whole copy"
                " of it."
            )

    def read(self, offset: int, length: int) -> bytes:
        """Reads a part.

        Raises:
            InputError: the file gives less than that.
        """
        try:
            content = os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise InputError(f"{self._path} cannot be read: {error.strerror}.") from error
        if len(content) != length:
            raise InputError(f"{self._path} became shorter while it was read; get a whole copy.")
        return content

    def close(self) -> None:
        """Closes the file; further reads fail."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


@dataclass(slots=True)
class _Tile:
    pixels: RGB
    left: int
    """How many of its values no box has used yet."""


class _Kept:
    """Tiles that a box used in part, until the rest was used too or there is no room."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._tiles: OrderedDict[tuple[int, ...], _Tile] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: tuple[int, ...]) -> _Tile | None:
        """Takes a tile out."""
        with self._lock:
            tile = self._tiles.pop(key, None)
            if tile is not None:
                self._bytes -= tile.pixels.nbytes
            return tile

    def put(self, key: tuple[int, ...], tile: _Tile, used: int) -> None:
        """Keeps a tile of which `used` values have just been used."""
        tile.left -= used
        if tile.left <= 0 or tile.pixels.nbytes > self._most_bytes:
            return
        with self._lock:
            if key in self._tiles:
                return
            self._tiles[key] = tile
            self._bytes += tile.pixels.nbytes
            while self._bytes > self._most_bytes:
                _, oldest = self._tiles.popitem(last=False)
                self._bytes -= oldest.pixels.nbytes
