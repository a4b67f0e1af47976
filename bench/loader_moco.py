"""The whole loader, from JPEG to batches of two views, against lightly's in PyTorch's DataLoader.

    python -m bench.loader_moco --json

Tiles of 512 px, cut by `eosin tile` from a slide of real tissue (see `bench._mosaic`) at its own
resolution; the two views of MoCo v2 at 224 px: the same scales, strengths and probabilities on both
sides. Ours are batches of uint8 from a tile store with two threads. The peer is
`MoCoV2Transform` over the same JPEGs as files, opened with PIL, in a DataLoader with two processes,
and gives float32, normalised. Ours are normalised on the device; the second row adds what that
takes on a CPU, in the one thread that takes the batches. The limit is two threads that read and
decode the same tiles, and do nothing else.

Both run on in one process, and are measured in turn while the other rests with full queues. Before
a window opens, all batches that were made meanwhile are taken, so that none is counted.
"""

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.transforms import MoCoV2Transform
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bench._compare import Contestant, arguments, as_line, measure, ratios, show, versions_of
from bench._mosaic import add_options
from bench._views import cut_tiles
from eosin.encoders._base import IMAGENET_MEAN, IMAGENET_STD
from eosin.images.presets import moco_v2
from eosin.pretrain.data import Batch, batches
from eosin.store.tile_store import TileStore

BATCH_SIZE, WORKERS = 64, 2
VIEWS = moco_v2("official")
OURS, NORMALISED, LIMIT = "eosin", "eosin, normalised on the CPU", "decoding alone"
# The queue of the slower side is full again after about 2 s.
_REST_S = 4.0
# Two processes have four batches in their queue, our threads two.
_QUEUED = 4
_ENDLESS = 10**9


def write_files(store: TileStore, folder: Path) -> list[Path]:
    """Writes the JPEGs of a store as files."""
    folder.mkdir()
    paths = [folder / f"{number:06}.jpg" for number in range(len(store))]
    for number, path in enumerate(paths):
        path.write_bytes(store.read_bytes(number))
    return paths


class Files(Dataset[list[Tensor]]):
    """Opens JPEGs with PIL and makes lightly's views of them."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._views = MoCoV2Transform()

    def __getitem__(self, number: int) -> list[Tensor]:
        with Image.open(self._paths[number]) as image:
            return self._views(image.convert("RGB"))


class Shuffled(Sampler[int]):
    """Permutations without end, so that workers are never started again."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng(0)
        while True:
            yield from rng.permutation(self._length).tolist()


def take(iterator: Iterator[Any], count: int) -> None:
    """Takes some batches."""
    for _ in range(count):
        next(iterator)


def rested(iterator: Iterator[Any]) -> None:
    """Lets the other side fill its queue and come to rest, and empties the queue of this one."""
    time.sleep(_REST_S)
    take(iterator, _QUEUED)


def normalise(batch: Batch) -> list[Tensor]:
    """Makes of the views what lightly gives."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255
    scale = 1 / (torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255)
    return [view.float().sub_(mean).mul_(scale) for view in batch.views]


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=5)
    add_options(parser)
    parser.add_argument("--batches", type=int, default=16, help="batches of one window")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="eosin-bench-") as name:
        store = cut_tiles(Path(name), options.edge_px, options.data)
        paths = write_files(store, Path(name) / "files")
        lines = _compare(store, paths, options.batches, options.rounds)
    show(
        lines, as_json=options.json, columns={"ours / limit": "share", "peer / limit": "peer_share"}
    )


def _compare(store: TileStore, paths: list[Path], count: int, rounds: int) -> list[dict[str, Any]]:
    # The processes come first: a fork should not copy threads.
    peer = iter(
        DataLoader(
            Files(paths), batch_size=BATCH_SIZE, sampler=Shuffled(len(paths)), num_workers=WORKERS
        )
    )
    take(peer, 1)
    ours = batches([store], None, VIEWS, BATCH_SIZE, 0, 0, _ENDLESS, WORKERS)
    normalised = map(normalise, ours)
    tiles = count * BATCH_SIZE
    numbers = np.random.default_rng(0).integers(len(store), size=(tiles // 8, 8)).tolist()

    def decode(some: list[int]) -> None:
        for number in some:
            store.read(number)

    with ThreadPoolExecutor(WORKERS) as threads:
        sides = [
            Contestant(OURS, lambda: take(ours, count), lambda: rested(ours)),
            Contestant(NORMALISED, lambda: take(normalised, count), lambda: rested(normalised)),
            Contestant(_peer_name(), lambda: take(peer, count), lambda: rested(peer)),
            Contestant(
                LIMIT, lambda: list(threads.map(decode, numbers)), lambda: time.sleep(_REST_S)
            ),
        ]
        times = measure(sides, rounds=rounds)
    ours.close()
    environment = {"libraries": versions_of("lightly", "torchvision", "pillow", "simplejpeg")}
    peer_share = _median(ratios(times[_peer_name()], times[LIMIT]))
    return [
        as_line(
            title, side, _peer_name(), times, count=tiles, unit="tiles/s", environment=environment
        )
        | {
            "share": _median(ratios(times[side], times[LIMIT])),
            "peer_share": peer_share,
            "limit": tiles / _median(times[LIMIT]),
            "tiles": tiles,
            "workers": WORKERS,
        }
        for title, side in (("loader_moco", OURS), ("loader_moco, float32", NORMALISED))
    ]


def _median(values: list[float]) -> float:
    return float(np.median(values))


def _peer_name() -> str:
    return f"lightly {versions_of('lightly')['lightly']} in a DataLoader"


if __name__ == "__main__":
    main()
