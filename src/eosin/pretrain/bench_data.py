"""How many tiles a second this machine feeds to a recipe, and how many GPUs that is."""

import itertools
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import tyro

from eosin.engine import precision as number_format
from eosin.errors import InputError, UsageError
from eosin.images.views import Views
from eosin.pretrain.bench_training import (
    Estimate,
    Training,
    count_gflop,
    estimate_training,
    measure_training,
)
from eosin.pretrain.config import Config as PretrainConfig
from eosin.pretrain.data import batches
from eosin.pretrain.order import EpochOrder
from eosin.pretrain.sources import TileSource, open_source
from eosin.provenance import available_cores

_BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to feed, and to what."""

    data: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="STORE [STORE ...]")
    ]
    """Tile stores, image folders and HDF5 files; exported stores also by URL."""
    recipe: str
    """Recipe or method whose views are made."""
    workers: tuple[int, ...] = ()
    """Numbers of threads to try; 1, 2, 4 and so on up to the cores if not given."""
    seconds: float = 5.0
    """Length of each measurement."""
    train: bool = False
    """Measure the training on the CPU too; on a GPU it always is."""
    train_batch_size: int = 64
    """Tiles of an update of that training."""
    gpu_tflops: float | None = None
    """Peak of your GPU in TFLOP/s, dense bfloat16, for the estimate; A100 and H100 by default."""
    gpu_share: float = 0.4
    """Share of its peak that the estimate takes a GPU to sustain."""

    def __post_init__(self) -> None:
        if not self.data:
            raise UsageError("No data to read; give tile stores, image folders or HDF5 files.")
        if any(count < 1 for count in self.workers):
            raise UsageError(f"--workers {self.workers}: each must be 1 or more.")
        if not self.seconds > 0:
            raise UsageError(f"--seconds is {self.seconds}; it must be above 0.")
        if self.train_batch_size < 2:
            raise UsageError(
                f"--train-batch-size is {self.train_batch_size}; it must be 2 or more."
            )
        if self.gpu_tflops is not None and not self.gpu_tflops > 0:
            raise UsageError(f"--gpu-tflops is {self.gpu_tflops}; it must be above 0.")
        if not 0 < self.gpu_share <= 1:
            raise UsageError(f"--gpu-share is {self.gpu_share}; it must be above 0, at most 1.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Feeding:
    """What some threads were measured to do."""

    workers: int
    tiles_per_s: float
    """Tiles read, decoded and made views of."""
    views_per_s: float
    cores: float
    """CPU seconds of the process in a second."""
    decoded_per_s: float
    """Tiles a second where the same threads only read and decode."""

    @property
    def share_of_decoding(self) -> float:
        """The rate as a share of what decoding alone would allow."""
        return self.tiles_per_s / self.decoded_per_s

    def __str__(self) -> str:
        return (
            f"{self.workers:>3} threads: {self.tiles_per_s:,.0f} tiles/s, {self.views_per_s:,.0f} "
            f"views/s, {self.cores:.1f} cores busy; {self.share_of_decoding:.0%} of decoding "
            f"alone ({self.decoded_per_s:,.0f} tiles/s)"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was measured, and what is estimated from it."""

    recipe: str
    feedings: tuple[Feeding, ...]
    training: Training | None
    gflop_per_tile: float
    """Matrix products and convolutions of a forward and backward pass, counted."""
    gpu_share: float
    estimates: tuple[Estimate, ...]

    @property
    def best(self) -> Feeding:
        """The fastest."""
        return max(self.feedings, key=lambda feeding: feeding.tiles_per_s)

    def __str__(self) -> str:
        best = self.best
        lines = [
            f"Measured with the views of {self.recipe}:",
            *map(str, self.feedings),
            f"This machine feeds {best.tiles_per_s:,.0f} tiles/s with --workers {best.workers}.",
        ]
        if self.training is not None:
            lines.append(
                f"Measured: {self.training.device} trains {self.training.tiles_per_s:,.1f} tiles/s "
                f"in batches of {self.training.batch_size}; the machine feeds "
                f"{best.tiles_per_s / self.training.tiles_per_s:.3g} times as many."
            )
        lines.append(
            f"Estimated, not measured: a tile takes {self.gflop_per_tile:,.1f} GFLOP forward and "
            f"backward; a GPU that sustains {self.gpu_share:.0%} of its peak trains"
        )
        lines += [
            f"    {each.gpu} ({each.peak_tflops:g} TFLOP/s): {each.tiles_per_s:,.0f} tiles/s; the "
            f"machine would feed {best.tiles_per_s / each.tiles_per_s:.3g} of them."
            for each in self.estimates
        ]
        return "\n".join(lines)


