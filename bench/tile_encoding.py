"""Bytes and loss of tiles encoded as their slide is, against the usual quality 90, 4:4:4.

On real tissue of a slide of quality 80, 4:2:0; see docs/decisions/0014. Run it as

    python -m bench.tile_encoding --json
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from rich.console import Console
from rich.table import Table

from bench import _mosaic
from bench._compare import arguments
from eosin.provenance import stamp
from eosin.slides.encoding import encode, of_quality, psnr_db
from eosin.slides.reader import open_slide

RGB = npt.NDArray[np.uint8]

_TILE_PX = 512
# Right in the disc of tissue, on the grid of JPEG blocks.
_FIRST_PX, _LAST_PX = 7_168, 16_384


@dataclass(frozen=True)
class Row:
    """What one encoding makes of some tiles."""

    tiles: str
    encoding: str
    bytes: float
    psnr_db: float
    decode_ms: float


def main() -> None:
    """Encodes the same tiles in each way."""
    parser = arguments("Bytes and loss of tiles by their encoding.")
    _mosaic.add_options(parser)
    parser.add_argument("--tiles", type=int, default=60)
    options = parser.parse_args()
    path = _mosaic.write_mosaic(_mosaic.Mosaic(edge_px=options.edge_px), options.data)
    rows: list[Row] = []
    with open_slide(path) as slide:
        own = slide.encoding(slide.reading(_mosaic.MPP))
        assert own is not None
        usual = of_quality(90)
        for name, mpp, shift in (
            ("native, on the 16-px grid", _mosaic.MPP, 0),
            ("native, off the grid", _mosaic.MPP, 7),
            ("reduced to 1/2", 2 * _mosaic.MPP, 0),
        ):
            rng = np.random.default_rng(0)
            places = rng.integers(_FIRST_PX, _LAST_PX, (options.tiles, 2)) // _TILE_PX * _TILE_PX
            tiles = [slide.read(x + shift, y + shift, _TILE_PX, mpp) for x, y in places.tolist()]
            rows.append(_row(name, "its own tables", tiles, lambda tile: encode(tile, own)))
            rows.append(_row(name, "quality 90, 4:4:4", tiles, lambda tile: encode(tile, usual)))
            rows.append(_row(name, "PNG", tiles, _as_png, _from_png))
    table = Table("tiles", "encoding", "bytes", "PSNR, dB", "decoding, ms")
    for row in rows:
        figures = (f"{row.bytes:,.0f}", f"{row.psnr_db:.1f}", f"{row.decode_ms:.2f}")
        table.add_row(row.tiles, row.encoding, *figures)
    Console(width=120).print(table)
    if options.json:
        line = {"name": "tile_encoding", "ours": rows[0].bytes, "peer": rows[1].bytes}
        line |= {"ratio": rows[1].bytes / rows[0].bytes, "unit": "bytes per tile"}
        line |= {"peer_name": "quality 90, 4:4:4", "rows": [vars(row) for row in rows]}
        print(json.dumps(line | {"environment": stamp()}))


def _row(
    name: str,
    encoding: str,
    tiles: list[RGB],
    encode_tile: Callable[[RGB], bytes],
    decode: Callable[[bytes], RGB] = simplejpeg.decode_jpeg,
) -> Row:
    encoded = [encode_tile(tile) for tile in tiles]
    started = process_time()
    decoded = [decode(each) for each in encoded]
    milliseconds = (process_time() - started) / len(tiles) * 1e3
    loss = [psnr_db(tile, each) for tile, each in zip(tiles, decoded, strict=True)]
    size = float(np.mean([len(each) for each in encoded]))
    return Row(name, encoding, size, float(np.mean(loss)), milliseconds)


def _as_png(tile: RGB) -> bytes:
    return cv2.imencode(".png", cv2.cvtColor(tile, cv2.COLOR_RGB2BGR))[1].tobytes()


def _from_png(png: bytes) -> RGB:
    array = np.frombuffer(png, np.uint8)
    return np.asarray(cv2.imdecode(array, cv2.IMREAD_COLOR_RGB), np.uint8)


if __name__ == "__main__":
    main()
