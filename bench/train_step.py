"""Images a second of a training step, on random images that lie ready on the device.

    python -m bench.train_step                           # on a CPU
    python -m bench.train_step --device cuda --batch 64  # on a GPU, with peak memory
    python -m bench.train_step --part default_step       # one part of it

`default_step`: ResNet-50 at 224 px with labels: our step (channels_last, fused SGD, bfloat16 where
the hardware computes in it) against a plain PyTorch loop (float32, NCHW, SGD as a Python loop), and
our step with torch.compile. All three start from the same weights and must give the same first loss
within what the number format allows. `methods`: a step of each of the five full-size recipes with
its own encoder: forward, backward, optimizer and all that the method does beside.

In the same rounds the machine's peak is measured, as the faster of a large matrix product and a
large 3x3 convolution in the number format of our step. Operations are counted by PyTorch, forward
and backward, a multiplication and an addition being two.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench._compare import Contestant, arguments, as_line, measure, show
from bench._train_steps import (
    CLASSES,
    SIDE_PX,
    UPDATES,
    OurStep,
    PlainStep,
    build_supervised,
    finishing,
    peak_sides,
)
from eosin import recipes
from eosin.engine.precision import resolve
from eosin.methods._base import Plan
from eosin.pretrain.bench_training import count_gflop
from eosin.pretrain.config import Config
from eosin.pretrain.run import build_method
from eosin.provenance import stamp

PLAIN, COMPILED = "plain PyTorch", "eosin, compiled"
RECIPES = (
    "moco_v2_resnet50",
    "swav_resnet50",
    "barlow_twins_resnet50",
    "dino_vit_small_patch16",
    "dino_vit_small_patch8",
)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """What one set of interleaved rounds gave."""

    times: dict[str, list[float]]
    peak_gflops: float

    def images_per_s(self, name: str, batch: int) -> float:
        """The median rate of a side."""
        return batch / statistics.median(self.times[name])


def time_together(
    sides: Mapping[str, Callable[[], object]], rounds: int, device: torch.device
) -> Timed:
    """Times all sides and the machine's peak in turn."""
    peaks, gflop = peak_sides(device)
    contestants = [*(Contestant(name, run) for name, run in sides.items()), *peaks]
    contestants = [Contestant(each.name, finishing(each.run, device)) for each in contestants]
    times = measure(contestants, rounds=rounds)
    # The peak is what the machine can do, hence its best round.
    peak = max(gflop[name] / min(times[name]) for name in gflop)
    return Timed(times=times, peak_gflops=peak)


def default_step(
    batch: int, rounds: int, device: torch.device, *, compiled: bool
) -> list[dict[str, Any]]:
    """Times our step with labels against a plain loop."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, SIDE_PX, SIDE_PX, generator=generator).to(device)
    labels = torch.randint(CLASSES, (batch,), generator=generator).to(device)
    ours = OurStep(build_supervised(), "sgd", [images, labels])
    plain = PlainStep(build_supervised(), images, labels)
    sides: dict[str, Callable[[], object]] = {"eosin": ours, PLAIN: plain}
    if compiled and (step := compiled_step([images, labels], device)) is not None:
        sides[COMPILED] = step
    timed = time_together(sides, rounds, device)
    kind = resolve("auto", device)
    tolerance = 0.02 if kind == "bf16" else 1e-4
    assert abs(ours.losses[0] / plain.losses[0] - 1) < tolerance, "the sides compute other losses"
    per_image = count_supervised_gflop()
    environment = {"device": str(device), "threads": torch.get_num_threads(), "precision": kind}
    environment |= {"batch": batch, "gflop_per_image": per_image, "peak_gflops": timed.peak_gflops}
    pairs = {"train_step": ("eosin", PLAIN), "train_step compiled": (COMPILED, "eosin")}
    lines: list[dict[str, Any]] = []
    for name, (one, other) in pairs.items():
        if one in sides:
            line = as_line(
                name,
                one,
                other,
                timed.times,
                count=batch,
                unit="images/s",
                environment=environment,
            )
            line["share_of_peak"] = line["ours"] * per_image / timed.peak_gflops
            lines.append(line)
    print(f"ResNet-50 at {SIDE_PX} px, batch {batch}, {kind} on {device}:")
    print(f"peak {timed.peak_gflops:.0f} GFLOP/s, {per_image:.1f} GFLOP an image")
    return lines


def count_supervised_gflop() -> float:
    """The billions of operations of an image, forward and backward."""
    images, labels = torch.randn(2, 3, SIDE_PX, SIDE_PX), torch.zeros(2, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        build_supervised()([images, labels], 0).total.backward()
    return counter.get_total_flops() / 2 / 1e9


def compiled_step(views: Sequence[Tensor], device: torch.device) -> OurStep | None:
    """Our step with the encoder compiled as `--compile` does it; None where it does not compile."""
    module = build_supervised()
    module.encoder.model.compile()
    step = OurStep(module, "sgd", views)
    started = time.perf_counter()
    try:
        finishing(step, device)()
    except Exception as error:  # whatever the compiler or its absence raises
        print(f"torch.compile does not work here: {str(error).splitlines()[0]}")
        return None
    print(f"torch.compile took {time.perf_counter() - started:.0f} s")
    return step


def method_step(config: Config, batch: int, device: torch.device) -> OurStep:
    """A step of a method with its own encoder and optimizer."""
    plan = Plan(batch_size=batch, updates=UPDATES, updates_per_epoch=1000)
    torch.manual_seed(0)
    method = build_method(config, plan)
    views = [torch.randn(batch, 3, side, side, device=device) for side in method.views().sizes]
    return OurStep(method, config.method.optimizer, views)


def peak_memory_gib(config: Config, batch: int, device: torch.device) -> float:
    """The most that a step alone on the GPU takes, with weights, optimizer and views."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step = method_step(config, batch, device)
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**30


