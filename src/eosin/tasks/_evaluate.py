"""`eosin evaluate`: encoders and their baselines, on datasets, by tasks and protocols."""

import contextlib
import fcntl
import os
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, cast

import tyro

from eosin import plugins
from eosin.atomic import locked, remove_leftovers
from eosin.datasets._base import LabelledImages, Options, find_dataset, resolve_root
from eosin.datasets._instances import InstanceImages
from eosin.embeddings import cache, extract
from eosin.embeddings.embedded import Embedded, Matrix, embed_splits, stamp_data, stamp_encoder
from eosin.encoders import Encoder
from eosin.engine import distributed
from eosin.engine import precision as formats
from eosin.engine.sharing import together
from eosin.errors import TooFewImages, UsageError
from eosin.images.stain_shift import NAME as STAIN_SHIFT
from eosin.results.schema import Result
from eosin.tasks._base import Inputs, Job
from eosin.tasks._baselines import with_baselines
from eosin.tasks._grid import Shard, check_offers, make_jobs
from eosin.tasks._running import run_jobs

_UNFINISHED, _KEPT = "unfinished", "models"

Splits = Mapping[str, LabelledImages] | Mapping[str, InstanceImages]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is evaluated on what, and where the results go."""

    encoders: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Folders of exported encoders, or names; a random encoder of each architecture, one trained
    on ImageNet where it is on this machine, and a colour histogram always join them."""
    on: tuple[Path, ...]
    """Data sets: folders with one folder a class or PatchCamelyon's HDF5 files, or names of those
    below EOSIN_DATA."""
    out: Path
    """Folder for the results, and for the embeddings that a later run takes up again."""
    dataset: str | None = None
    """Name of the dataset's layout, where its content does not tell."""
    task: tuple[str, ...] = ("linear", "knn")
    """What is done with the encoders."""
    protocol: tuple[str, ...] = ("strict",)
    """Named settings of the tasks; several are scored from the same embeddings."""
    labels: tuple[float, ...] = (100.0,)
    """Percentages of the labels to use; smaller parts lie within larger ones."""
    draws: int = 5
    """How often a part of the labels is drawn."""
    seeds: int = 1
    """How often what is random is repeated, with --seed and the numbers that follow."""
    grouping: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)
    shift_test: bool = True
    """Score once more on test images with shifted stains (stain-shift-v1)."""
    seed: int = 0
    """Seed of the random encoders and of what is random in the tasks; not of the test split."""
    shard: str = "1/1"
    """Do the second of eight parts of the work with 2/8; the parts may run at once, on machines
    that share --out."""
    plan: bool = False
    """Only say what there is to do and how long it takes."""
    why: bool = False
    """Afterwards explain why the two protocols differ, a setting at a time."""
    again: bool = False
    """Do what is done already once more."""
    embedding: Annotated[extract.Config, tyro.conf.OmitArgPrefixes] = field(
        default_factory=extract.Config
    )

    def __post_init__(self) -> None:
        if not self.encoders:
            raise UsageError("Name at least one encoder: a folder with an export, or a name.")
        if not self.on or not self.task or not self.protocol or not self.labels:
            raise UsageError("--on, --task, --protocol and --labels each need at least one value.")
        if len(self.on) > 1 and (self.grouping.groups or self.dataset):
            raise UsageError("--groups and --dataset are for one dataset; give --on one folder.")
        wrong = [percent for percent in self.labels if not 0 < percent <= 100]
        if wrong:
            raise UsageError(f"--labels {wrong[0]:g}: percentages lie above 0 and at most at 100.")
        if self.draws < 1 or self.seeds < 1:
            raise UsageError("--draws and --seeds must be at least 1.")
        if self.why and len(self.protocol) != 2:
            raise UsageError("--why explains the difference between two protocols; name two.")
        check_offers(self.task, self.protocol)
        Shard.parse(self.shard)

    @property
    def fractions(self) -> tuple[float, ...]:
        """The parts of the labels, rising."""
        return tuple(sorted({percent / 100 for percent in self.labels}))


def evaluate(config: Config) -> list[Result]:
    """Evaluates encoders and their baselines, and writes a result file for each piece of work.

    Embeddings are taken from `out/embeddings` and rows from `out` where they were computed before,
    so that a run that was killed goes on where it was.

    Returns:
        One row for each encoder, dataset, task, protocol, part of the labels, seed and kind of
        test images.

    Raises:
        InputError: an encoder or a dataset does not exist or is not as it should be.
        TooFewImages: of no job were the labels enough; if they are of some, or this is a part of
            the work, it is printed which are left out.
    """
    shard = Shard.parse(config.shard)
    encoders = list(with_baselines(config.encoders, config.seed))
    datasets = [load_splits(root, config) for root in config.on]
    results: list[Result] = []
    refused: list[TooFewImages] = []
    number = 0
    with distributed.process_group(formats.default_device()), contextlib.ExitStack() as held:
        _check_processes(config)
        together(lambda: _hold(config.out, shard, held))
        for splits in datasets:
            for encoder in encoders:
                jobs = list(jobs_on(encoder, splits, config))
                mine = [job for place, job in enumerate(jobs, number) if shard.takes(place)]
                number += len(jobs)
                inputs = make_inputs(encoder, splits, config)
                done = run_jobs(mine, inputs, config.out, again=config.again)
                results += done.rows
                refused += done.refused
    # Another part of the work may well have jobs that can be done.
    if refused and not results and shard.count == 1:
        raise refused[0]
    return results


