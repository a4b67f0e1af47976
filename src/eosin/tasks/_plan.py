"""What an evaluation would do and cost, before it is begun; nothing is written."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from eosin import plugins
from eosin.datasets._base import LabelledImages
from eosin.embeddings import cache
from eosin.embeddings.extract import Config as EmbeddingConfig
from eosin.embeddings.extract import Extractor, batches_of
from eosin.encoders import Encoder
from eosin.errors import InputError
from eosin.results.files import read_results
from eosin.tasks._base import Inputs, Job
from eosin.tasks._baselines import with_baselines
from eosin.tasks._evaluate import Config, jobs_on, load_splits, make_inputs
from eosin.tasks._grid import Shard, finished_rows

_WARM_UP, _TIMED = 1, 3  # batches


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done with one encoder on one dataset.

    Attributes:
        encoder: its name.
        dataset: its name.
        jobs: how many there are, and how many of them are `done`.
        images: how many are still to be embedded, all splits and shifts together.
        embed_s: how long that takes, as measured on a few batches.
        jobs_s: how long the jobs that are left take, by those of the same kind that are done in
            the same folder; `None` where none of some kind is.
    """

    encoder: str
    dataset: str
    jobs: int
    done: int
    images: int
    embed_s: float
    jobs_s: float | None


def plan(config: Config) -> list[Work]:
    """Counts the jobs, and measures how long embeddings take.

    Raises:
        InputError: an encoder or a dataset does not exist or is not as it should be.
    """
    return list(_works(config))


def lines(works: list[Work]) -> list[str]:
    """Writes a plan for people, a line for each encoder and dataset and one for the sum."""
    said: list[str] = []
    for work in works:
        embeds = "nothing to embed"
        if work.images:
            embeds = f"{work.images:,} images to embed, {_time(work.embed_s)}"
        left = work.jobs - work.done
        fits = "" if not left else f", {_time(work.jobs_s)}"
        said.append(
            f"{work.encoder} on {work.dataset}: {embeds}; {work.jobs} jobs, {work.done} done{fits}"
        )
    known = [work.jobs_s for work in works if work.jobs_s is not None]
    seconds = sum(work.embed_s for work in works) + sum(known)
    jobs, done = sum(work.jobs for work in works), sum(work.done for work in works)
    rest = "" if len(known) == len(works) else ", besides jobs of a kind that was not done before"
    said.append(f"In all {jobs} jobs, {done} done; left: {_time(seconds)}{rest}.")
    return said


def facts(works: list[Work]) -> list[dict[str, Any]]:
    """Gives a plan for machines."""
    return [asdict(work) for work in works]


def _works(config: Config) -> Iterator[Work]:
    encoders = list(with_baselines(config.encoders, config.seed))
    shard, number = Shard.parse(config.shard), 0
    past = _past(config.out)
    for splits in [load_splits(root, config) for root in config.on]:
        for encoder in encoders:
            jobs = list(jobs_on(encoder, splits, config))
            mine = [job for place, job in enumerate(jobs, number) if shard.takes(place)]
            number += len(jobs)
            inputs = make_inputs(encoder, splits, config)
            left = [job for job in mine if finished_rows(job, inputs, config.out) is None]
            must_embed = any(not _task(job).TRAINS_THE_ENCODER for job in left)
            images, seconds = _embedding(encoder, inputs, config) if must_embed else (0, 0.0)
            yield Work(
                encoder=encoder.name,
                dataset=inputs.data_stamp.name,
                jobs=len(mine),
                done=len(mine) - len(left),
                images=images,
                embed_s=seconds,
                jobs_s=_expected(left, inputs, past),
            )


def _task(job: Job) -> Any:
    return plugins.load("tasks", job.task)


def _embedding(encoder: Encoder, inputs: Inputs, config: Config) -> tuple[int, float]:
    """Counts the images whose embeddings are not in the cache, and estimates their time."""
    missing = sum(
        len(images)
        for name, images in inputs.splits.items()
        for shift in (inputs.shifts if name == "test" else inputs.shifts[:1])
        if not _is_cached(encoder, images, config, shift)
    )
    if not missing:
        return 0, 0.0
    return missing, missing / _images_per_s(encoder, inputs.splits["train"], config.embedding)


def _is_cached(encoder: Encoder, images: LabelledImages, config: Config, shift: str) -> bool:
    key = cache.cache_key(encoder, images, config.embedding, shift)
    return (config.out / "embeddings" / f"{key}.safetensors").is_file()


def _images_per_s(encoder: Encoder, images: LabelledImages, config: EmbeddingConfig) -> float:
    batches = batches_of(len(images), config.batch_size)[: _WARM_UP + _TIMED]
    counted, started = 0, time.perf_counter()
    with closing(Extractor(encoder, images, config).run(batches)) as made:
        for number, batch in enumerate(made):
            if number + 1 == _WARM_UP and len(batches) > _WARM_UP:
                counted, started = 0, time.perf_counter()
            else:
                counted += len(batch.images)
    return counted / max(time.perf_counter() - started, 1e-9)


_Kind = tuple[str, str, str, float]


def _past(out: Path) -> Mapping[_Kind, float]:
    """How long jobs took that are done in the folder, by what tells their length."""
    try:
        rows = read_results(out) if out.is_dir() else []
    except InputError:
        rows = []
    seconds: dict[_Kind, list[float]] = defaultdict(list)
    for row in rows:
        kind = (row.data.name, row.task, row.protocol.id, row.label_fraction)
        seconds[kind].append(row.seconds)
    return {kind: fmean(each) for kind, each in seconds.items()}


def _expected(jobs: list[Job], inputs: Inputs, past: Mapping[_Kind, float]) -> float | None:
    total = 0.0
    for job in jobs:
        kind = (inputs.data_stamp.name, job.task, job.protocol.name, job.label_fraction)
        if kind not in past:
            return None
        total += past[kind]
    return total


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    if seconds < 120:
        return f"about {seconds:,.0f} s"
    minutes = seconds / 60
    return f"about {minutes:,.0f} min" if minutes < 120 else f"about {minutes / 60:,.1f} h"
