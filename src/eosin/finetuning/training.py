"""One training of an encoder with one learning rate, which a killed process can take up again."""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from eosin.datasets._base import LabelledImages
from eosin.encoders import Encoder
from eosin.engine import batch_norm, distributed
from eosin.engine.loop import LoopConfig, train
from eosin.engine.optimizers import OptimizerName, build_optimizer
from eosin.engine.precision import Precision
from eosin.engine.trainable import Batch
from eosin.errors import UsageError
from eosin.finetuning.classifier import Classifier, trainable_copy
from eosin.finetuning.feeding import Feed, TrainingSet
from eosin.finetuning.image_cache import ImageCache
from eosin.protocols._base import FineTuning
from eosin.protocols._division import Part

CHECKPOINT_EVERY = 200
"""Updates between checkpoints; one is written too when a process is asked to stop."""
_SEEDS_APART = 1_000_003


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """What all trainings of a job share.

    Attributes:
        encoder: whose copies are trained.
        splits: the images of the dataset.
        n_classes: how many classes it has.
        settings: how to train.
        precision: number format of the encoder's forward passes.
        seed: of order, augmentation and stochastic depth.
        device: where to train.
        cache: the training images.
    """

    encoder: Encoder
    splits: Mapping[str, LabelledImages]
    n_classes: int
    settings: FineTuning
    precision: Precision
    seed: int
    device: torch.device
    cache: ImageCache


def batch_size_of(settings: FineTuning, count: int) -> int:
    """Gives the images of an update, where `count` are trained on."""
    return min(settings.batch_size, count)


def updates_of(settings: FineTuning, count: int) -> int:
    """Gives the length of a training on `count` images."""
    updates = math.ceil(settings.epochs * count / batch_size_of(settings, count))
    return min(max(updates, settings.min_updates), settings.max_updates)


def train_classifier(
    setup: Setup, parts: Sequence[Part], learning_rate: float, folder: Path
) -> Classifier:
    """Trains a copy of the encoder with a new layer, from the newest checkpoint in `folder`.

    Every process calls it. BatchNorm layers take their statistics over the batches of all
    processes, so that the result is that of one process up to rounding.

    Args:
        setup: what all trainings share.
        parts: what to train on.
        learning_rate: peak for a batch of 256.
        folder: for checkpoints and the log.

    Raises:
        Diverged: the loss or the weights ceased to be numbers.
        InputError: an image cannot be read.
        Interrupted: the process was asked to stop; a checkpoint was written.
        UsageError: there are more processes than images of an update to share, or a negative seed.
    """
    images, settings = TrainingSet(setup.splits, parts), setup.settings
    size, updates = batch_size_of(settings, len(images)), updates_of(settings, len(images))
    _check(setup, size)
    with _seeded(setup):
        encoder = trainable_copy(setup.encoder, settings.drop_path)
        classifier = Classifier(
            encoder,
            setup.n_classes,
            settings,
            learning_rate=learning_rate,
            updates=updates,
            batch_size=size,
        )
        classifier = classifier.to(setup.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        batch_norm.synchronise(classifier)
        classifier.train()
        feed = Feed(
            images,
            setup.cache,
            encoder,
            settings,
            batch_size=size,
            updates=updates,
            seed=setup.seed,
            device=setup.device,
        )
        title = f"fine-tuning {encoder.name} at {learning_rate:g}"
        _run(setup, classifier, feed, folder, updates=updates, size=size, title=title)
    return classifier


def _run(
    setup: Setup,
    classifier: Classifier,
    feed: Feed,
    folder: Path,
    *,
    updates: int,
    size: int,
    title: str,
) -> None:
    optimizer = build_optimizer(cast(OptimizerName, setup.settings.optimizer), classifier.groups())
    loop = LoopConfig(
        updates=updates,
        tiles_per_update=size,
        precision=setup.precision,
        checkpoint_every=CHECKPOINT_EVERY,
        measure_every=updates,
        title=title,
    )
    with ExitStack() as loading:

        def batches(start: int) -> Iterator[Batch]:
            return loading.enter_context(closing(feed(start)))

        train(cast(Any, classifier), optimizer, batches, folder, loop, device=setup.device)


def _check(setup: Setup, size: int) -> None:
    processes = distributed.world_size()
    # BatchNorm aside, a process without images would leave the others waiting.
    if size < processes:
        raise UsageError(
            f"{processes} processes cannot share an update of {size} images; start at most {size}."
        )
    if setup.seed < 0:
        raise UsageError(f"--seed is {setup.seed}; it must be 0 or more.")


@contextmanager
def _seeded(setup: Setup) -> Generator[None]:
    """Draws anew in each process, and leaves the generators as they were."""
    devices = [setup.device] if setup.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(setup.seed + distributed.rank() * _SEEDS_APART)
        yield