def jobs_on(encoder: Encoder, splits: Splits, config: Config) -> Iterator[Job]:
    """Yields the jobs with an encoder on a dataset: of the tasks that its images are for."""
    has_weights = any(True for _ in encoder.parameters())
    seeds = range(config.seed, config.seed + config.seeds)
    for job in make_jobs(
        config.task, config.protocol, config.fractions, draws=config.draws, seeds=seeds
    ):
        task = plugins.load("tasks", job.task)
        is_for_it = has_instances(splits) == task.TAKES_INSTANCES
        if is_for_it and (has_weights or not task.TRAINS_THE_ENCODER):
            yield job


def has_instances(splits: Splits) -> bool:
    """Whether a dataset has outlined nuclei instead of labelled images."""
    return isinstance(splits["train"], InstanceImages)


def load_splits(root: Path, config: Config) -> Splits:
    """Loads all splits of a dataset, and says how many images there are.

    Raises:
        InputError: the dataset does not exist or is not as it should be.
        UsageError: none of the tasks is for its images.
    """
    root = resolve_root(root)
    module = find_dataset(root, config.dataset)
    names = module.splits(root, config.grouping)
    splits = {name: module.load(root, name, config.grouping) for name in names}
    _check_tasks(splits, config)
    train = splits["train"]
    counts = ", ".join(f"{len(images):,} {name}" for name, images in splits.items())
    if os.environ.get("RANK", "0") == "0":
        print(
            f"{train.dataset}: {counts} images, {len(train.classes)} classes, grouped by "
            f"{train.grouped_by}, division {train.split_sha256[:8]}",
            file=sys.stderr,
        )
    return splits


def _check_tasks(splits: Splits, config: Config) -> None:
    tasks = {name: plugins.load("tasks", name).TAKES_INSTANCES for name in plugins.names("tasks")}
    if has_instances(splits) not in [tasks[name] for name in config.task]:
        what = "outlined nuclei" if has_instances(splits) else "labelled images"
        fitting = [name for name, takes in tasks.items() if takes == has_instances(splits)]
        raise UsageError(
            f"{splits['train'].dataset} has {what}, which --task {' '.join(config.task)} is not "
            f"for; choose from: {', '.join(fitting)}."
        )


def make_inputs(encoder: Encoder, splits: Splits, config: Config) -> Inputs:
    """Brings together what the jobs on a dataset with an encoder take."""
    precision = formats.resolve(config.embedding.precision, formats.default_device())
    shifts = [extract.NO_SHIFT, STAIN_SHIFT] if config.shift_test else [extract.NO_SHIFT]
    is_outlined = has_instances(splits)
    labelled = cast(Mapping[str, LabelledImages], {} if is_outlined else splits)
    return Inputs(
        encoder=encoder,
        splits=labelled,
        instances=cast(Mapping[str, InstanceImages], splits if is_outlined else {}),
        embed=lambda: _embed(encoder, labelled, config, shifts, precision),
        encoder_stamp=stamp_encoder(encoder, precision),
        data_stamp=stamp_data(splits),
        shifts=shifts,
        folder=config.out / _UNFINISHED,
        kept=config.out / _KEPT,
    )


def _embed(
    encoder: Encoder,
    splits: Mapping[str, LabelledImages],
    config: Config,
    shifts: Sequence[str],
    precision: str,
) -> Embedded:
    folder = config.out / "embeddings"

    def embed(split: str, shift: str) -> Matrix:
        images = splits[split]
        title = f"{images.dataset} {split} by {encoder.name}"
        title += "" if shift == extract.NO_SHIFT else f" ({shift})"
        return cache.embed(encoder, images, config.embedding, folder, shift, title)

    with _one_at_a_time(folder):
        return embed_splits(encoder, splits, embed, shifts=shifts, precision=precision)


def _check_processes(config: Config) -> None:
    """Refuses several processes for what one does."""
    alone = [task for task in config.task if not plugins.load("tasks", task).TRAINS_THE_ENCODER]
    if alone and distributed.is_distributed():
        raise UsageError(
            f"torchrun is for training an encoder in several processes, which --task "
            f"{' '.join(alone)} does not; share such work with --shard."
        )


def _hold(out: Path, shard: Shard, held: contextlib.ExitStack) -> None:
    """Takes the folder for this run, or this part of a run, until `held` is closed."""
    if not distributed.is_main():
        return
    is_part = shard.count > 1
    held.enter_context(locked(out, is_shared=is_part))
    if is_part:
        held.enter_context(locked(out / "shards" / f"{shard.number}-of-{shard.count}"))
    else:
        remove_leftovers(out)
        held.callback(_remove_if_empty, out / _UNFINISHED)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Generator[None]:
    """Waits for other parts of the same run that are embedding; what they embed is then there."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".turn", "a+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