def measure_feeding(config: Config, pretrain: PretrainConfig) -> Report:
    """Measures how fast this machine makes batches, and sets it against what a GPU needs.

    The first reading of tiles is as fast as their disk; tiles that were read lately come from
    memory, and decide the figures of a store that fits there.

    Args:
        config: what to measure.
        pretrain: the settings of `config.recipe`; data, batch size and workers are not used.

    Raises:
        InputError: the data cannot be used.
        UsageError: the recipe's method or encoder cannot be built.
    """
    sources = [open_source(path) for path in config.data]
    views = pretrain.views()
    feedings: list[Feeding] = []
    for workers in config.workers or _thread_counts():
        tiles_per_s, cores = _feeding_rate(sources, views, workers, config.seconds)
        feedings.append(
            Feeding(
                workers=workers,
                tiles_per_s=tiles_per_s,
                views_per_s=tiles_per_s * len(views.specs),
                cores=cores,
                decoded_per_s=_decoding_rate(sources, workers, config.seconds),
            )
        )
        print(feedings[-1], file=sys.stderr, flush=True)
    print("counting the operations of an update", file=sys.stderr, flush=True)
    gflop = count_gflop(pretrain)
    device = number_format.default_device()
    is_trained = config.train or device.type == "cuda"
    return Report(
        recipe=config.recipe,
        feedings=tuple(feedings),
        training=measure_training(pretrain, config.train_batch_size, device)
        if is_trained
        else None,
        gflop_per_tile=gflop,
        gpu_share=config.gpu_share,
        estimates=estimate_training(gflop, config.gpu_share, config.gpu_tflops),
    )


def _thread_counts() -> list[int]:
    cores = available_cores()
    powers = itertools.takewhile(lambda count: count < cores, (1 << n for n in itertools.count()))
    return [*powers, cores]


def _feeding_rate(
    sources: Sequence[TileSource], views: Views, workers: int, seconds: float
) -> tuple[float, float]:
    """Tiles a second and busy cores, once all that happens only at first has happened."""
    batch_size = min(_BATCH_SIZE, sum(map(len, sources)))
    made = batches(sources, None, views, batch_size, 0, 0, sys.maxsize // batch_size, workers)
    with closing(made):
        for _ in range(3 + 2 * workers // batch_size):
            next(made)
        tiles, started, cpu_started = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - started < seconds:
            tiles += len(next(made).tiles)
        elapsed, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    return tiles / elapsed, cpu / elapsed


def _decoding_rate(sources: Sequence[TileSource], workers: int, seconds: float) -> float:
    order = EpochOrder([len(source) for source in sources], None, 1)
    chosen, tiles = (each.tolist() for each in order.slice(0, len(order)))
    started = time.perf_counter()

    def read(first: int) -> int:
        done = 0
        for position in itertools.count(first, workers):
            if time.perf_counter() - started >= seconds:
                break
            place = position % len(order)
            try:
                sources[chosen[place]].read(tiles[place])
            except InputError:
                continue  # the loader has reported it
            done += 1
        return done

    with ThreadPoolExecutor(workers) as threads:
        done = sum(threads.map(read, range(workers)))
    return max(done, 1) / (time.perf_counter() - started)