def methods(batch: int, rounds: int, device: torch.device) -> dict[str, Any]:
    """Times a step of each full-size recipe."""
    configs = {name: recipes.load(name) for name in RECIPES}
    memory = (
        {name: peak_memory_gib(config, batch, device) for name, config in configs.items()}
        if device.type == "cuda"
        else {}
    )
    gflop = {name: count_gflop(config) for name, config in configs.items()}
    steps = {name: method_step(config, batch, device) for name, config in configs.items()}
    timed = time_together(steps, rounds, device)
    kind = resolve("auto", device)
    head = ("recipe", "encoder", "views", "tiles/s", "GFLOP a tile", "share of the peak")
    table = Table(*head, *(["peak memory, GiB"] if memory else []))
    table.caption = f"batch {batch}, {kind}, peak {timed.peak_gflops:.0f} GFLOP/s, {device}"
    rows: list[dict[str, Any]] = []
    for name, config in configs.items():
        rate = timed.images_per_s(name, batch)
        share = rate * gflop[name] / timed.peak_gflops
        sizes = config.views().sizes
        views = " + ".join(f"{sizes.count(px)}x{px}" for px in dict.fromkeys(sizes))
        cells = [name, config.encoder, views, f"{rate:.2f}", f"{gflop[name]:.1f}", f"{share:.0%}"]
        table.add_row(*cells, *([f"{memory[name]:.1f}"] if memory else []))
        row = {"recipe": name, "tiles_per_s": rate, "gflop_per_tile": gflop[name]}
        row |= {"share_of_peak": share, "rounds_s": timed.times[name]}
        rows.append({**row, **({"peak_memory_gib": memory[name]} if memory else {})})
    Console(width=140).print(table)
    about = {"batch": batch, "precision": kind, "device": str(device)}
    about |= {"peak_gflops": timed.peak_gflops, "threads": torch.get_num_threads()}
    return {"name": "train_step methods", **about, "rows": rows, "environment": stamp()}


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, help="by default 16, methods 4; on a GPU 64")
    parser.add_argument("--part", choices=["default_step", "methods"])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    given = parser.parse_args()
    device = torch.device(given.device)
    is_cuda = device.type == "cuda"
    of_methods: dict[str, Any] | None = None
    if given.part != "default_step":
        batch = given.batch or (64 if is_cuda else 4)
        of_methods = methods(batch, given.rounds, device)
    if given.part == "methods":
        if given.json:
            print(json.dumps(of_methods))
        return
    batch = given.batch or (64 if is_cuda else 16)
    lines = default_step(batch, given.rounds, device, compiled=not given.no_compile)
    if of_methods is not None:
        lines[0]["methods"] = of_methods
    show(lines, as_json=given.json, columns={"share of the peak": "share_of_peak"})


if __name__ == "__main__":
    main()
