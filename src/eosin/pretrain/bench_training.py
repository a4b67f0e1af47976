"""How many tiles a second a recipe trains on: measured here, and estimated for other hardware."""

import itertools
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from eosin.engine.loop import LoopConfig, train
from eosin.engine.optimizers import build_optimizer
from eosin.engine.trainable import Batch
from eosin.methods._base import Plan
from eosin.pretrain.config import Config as PretrainConfig
from eosin.pretrain.run import build_method

_GPU_TFLOPS = {"A100": 312.0, "H100 SXM": 989.0}  # NVIDIA's data sheets: dense bfloat16
_COUNTED_TILES = 2  # the fewest that BatchNorm takes
_UPDATES, _UPDATES_PER_LINE = 15, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The measured rate of training, with batches that lie ready on the device."""

    device: str
    batch_size: int
    tiles_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """The rate of training that a GPU would have, computed and not measured."""

    gpu: str
    peak_tflops: float
    tiles_per_s: float


def count_gflop(pretrain: PretrainConfig) -> float:
    """Counts the billions of operations that a tile takes, forward and backward.

    Matrix products and convolutions, a multiplication and an addition being two.
    """
    method = build_method(pretrain, _plan(_COUNTED_TILES)).train()
    tiles = [torch.rand(_COUNTED_TILES, 3, side, side) for side in method.views().sizes]
    with FlopCounterMode(display=False) as counter:
        method.before_forward([tiles], 0)
        method(tiles, 0).total.backward()
    return counter.get_total_flops() / _COUNTED_TILES / 1e9


def measure_training(pretrain: PretrainConfig, batch_size: int, device: torch.device) -> Training:
    """Trains on noise for some updates in a run's own loop, and takes the rate of the last ones.

    Args:
        pretrain: the settings of the run; data, batch size and length are not used.
        batch_size: tiles of an update.
        device: where to train.
    """
    method = build_method(pretrain, _plan(batch_size)).to(device)
    method = method.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = build_optimizer(pretrain.method.optimizer, method.param_groups())
    views = [
        torch.randn(batch_size, 3, side, side, device=device).to(memory_format=torch.channels_last)
        for side in method.views().sizes
    ]

    def same(_: int) -> Iterator[Batch]:
        return itertools.repeat(Batch(micro=[views]))

    loop = LoopConfig(
        updates=_UPDATES,
        tiles_per_update=batch_size,
        precision=pretrain.precision,
        checkpoint_every=_UPDATES,
        measure_every=_UPDATES,
        log_every=_UPDATES_PER_LINE,
        title="training on noise",
    )
    with tempfile.TemporaryDirectory(prefix="eosin-bench-data-") as name:
        train(method, optimizer, same, Path(name), loop, device=device)
        lines = (Path(name) / "log.jsonl").read_text().splitlines()
    # The first line of the log has all that happens only once.
    rates = [json.loads(line)["tiles_per_s"] for line in lines[1:]]
    is_cuda = device.type == "cuda"
    return Training(
        device=torch.cuda.get_device_name(device) if is_cuda else "this CPU",
        batch_size=batch_size,
        tiles_per_s=len(rates) / sum(1 / rate for rate in rates),
    )


def _plan(batch_size: int) -> Plan:
    return Plan(batch_size=batch_size, updates=_UPDATES, updates_per_epoch=_UPDATES)


def estimate_training(
    gflop_per_tile: float, gpu_share: float, gpu_tflops: float | None = None
) -> tuple[Estimate, ...]:
    """Computes the rate of GPUs that sustain a share of their peak.

    Args:
        gflop_per_tile: as `count_gflop` gives it.
        gpu_share: the share, 0 to 1.
        gpu_tflops: peak of a GPU in TFLOP/s; those of A100 and H100 if `None`.
    """
    peaks = _GPU_TFLOPS if gpu_tflops is None else {"your GPU": gpu_tflops}
    return tuple(
        Estimate(
            gpu=gpu,
            peak_tflops=peak_tflops,
            tiles_per_s=1000 * peak_tflops * gpu_share / gflop_per_tile,
        )
        for gpu, peak_tflops in peaks.items()
    )
