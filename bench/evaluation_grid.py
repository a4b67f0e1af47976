"""A whole evaluation from cached embeddings: four data sets of true size, on two cores.

    python -m bench.evaluation_grid --json

One encoder of 384 values; BACH, CRC, PatchCamelyon and MHIST with the true number of images in each
split and class; linear probe and nearest neighbours; the protocols `strict` and `eva-2025-03`; 1,
5, 10, 30, 50 and 100 % of the labels, five draws of each part. There is no peer that does this.
The embeddings are drawn at random around the class means, so far apart that scores are those of a
fair encoder; groups are single images, and BACH's of four images, so that of its smallest parts
`strict` can hold out nothing: those jobs are left out.

The work is shared by `--shards` processes as `eosin evaluate --shard` shares it. A run that is
killed goes on where it was: give the same `--out`. Prints the time of each kind of job, the time of
the whole, and the memory of all processes at its highest.
"""

import argparse
import json
import multiprocessing
import os
import resource
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages
from eosin.embeddings.embedded import Embedded, embed_splits, stamp_data, stamp_encoder
from eosin.encoders import build_encoder
from eosin.provenance import available_cores, stamp
from eosin.results.files import read_results
from eosin.tasks._base import Inputs
from eosin.tasks._grid import Shard, make_jobs
from eosin.tasks._running import run_jobs

DIM = 384
FRACTIONS = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)
DRAWS = 5
PROTOCOLS = ("strict", "eva-2025-03")
TASKS = ("linear", "knn")
# Images of each class in each split.
SIZES: Mapping[str, Mapping[str, Sequence[int]]] = {
    "bach": {"train": (52, 70, 69, 77), "test": (48, 30, 31, 23)},
    "crc": {
        "train": (10_407, 10_566, 11_512, 11_557, 8_896, 13_536, 8_763, 10_446, 14_317),
        "test": (1_338, 847, 339, 634, 1_035, 592, 741, 421, 1_233),
    },
    "patch_camelyon": {
        "train": (131_072, 131_072),
        "valid": (16_399, 16_369),
        "test": (16_391, 16_377),
    },
    "mhist": {"train": (1_545, 630), "test": (617, 360)},
}
_APART = {"bach": 0.09, "crc": 0.16, "patch_camelyon": 0.10, "mhist": 0.07}
_GROUP = {"bach": 4}


def main() -> None:
    """Runs what is missing, and says how long the whole took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench-grid"))
    parser.add_argument("--shards", type=int, default=available_cores())
    parser.add_argument("--on", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    given = parser.parse_args()
    for name in given.on:
        _write_embeddings(name, given.out / "embeddings")
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(given.shards) as pool:
        works = [(number + 1, given.shards, given.out, given.on) for number in range(given.shards)]
        peaks = pool.starmap(_work, works, chunksize=1)
    _report(given, time.perf_counter() - started, sum(peaks))


def _work(number: int, count: int, out: Path, names: Sequence[str]) -> float:
    """Does one part of the jobs; gives the highest memory of the process in GB."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(max(1, available_cores() // count))
    shard, place = Shard(number=number, count=count), 0
    for name in names:
        jobs = list(make_jobs(TASKS, PROTOCOLS, FRACTIONS, draws=DRAWS, seeds=(0,)))
        mine = [job for at, job in enumerate(jobs, place) if shard.takes(at)]
        place += len(jobs)
        run_jobs(mine, _inputs(name, out), out, again=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def _write_embeddings(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(len(SIZES[name]["train"]), DIM)) * _APART[name]
    for split, sizes in SIZES[name].items():
        path = folder / f"{name}-{split}.npy"
        if not path.is_file():
            labels = _labels(sizes)
            noise = generator.normal(size=(len(labels), DIM))
            np.save(path, (centres[labels] + noise).astype(np.float32))


def _labels(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)


def _inputs(name: str, out: Path) -> Inputs:
    encoder = build_encoder("colour_histogram")
    splits = {split: _images(name, split, sizes) for split, sizes in SIZES[name].items()}

    def embed() -> Embedded:
        return embed_splits(
            encoder,
            splits,
            lambda split, shift: np.load(out / "embeddings" / f"{name}-{split}.npy", "r"),
            shifts=("none",),
            precision="fp32",
        )

    return Inputs(
        encoder=encoder,
        splits=splits,
        embed=embed,
        encoder_stamp=stamp_encoder(encoder, "fp32"),
        data_stamp=stamp_data(splits),
        shifts=("none",),
        folder=out / "unfinished",
    )


def _images(name: str, split: str, sizes: Sequence[int]) -> LabelledImages:
    labels = _labels(sizes)
    per_group = _GROUP.get(name, 1)
    return LabelledImages(
        dataset=name,
        split=split,
        ids=tuple(f"{split}/{number}" for number in range(len(labels))),
        labels=labels,
        groups=np.array([f"{split} {number // per_group}" for number in range(len(labels))]),
        grouped_by="synthetic",
        classes=tuple(f"class {number}" for number in range(len(sizes))),
        reader=lambda index: np.zeros((1, 1, 3), np.uint8),
        manifest_sha256=f"{name} {split}",
        split_sha256=name,
    )


def _report(given: argparse.Namespace, seconds: float, peak_gb: float) -> None:
    rows = read_results(given.out)
    kinds: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        kinds[f"{row.data.name}, {row.task}, {row.protocol.id}"].append(row.seconds)
    for kind, times in sorted(kinds.items()):
        print(f"{kind}: {len(times)} jobs, {sum(times):,.0f} s in all, longest {max(times):,.0f} s")
    print(f"{len(rows)} jobs, {seconds / 60:,.1f} min (of this call), {peak_gb:.1f} GB at most")
    if given.json:
        line = {"name": "evaluation_grid", "minutes": seconds / 60, "gb": peak_gb}
        print(json.dumps({**line, "jobs": len(rows), "environment": stamp()}))


if __name__ == "__main__":
    main()
