"""`eosin evaluate`: encoders and their baselines, on datasets, by tasks."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from eosin import plugins
from eosin.atomic import locked
from eosin.datasets._base import LabelledImages, Options, find_dataset
from eosin.embeddings import cache, extract
from eosin.encoders import Encoder, build_encoder
from eosin.encoders.colour_histogram import NAME as COLOUR_HISTOGRAM
from eosin.engine import precision as formats
from eosin.errors import UsageError
from eosin.images.stain_shift import NAME as STAIN_SHIFT
from eosin.protocols import find_protocol
from eosin.provenance import sha256_of
from eosin.results.files import write_job
from eosin.results.schema import DataStamp, EncoderStamp, Result
from eosin.tasks._base import Embedded, Matrix, Split
from eosin.weights import load_encoder

_RANDOM = "random/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is evaluated on what, and where the results go."""

    encoders: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of exported encoders, or names; a random encoder of each architecture and a colour
    histogram always join them."""
    on: tuple[Path, ...]
    """Folders of datasets: one folder a class, or PatchCamelyon's HDF5 files."""
    out: Path
    """Folder for the results, and for the embeddings that a later run takes up again."""
    dataset: str | None = None
    """Name of the dataset's layout, where its content does not tell."""
    task: tuple[str, ...] = ("linear", "knn")
    """What is done with the embeddings."""
    protocol: str = "strict"
    """Named settings of the tasks."""
    grouping: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)
    shift_test: bool = True
    """Score once more on test images with shifted stains (stain-shift-v1)."""
    seed: int = 0
    """Seed of the random encoders and of what hyper-parameters are chosen on; not of the test
    split."""
    embedding: Annotated[extract.Config, tyro.conf.OmitArgPrefixes] = field(
        default_factory=extract.Config
    )

    def __post_init__(self) -> None:
        if not self.encoders:
            raise UsageError("Name at least one encoder: a folder with an export, or a name.")
        if not self.on or not self.task:
            raise UsageError(f"Give at least one {'dataset with --on' if self.task else '--task'}.")
        if len(self.on) > 1 and (self.grouping.groups or self.dataset):
            raise UsageError("--groups and --dataset are for one dataset; give --on one folder.")
        unknown = [name for name in self.task if name not in plugins.names("tasks")]
        if unknown:
            choices = ", ".join(plugins.names("tasks"))
            raise UsageError(f"There is no task {unknown[0]!r}; choose from: {choices}.")
        find_protocol(self.protocol)


def evaluate(config: Config) -> list[Result]:
    """Evaluates encoders and their baselines, and writes a result file for each piece of work.

    Embeddings are taken from `out/embeddings` where they were computed before.

    Returns:
        One row for each encoder, dataset, task and kind of test images.

    Raises:
        InputError: an encoder or a dataset does not exist or is not as it should be.
    """
    encoders = list(_with_baselines([load_encoder(name) for name in config.encoders], config.seed))
    datasets = [_load_splits(root, config) for root in config.on]
    results: list[Result] = []
    with locked(config.out):
        for splits in datasets:
            for encoder in encoders:
                embedded = _embed(encoder, splits, config)
                for name in config.task:
                    task = plugins.load("tasks", name)
                    settings = task.Config(protocol=config.protocol, seed=config.seed)
                    rows = task.run(settings, embedded)
                    write_job(config.out, rows)
                    results += [result for result, _ in rows]
    return results


def _with_baselines(encoders: list[Encoder], seed: int) -> Iterator[Encoder]:
    """Yields the encoders, a random one of each architecture, and the histogram, none twice."""
    named = [*encoders]
    named += [each.reinitialised(seed) for each in encoders if not each.name.startswith(_RANDOM)]
    named.append(build_encoder(COLOUR_HISTOGRAM))
    seen: set[tuple[str, str]] = set()
    for encoder in named:
        identity = (encoder.weights_sha256(), encoder.transform_id())
        if identity not in seen:
            seen.add(identity)
            yield encoder


def _load_splits(root: Path, config: Config) -> dict[str, LabelledImages]:
    module = find_dataset(root, config.dataset)
    names = module.splits(root, config.grouping)
    splits = {name: module.load(root, name, config.grouping) for name in names}
    train = splits["train"]
    counts = ", ".join(f"{len(images):,} {name}" for name, images in splits.items())
    print(
        f"{train.dataset}: {counts} images, {len(train.classes)} classes, grouped by "
        f"{train.grouped_by}, division {train.split_sha256[:8]}",
        file=sys.stderr,
    )
    return splits


def _embed(encoder: Encoder, splits: dict[str, LabelledImages], config: Config) -> Embedded:
    folder = config.out / "embeddings"

    def embed(split: str, shift: str) -> Matrix:
        images = splits[split]
        title = f"{images.dataset} {split} by {encoder.name}"
        title += "" if shift == extract.NO_SHIFT else f" ({shift})"
        return cache.embed(encoder, images, config.embedding, folder, shift, title)

    shifts = [extract.NO_SHIFT, STAIN_SHIFT] if config.shift_test else [extract.NO_SHIFT]
    precision = formats.resolve(config.embedding.precision, formats.default_device())
    return embed_splits(encoder, splits, embed, shifts=shifts, precision=precision)


def embed_splits(
    encoder: Encoder,
    splits: Mapping[str, LabelledImages],
    embed: Callable[[str, str], Matrix],
    *,
    shifts: Sequence[str],
    precision: str,
) -> Embedded:
    """Brings together what a task takes: the embeddings of all splits, and what they are of.

    Args:
        encoder: what embeds.
        splits: `train`, `test` and, where there is one, `valid`.
        embed: gives the embeddings of a split, by its name, under a shift.
        shifts: what the test images are embedded under.
        precision: number format of the embeddings.
    """

    def part(split: str, shift: str = extract.NO_SHIFT) -> Split:
        return Split(images=splits[split], embeddings=embed(split, shift))

    train, test = splits["train"], splits["test"]
    return Embedded(
        encoder=EncoderStamp(
            name=encoder.name,
            weights_sha256=encoder.weights_sha256(),
            transform=encoder.transform_id(),
            pooling=encoder.pooling,
            precision=precision,
            embed_dim=encoder.embed_dim,
            architecture=encoder.architecture,
        ),
        data=DataStamp(
            name=train.dataset,
            manifest_sha256=sha256_of([images.manifest_sha256 for images in splits.values()]),
            split_sha256=train.split_sha256,
            n_train=len(train),
            n_test=len(test),
            classes=train.classes,
        ),
        train=part("train"),
        valid=part("valid") if "valid" in splits else None,
        tests={shift: part("test", shift) for shift in shifts},
    )
