"""Fine-tuning: all weights of a copy of the encoder are trained, with a new linear layer."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np

from eosin.datasets._base import LabelledImages
from eosin.engine.precision import Precision, default_device
from eosin.engine.sharing import remove_folder
from eosin.finetuning.image_cache import ImageCache
from eosin.finetuning.prediction import predict
from eosin.finetuning.search import Tuned, fine_tune
from eosin.finetuning.training import Setup
from eosin.protocols._base import Protocol
from eosin.tasks._base import Inputs, Job, Row, blank_row, labelled_parts, score

TRAINS_THE_ENCODER = True
TAKES_INSTANCES = False
_NAME = "finetune"


def offers(protocol: Protocol) -> bool:
    """Whether the protocol says how to train."""
    return protocol.finetune is not None


def is_random(protocol: Protocol) -> bool:
    """Whether another seed gives another order and augmentation."""
    return True


def row_names(job: Job, splits: Mapping[str, LabelledImages]) -> tuple[str, ...]:
    """What its rows are called."""
    return (_NAME,)


def run(job: Job, inputs: Inputs) -> list[Row]:
    """Trains by the protocol, and scores every kind of test images.

    What is trained lies in a folder of the job's in `inputs.folder` until the rows are given; a job
    that was killed goes on from its last checkpoint. Every process that `torchrun` started calls it
    and gets rows of the same predictions.

    Raises:
        InputError: the images are too few for the protocol's division, one cannot be read, or a
            training diverged.
        Interrupted: the process was asked to stop.
    """
    started = time.perf_counter()
    setup = _setup(job, inputs)
    labelled = labelled_parts(inputs.splits, job.label_fraction, job.draw)
    divided = job.protocol.division.divide(inputs.splits, labelled, job.seed)
    row = blank_row(_NAME, job, inputs.encoder_stamp, inputs.data_stamp)
    folder = inputs.folder / row.row_id
    tuned = fine_tune(setup, divided, job.protocol.metric, folder)
    rows = [_score(tuned, shift, setup, job, inputs, started) for shift in inputs.shifts]
    remove_folder(folder)
    return rows


def _setup(job: Job, inputs: Inputs) -> Setup:
    settings = job.protocol.finetune
    assert settings is not None, f"{job.protocol.name} has no {_NAME}"
    return Setup(
        encoder=inputs.encoder,
        splits=inputs.splits,
        n_classes=len(inputs.data_stamp.classes),
        settings=settings,
        precision=cast(Precision, inputs.encoder_stamp.precision),
        seed=job.seed,
        device=default_device(),
        cache=ImageCache(inputs.splits, inputs.encoder.input_px),
    )


def _score(tuned: Tuned, shift: str, setup: Setup, job: Job, inputs: Inputs, started: float) -> Row:
    test = inputs.splits["test"]
    probabilities = predict(
        tuned.classifier,
        test,
        np.arange(len(test)),
        precision=setup.precision,
        shift=shift,
        title=f"testing {inputs.encoder.name} on {test.dataset}",
    )
    data = replace(inputs.data_stamp, shift=shift)
    return score(
        _NAME, probabilities, test, tuned.selection, job, inputs.encoder_stamp, data, started
    )
