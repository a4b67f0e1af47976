"""How tiles are encoded: by default with the quantisation tables and subsampling of their slide."""

import functools
import io
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
"""In the order of Pillow's numbers for them."""

DEFAULT_QUALITY = 90

_Factors = tuple[tuple[int, ...], ...]
_ONE = (1, 1)
_SUBSAMPLING_OF: dict[_Factors, str] = {
    (_ONE, _ONE, _ONE): "4:4:4",
    ((2, 1), _ONE, _ONE): "4:2:2",
    ((2, 2), _ONE, _ONE): "4:2:0",
}
"""By the sampling factors, across and down, of the three channels."""


@dataclass(frozen=True, slots=True)
class JpegEncoding:
    """Quantisation and colour of a JPEG; equal encodings lose nothing more of aligned blocks."""

    tables: tuple[tuple[int, ...], ...]
    """One or two quantisation tables of 64 steps: of luma and of chroma."""
    subsampling: str
    """One of `SUBSAMPLINGS`."""
    is_rgb: bool = False
    """Whether red, green and blue are coded themselves, as some of Aperio's slides do."""

    def __str__(self) -> str:
        quality = _qualities().get(self.tables)
        tables = f"quality {quality}" if quality is not None else "its own tables"
        return f"JPEG, {tables}, {'RGB' if self.is_rgb else self.subsampling}"


def of_quality(quality: int, subsampling: str = "4:4:4") -> JpegEncoding:
    """The encoding that libjpeg calls by a quality of 1 to 100."""
    return JpegEncoding(_tables_of_quality(quality), subsampling)


def read_encoding(jpeg: bytes) -> JpegEncoding | None:
    """Reads the encoding of a JPEG of three channels off its header; None if it is another one.

    Unusual subsampling counts as none: the tables are kept, and no colour is lost.
    """
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
            tables: dict[int, list[int]] = getattr(image, "quantization", {})
            if image.mode != "RGB" or len(layers) != 3:
                return None
            numbers = list(dict.fromkeys(layer[3] for layer in layers[:2]))
            chosen = tuple(tuple(tables[number]) for number in numbers)
            factors = tuple(layer[1:3] for layer in layers)
            is_rgb = image.info.get("adobe_transform") == 0
    except (OSError, SyntaxError, KeyError, ValueError, Image.DecompressionBombError):
        return None
    # A step over 255 needs another kind of JPEG, which no tile needs.
    if any(step > 255 for table in chosen for step in table):
        return None
    return JpegEncoding(chosen, _SUBSAMPLING_OF.get(factors, "4:4:4"), is_rgb)


def encode(tile: npt.NDArray[np.uint8], encoding: JpegEncoding) -> bytes:
    """Encodes a tile, uint8 RGB [height, width, 3], as a JPEG."""
    quality = _qualities().get(encoding.tables)
    if quality is not None and not encoding.is_rgb:
        # The same bytes as below, a quarter faster; but only Pillow takes tables.
        subsampling = encoding.subsampling.replace(":", "")
        return bytes(imagecodecs.jpeg8_encode(tile, quality, subsampling=subsampling))
    file = io.BytesIO()
    options: dict[str, Any] = {"qtables": [list(table) for table in encoding.tables]}
    if encoding.is_rgb:
        options |= {"keep_rgb": True, "subsampling": 0}
    else:
        options["subsampling"] = SUBSAMPLINGS.index(encoding.subsampling)
    Image.fromarray(tile).save(file, "JPEG", **options)
    return file.getvalue()


def psnr_db(pixels: npt.NDArray[np.uint8], encoded: npt.NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio of two images of 8 bits; 100 where they are equal."""
    if np.array_equal(pixels, encoded):
        return 100.0
    difference = pixels.astype(np.int16) - encoded
    error = float(np.square(difference, dtype=np.int32).mean())
    return min(100.0, float(10 * np.log10(255**2 / error)))


def _tables_of_quality(quality: int) -> tuple[tuple[int, ...], ...]:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", quality=quality)
    file.seek(0)
    with Image.open(file) as image:
        tables: dict[int, list[int]] = getattr(image, "quantization", {})
        return tuple(tuple(table) for _, table in sorted(tables.items()))


@functools.cache
def _qualities() -> dict[tuple[tuple[int, ...], ...], int]:
    return {_tables_of_quality(quality): quality for quality in range(1, 101)}
