"""Crops a second and memory of HoVer-Net's training at full size, on random crops of 256 px.

    python -m bench.hovernet_step                          # on a CPU, a few updates
    python -m bench.hovernet_step --device cuda --batch 4  # on a GPU

A step of the protocol `strict`: forward, loss, backward, Adam, first with a frozen encoder and then
with all weights, on a ResNet-50 without stride in its stem, a ViT-S/16 and a ViT-S/8. There is no
peer: the official code has one encoder. Operations of the forward pass are counted by PyTorch, a
multiplication and an addition being two. Memory on a CPU is what a process takes beyond what it
had before the step, at its most; on a GPU what PyTorch allocates, weights included.
"""

import gc
import json
import statistics
import sys
from collections.abc import Callable
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from bench._compare import Contestant, arguments, measure
from bench._memory import extra_memory_mb
from bench._train_steps import finishing
from eosin.encoders import build_encoder
from eosin.engine.optimizers import build_optimizer
from eosin.engine.precision import resolve
from eosin.engine.step import Stepper
from eosin.engine.trainable import Batch
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.segmenter import Segmenter, fix_unused
from eosin.protocols.strict import NUCLEI
from eosin.provenance import stamp

ENCODERS = ("resnet50", "vit_small_patch16", "vit_small_patch8")
TYPES = 4


def build(name: str, *, is_frozen: bool, device: torch.device) -> Segmenter:
    """Builds the network with random weights."""
    encoder = build_encoder(name, input_px=NUCLEI.input_px, seed=0)
    encoder = encoder.freeze() if is_frozen else encoder
    torch.manual_seed(0)
    network = HoVerNet(encoder, TYPES, geometry=NUCLEI.geometry, width=NUCLEI.width)
    segmenter = Segmenter(network, NUCLEI.weights, NUCLEI.learning_rate, decay_at=10**9)
    segmenter = segmenter.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fix_unused(network, NUCLEI.input_px)
    return segmenter.train()


def make_batch(batch: int, device: torch.device) -> list[torch.Tensor]:
    """Draws crops and targets."""
    generator = torch.Generator().manual_seed(0)
    side = NUCLEI.input_px
    types = torch.randint(1 + TYPES, (batch, side, side), generator=generator)
    hv = torch.rand(batch, 2, side, side, generator=generator) * 2 - 1
    images = torch.randn(batch, 3, side, side, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    return [each.to(device) for each in (images, (types > 0).long(), hv, types)]


def make_step(
    name: str, batch: int, device: torch.device, *, is_frozen: bool
) -> Callable[[], None]:
    """A step of training."""
    segmenter = build(name, is_frozen=is_frozen, device=device)
    optimizer = build_optimizer("adamw", segmenter.groups())
    stepper = Stepper(cast(Any, segmenter), optimizer, precision="auto", device=device)
    ready = Batch(micro=[make_batch(batch, device)])

    def step() -> None:
        assert not stepper(ready, 0, lambda: False).is_skipped, "the loss is not finite"

    return step


def gflop(name: str) -> float:
    """The billions of operations of a crop, forward."""
    cpu = torch.device("cpu")
    network = build(name, is_frozen=False, device=cpu).network
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(make_batch(1, cpu)[0])
    return counter.get_total_flops() / 1e9


def memory_mb(name: str, batch: int, device: torch.device, *, is_frozen: bool) -> float:
    """The most that a step takes."""
    if device.type == "cpu":
        setup = "from bench.hovernet_step import make_step\nimport torch\n"
        call = f"make_step({name!r}, {batch}, torch.device('cpu'), is_frozen={is_frozen})()"
        return extra_memory_mb(setup, call)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    step = make_step(name, batch, device, is_frozen=is_frozen)
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated(device) / 2**20


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--batch", type=int, default=1, help="crops of an update")
    given = parser.parse_args()
    kind = resolve("auto", given.device)
    table = Table("encoder", "phase", "crops/s", "GFLOP a crop, forward", "memory, MB")
    table.caption = f"batch {given.batch}, {kind} on {given.device}"
    rows: list[dict[str, Any]] = []
    for name in ENCODERS:
        operations = gflop(name)
        for is_frozen in (True, False):
            memory = memory_mb(name, given.batch, given.device, is_frozen=is_frozen)
            step = make_step(name, given.batch, given.device, is_frozen=is_frozen)
            side = Contestant(name, finishing(step, given.device))
            times = measure([side], rounds=given.rounds)[name]
            rate = given.batch / statistics.median(times)
            phase = "decoders" if is_frozen else "all"
            table.add_row(name, phase, f"{rate:.3f}", f"{operations:.0f}", f"{memory:,.0f}")
            print(f"{name}, {phase}: {rate:.3f} crops/s", file=sys.stderr, flush=True)
            row = {"encoder": name, "phase": phase, "crops_per_s": rate, "memory_mb": memory}
            rows.append({**row, "gflop": operations, "rounds_s": times})
    Console(width=100).print(table)
    if given.json:
        about = {"batch": given.batch, "precision": kind, "device": str(given.device)}
        print(json.dumps({"name": "hovernet_step", **about, "rows": rows, "environment": stamp()}))


if __name__ == "__main__":
    main()
