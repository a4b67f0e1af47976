"""What every task takes and gives: a job, its inputs, and result rows.

A module of this folder is a choice. It has

- `TRAINS_THE_ENCODER`: whether it needs an encoder with weights, and its images;
- `TAKES_INSTANCES`: whether it is done on outlined nuclei and not on labelled images;
- `offers(protocol)`: whether the protocol settles how the task is done;
- `is_random(protocol)`: whether another seed gives another number;
- `row_names(job, splits)`: the tasks that its rows name, often one;
- `run(job, inputs)`: a row and its predictions for each of them and each kind of test images.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages
from eosin.datasets._fractions import labelled_part
from eosin.datasets._instances import InstanceImages
from eosin.embeddings.embedded import Embedded, Matrix
from eosin.encoders import Encoder
from eosin.probes._base import Fold, Head, Material, Samples
from eosin.protocols._base import Protocol
from eosin.protocols._division import Divided, Labelled, Part
from eosin.provenance import stamp
from eosin.results.schema import (
    DataStamp,
    EncoderStamp,
    Measurable,
    Predictions,
    ProtocolStamp,
    Result,
)
from eosin.results.statistics import measure

Labels = NDArray[np.int64]
Row = tuple[Result, Measurable]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One piece of work: a task by a protocol, on a part of the labels, with a seed."""

    task: str
    protocol: Protocol
    label_fraction: float = 1.0
    draw: int = 0
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a job is done with.

    Attributes:
        encoder: which encoder; of its own weights nothing is changed.
        splits: the images of the dataset: `train`, `test` and, where there is one, `valid`.
        instances: the same of a dataset of outlined nuclei, which has no `splits`.
        embed: gives their embeddings; called at most once.
        encoder_stamp: says which encoder.
        data_stamp: says which dataset.
        shifts: what is done to the test images, one after the other; the first is nothing.
        folder: for what a job keeps until it is done.
        kept: for what stays beside the rows, such as a trained network.
    """

    encoder: Encoder
    splits: Mapping[str, LabelledImages]
    embed: Callable[[], Embedded]
    encoder_stamp: EncoderStamp
    data_stamp: DataStamp
    shifts: Sequence[str]
    folder: Path
    kept: Path = Path("models")
    instances: Mapping[str, InstanceImages] = field(default_factory=dict[str, InstanceImages])

    @cached_property
    def embedded(self) -> Embedded:
        """The embeddings of all splits."""
        return self.embed()


def run_head(task: str, head: Head | None, job: Job, embedded: Embedded) -> list[Row]:
    """Fits a head on embeddings by the job's protocol, and scores every kind of test images.

    Raises:
        InputError: the images are too few for the protocol's division.
    """
    assert head is not None, f"{job.protocol.name} has no {task}"
    started = time.perf_counter()
    labelled = labelled_parts(embedded.splits, job.label_fraction, job.draw)
    divided = job.protocol.division.divide(embedded.splits, labelled, job.seed)
    fitted = head.fit(material_of(divided, embedded), job.seed)
    selection = describe_selection(divided, fitted.chosen)
    return [
        score(
            task,
            fitted.predict(test.embeddings),
            test.images,
            selection,
            job,
            embedded.encoder,
            replace(embedded.data, shift=shift),
            started,
        )
        for shift, test in embedded.tests.items()
    ]


def labelled_parts(splits: Mapping[str, LabelledImages], fraction: float, draw: int) -> Labelled:
    """Chooses the images whose labels are used: of `valid` as large a part as of `train`.

    Labels that hyper-parameters are chosen by are labels, too.
    """
    return {
        name: labelled_part(images.labels, images.groups, fraction, draw)
        for name, images in splits.items()
        if name != "test"
    }


def material_of(divided: Divided, embedded: Embedded) -> Material:
    """Turns a division of images into one of their embeddings."""
    folds = tuple(
        Fold(fit=_samples(fold.fit, embedded), held_out=_samples((fold.held_out,), embedded))
        for fold in divided.folds
    )
    return Material(
        train=_samples(divided.train, embedded), folds=folds, n_classes=embedded.n_classes
    )


def describe_selection(divided: Divided, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Says what was fitted on, and how hyper-parameters were chosen, and which."""
    n_fit = sum(len(part.index) for part in divided.train)
    return {"split": divided.selected_on, "n_fit": n_fit, **chosen}


def score(
    task: str,
    scores: Matrix,
    images: LabelledImages,
    selection: Mapping[str, Any],
    job: Job,
    encoder: EncoderStamp,
    data: DataStamp,
    started: float,
    *,
    episodes: int = 0,
) -> Row:
    """Makes a result row of what was predicted for test images.

    Args:
        task: what the row is called.
        scores: of each test image and class [N, classes]; of few-shot episodes their shares.
        images: the test images.
        selection: how hyper-parameters were chosen, and which.
        job: what was done.
        encoder: by which encoder.
        data: on which data, and what was done to the test images.
        started: `time.perf_counter()` before it began.
        episodes: over how many choices of labelled images `scores` are shares.
    """
    predictions = Predictions(
        sample=np.array(images.ids),
        group=images.groups,
        label=images.labels,
        predicted=scores.argmax(1).astype(np.int64),
        scores=scores,
        is_share=episodes > 0,
    )
    blank = blank_row(task, job, encoder, data, episodes=episodes)
    return fill_row(blank, predictions, selection, started), predictions


def fill_row(
    blank: Result, measured: Measurable, selection: Mapping[str, Any], started: float
) -> Result:
    """Gives a blank row what was measured, how it was chosen, and how long it took."""
    return replace(
        blank,
        selection=dict(selection),
        metrics=measure(measured),
        seconds=time.perf_counter() - started,
        provenance=stamp(),
    )


def blank_row(
    task: str,
    job: Job,
    encoder: EncoderStamp,
    data: DataStamp,
    *,
    episodes: int = 0,
    metric: str | None = None,
) -> Result:
    """Makes the row of a job that is still to be done; its `row_id` is that of the one to come."""
    return Result(
        task=task,
        protocol=ProtocolStamp(id=job.protocol.name, version=job.protocol.version),
        encoder=encoder,
        data=data,
        label_fraction=job.label_fraction,
        draw=job.draw,
        seed=job.seed,
        selection={},
        metrics={},
        metric=metric or job.protocol.metric,
        episodes=episodes,
        seconds=0.0,
        provenance={},
    )


def _samples(parts: Sequence[Part], embedded: Embedded) -> Samples:
    splits = embedded.splits
    images = [(splits[part.split], part.index) for part in parts]
    whole = len(parts) == 1 and len(parts[0].index) == len(images[0][0])
    features = (
        embedded.embeddings_of(parts[0].split)
        if whole
        else np.concatenate([embedded.embeddings_of(part.split)[part.index] for part in parts])
    )
    return Samples(
        features=features,
        labels=np.concatenate([each.labels[index] for each, index in images]),
        groups=np.concatenate([each.groups[index] for each, index in images]),
        ids=tuple(each.ids[number] for each, index in images for number in index.tolist()),
    )
