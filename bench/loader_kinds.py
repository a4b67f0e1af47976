"""Batches made by threads against batches made by the processes of PyTorch's DataLoader.

    python -m bench.loader_kinds --json

The same tiles and views on both sides, made by the same code into the same buffers, as in
`bench.loader_moco`. The first row is the rate of two threads against that of two processes.

The second is what the thread that trains has left of Python: updates of a small ResNet on tensors
so tiny that nearly all of an update is Python and the launching of operators, as it is before a
GPU, beside one thread or one process that makes views without a pause. What threads hold of
Python's lock is lost to that thread; the figures are updates a second. The third compares threads
with no loader at all. On two cores, one is left to the updates.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import timm
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bench._compare import Contestant, arguments, as_line, measure, show
from bench._mosaic import add_options
from bench._views import cut_tiles
from bench.loader_moco import BATCH_SIZE, VIEWS, WORKERS, rested, take
from eosin.pretrain.data import Batch, batches
from eosin.store.tile_store import TileStore

THREADS, PROCESSES, ALONE = "threads", "processes", "no loader"
_ENDLESS = 10**9
_SMALL_BATCH = 16


class WholeBatches(Dataset[Batch]):
    """Makes a whole batch in the process that is asked for it, given its update."""

    def __init__(self, store: TileStore, batch_size: int) -> None:
        self._store, self._batch_size = store, batch_size

    def __getitem__(self, update: int) -> Batch:
        made = batches([self._store], None, VIEWS, self._batch_size, 0, update, update + 1, 0)
        return next(made)


class Updates(Sampler[int]):
    """0, 1, 2 and so on without end."""

    def __iter__(self) -> Iterator[int]:
        yield from range(_ENDLESS)


def in_processes(store: TileStore, batch_size: int, workers: int) -> Iterator[Batch]:
    """Starts processes that make batches."""
    started = iter(
        DataLoader(
            WholeBatches(store, batch_size),
            batch_size=None,
            sampler=Updates(),
            num_workers=workers,
        )
    )
    take(started, workers)
    return started


def in_threads(store: TileStore, batch_size: int, workers: int) -> Iterator[Batch]:
    """Starts threads that make batches."""
    return batches([store], None, VIEWS, batch_size, 0, 0, _ENDLESS, workers)


def compare_rates(store: TileStore, count: int, rounds: int) -> dict[str, Any]:
    """Measures the tiles a second of both kinds."""
    processes = in_processes(store, BATCH_SIZE, WORKERS)
    threads = in_threads(store, BATCH_SIZE, WORKERS)
    sides = [
        Contestant(THREADS, lambda: take(threads, count), lambda: rested(threads)),
        Contestant(PROCESSES, lambda: take(processes, count), lambda: rested(processes)),
    ]
    times = measure(sides, rounds=rounds)
    return as_line(
        "loader_kinds", THREADS, PROCESSES, times, count=count * BATCH_SIZE, unit="tiles/s"
    )


def updates_on_tiny_tensors() -> Callable[[], None]:
    """Gives one update of a small ResNet on a batch that costs next to nothing."""
    model = timm.create_model("resnet10t", num_classes=8)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, foreach=False)
    images, labels = torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.long)

    def update() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return update


class Beside:
    """Makes updates while another thread takes batches as fast as they come."""

    def __init__(
        self, loader: Iterator[Batch] | None, update: Callable[[], None], count: int
    ) -> None:
        self._loader, self._update, self._count = loader, update, count
        self._stopped = threading.Event()
        self._drainer: threading.Thread | None = None
        self.tiles, self.seconds = 0, 0.0

    def prepare(self) -> None:
        """Waits until whatever ran before rests, and starts to take batches."""
        time.sleep(1)
        if self._loader is not None:
            self._stopped.clear()
            self._drainer = threading.Thread(target=self._drain, args=(self._loader,))
            self._drainer.start()

    def run(self) -> None:
        """Makes all updates."""
        for _ in range(self._count):
            self._update()
        self._stopped.set()

    def _drain(self, loader: Iterator[Batch]) -> None:
        started = time.perf_counter()
        while not self._stopped.is_set():
            self.tiles += len(next(loader).tiles)
        self.seconds += time.perf_counter() - started


def compare_updates(store: TileStore, count: int, rounds: int) -> list[dict[str, Any]]:
    """Measures the updates a second beside both kinds, and beside none."""
    update = updates_on_tiny_tensors()
    loaders = {
        PROCESSES: in_processes(store, _SMALL_BATCH, 1),
        THREADS: in_threads(store, _SMALL_BATCH, 1),
        ALONE: None,
    }
    beside = {name: Beside(loader, update, count) for name, loader in loaders.items()}
    sides = [Contestant(name, each.run, each.prepare) for name, each in beside.items()]
    times = measure(sides, rounds=rounds)
    rates = {name: each.tiles / max(each.seconds, 1e-9) for name, each in beside.items()}
    return [
        as_line(title, THREADS, peer, times, count=count, unit="updates/s")
        | {"tiles_per_s": rates[THREADS], "peer_tiles_per_s": rates[peer]}
        for title, peer in (("updates meanwhile", PROCESSES), ("updates at all", ALONE))
    ]


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=5)
    add_options(parser)
    parser.add_argument("--batches", type=int, default=24, help="batches of one window")
    parser.add_argument("--updates", type=int, default=200, help="updates of one window")
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Before any fork, which would leave OpenCV waiting for threads that it does not have.
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="eosin-bench-") as name:
        store = cut_tiles(Path(name), options.edge_px, options.data)
        lines = compare_updates(store, options.updates, options.rounds)
        lines.insert(0, compare_rates(store, options.batches, options.rounds))
    columns = {"tiles/s, ours": "tiles_per_s", "tiles/s, peer": "peer_tiles_per_s"}
    show(lines, as_json=options.json, columns=columns)


if __name__ == "__main__":
    main()
