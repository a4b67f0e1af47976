"""HoVer-Net on an encoder: trained, chosen on held-out images, and scored on the test images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from eosin.atomic import write_json
from eosin.datasets._division import hold_out
from eosin.datasets._fractions import labelled_part
from eosin.datasets._instances import InstanceImages
from eosin.embeddings.extract import SHIFTS
from eosin.engine import distributed
from eosin.engine.precision import Precision, default_device
from eosin.engine.sharing import remove_folder, together
from eosin.nuclei.choice import Measure
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.model_files import save_segmenter
from eosin.nuclei.pictures import by_size, draw_extremes
from eosin.nuclei.predicting import (
    Compared,
    NucleiPredictor,
    compare_images,
    count_images,
    mean_scores,
)
from eosin.nuclei.settings import Training
from eosin.nuclei.training import Setup, Trained, train_hovernet
from eosin.results.instance_counts import InstanceCounts
from eosin.results.schema import Result
from eosin.tasks._base import Inputs, Job, Row, blank_row, fill_row

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Divided:
    """What is trained on, and what the weights are chosen on."""

    fit: Indices
    held_out: InstanceImages | None
    held_out_index: Indices
    said: str


def run_nuclei(name: str, job: Job, inputs: Inputs, training: Training) -> list[Row]:
    """Trains by the settings, and scores every kind of test images.

    The network stays in `inputs.kept`, with pictures of the best and the worst test image.

    Args:
        name: what the rows are called.
        job: what to do.
        inputs: an encoder and a dataset of outlined nuclei.
        training: how.

    Raises:
        Diverged: the loss or the weights ceased to be numbers.
        InputError: an image cannot be read.
        Interrupted: the process was asked to stop.
    """
    started = time.perf_counter()
    row = blank_row(name, job, inputs.encoder_stamp, inputs.data_stamp, metric=training.metric)
    divided = _divide(job, inputs.instances, training)
    trained = _train(job, inputs, training, divided, inputs.folder / row.row_id)
    selection = {
        "split": divided.said,
        "n_fit": len(divided.fit),
        **trained.facts,
    }
    predictor = _predictor(trained.network, training, inputs)
    rows: list[tuple[Result, InstanceCounts]] = []
    kept = inputs.kept / row.row_id
    for shift in inputs.shifts:
        compared = together(lambda shift=shift: _compare(predictor, inputs, shift))
        rows.append(_row(name, job, inputs, training, shift, compared, selection, started))
        if shift == inputs.shifts[0] and distributed.is_main():
            _keep(trained, compared, rows[0], inputs.instances["test"], training, kept)
    remove_folder(inputs.folder / row.row_id)
    return list[Row](rows)


def _train(
    job: Job, inputs: Inputs, training: Training, divided: _Divided, folder: Path
) -> Trained:
    setup = Setup(
        encoder=inputs.encoder.at_size(training.input_px),
        images=inputs.instances["train"],
        chosen=divided.fit,
        training=training,
        precision=cast(Precision, inputs.encoder_stamp.precision),
        seed=job.seed,
        device=default_device(),
    )
    return train_hovernet(setup, _measure(divided, training, inputs), folder)


def _divide(job: Job, splits: Mapping[str, InstanceImages], training: Training) -> _Divided:
    """Takes the part of the labels, and holds out what the protocol chooses on."""
    images = splits["train"]
    labels = np.zeros(len(images), dtype=np.int64)
    part = labelled_part(labels, images.groups, job.label_fraction, job.draw)
    every = {name: np.arange(len(each)) for name, each in splits.items()}
    if training.chosen_on == "test":
        said = "test split, as the protocol has it"
        return _Divided(fit=part, held_out=splits["test"], held_out_index=every["test"], said=said)
    nothing = np.empty(0, np.int64)
    if training.chosen_on == "last":
        return _Divided(fit=part, held_out=None, held_out_index=nothing, said="nothing is chosen")
    if "valid" in splits:
        own = np.zeros(len(splits["valid"]), dtype=np.int64)
        chosen = labelled_part(own, splits["valid"].groups, job.label_fraction, job.draw)
        return _Divided(
            fit=part, held_out=splits["valid"], held_out_index=chosen, said="validation split"
        )
    groups = images.groups[part]
    if len(np.unique(groups)) < 2:
        said = "nothing is chosen: one group of images is too few to hold any out"
        return _Divided(fit=part, held_out=None, held_out_index=nothing, said=said)
    # At least one group, and never all.
    is_held = hold_out(labels[part], groups, training.held_out, job.seed)
    if not is_held.any():
        is_held = groups == np.unique(groups)[job.seed % len(np.unique(groups))]
    return _Divided(
        fit=part[~is_held],
        held_out=images,
        held_out_index=part[is_held],
        said=f"{int(is_held.sum())} held-out training images",
    )


def _measure(divided: _Divided, training: Training, inputs: Inputs) -> Measure | None:
    images, chosen = divided.held_out, divided.held_out_index
    if images is None:
        return None

    def scored(network: HoVerNet) -> Mapping[str, float]:
        predictor = _predictor(network, training, inputs)
        compared = list(compare_images(predictor, images, chosen))
        return mean_scores(count_images(compared, images, chosen))

    return scored


def _predictor(network: HoVerNet, training: Training, inputs: Inputs) -> NucleiPredictor:
    precision = cast(Precision, inputs.encoder_stamp.precision)
    return NucleiPredictor(network, training, precision, default_device())


def _compare(predictor: NucleiPredictor, inputs: Inputs, shift: str) -> list[Compared]:
    test = inputs.instances["test"]
    return list(compare_images(predictor, test, np.arange(len(test)), SHIFTS.get(shift)))


def _row(
    name: str,
    job: Job,
    inputs: Inputs,
    training: Training,
    shift: str,
    compared: Sequence[Compared],
    selection: Mapping[str, Any],
    started: float,
) -> tuple[Result, InstanceCounts]:
    test = inputs.instances["test"]
    counts = count_images(compared, test, np.arange(len(test)))
    data = replace(inputs.data_stamp, shift=shift)
    blank = blank_row(name, job, inputs.encoder_stamp, data, metric=training.metric)
    return fill_row(blank, counts, selection, started), counts


def _keep(
    trained: Trained,
    compared: Sequence[Compared],
    row: tuple[Result, InstanceCounts],
    test: InstanceImages,
    training: Training,
    kept: Path,
) -> None:
    """Keeps the network, pictures and the errors by size; what is not finished is not there."""
    result, counts = row
    facts = {"mpp": test.mpp, "classes": list(test.classes), "dataset": test.dataset}
    facts |= {"row_id": result.row_id, "task": result.task, "protocol": result.protocol.id}
    save_segmenter(trained.network, training, facts, kept)
    draw_extremes(compared, counts, test.classes, kept)
    write_json(kept / "by_size.json", by_size(compared, test.mpp))
