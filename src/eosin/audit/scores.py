"""What a score is made of: how much of it is colour, and how much is leak."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosin.audit import probing
from eosin.audit.probing import Sample
from eosin.datasets._base import LabelledImages
from eosin.embeddings import cache, extract
from eosin.encoders import Encoder
from eosin.provenance import sha256_of
from eosin.results.schema import Metric, Predictions
from eosin.results.statistics import Difference, compare, measure_mean

METRIC = "balanced_accuracy"

# One draw, and the penalty that one held-out part chooses, move the leak as much as it is large.
_RUNS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Subset:
    """Some images of a split, drawn at random; what `eosin.embeddings` takes."""

    images: LabelledImages
    rows: NDArray[np.int64]

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(self.images.ids[row] for row in self.rows.tolist())

    @property
    def manifest_sha256(self) -> str:
        """Hash of the split and of which of its images these are."""
        if len(self.rows) == len(self.images):
            return self.images.manifest_sha256
        return sha256_of([self.images.manifest_sha256, self.rows.tolist()])

    def read(self, index: int) -> NDArray[np.uint8]:
        """Reads an image as uint8 RGB [H, W, 3]."""
        return self.images.read(int(self.rows[index]))


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourShare:
    """How far a colour histogram comes beside an encoder, by the same probe on the same split."""

    histogram: Metric
    encoder: Metric
    chance: float
    share: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Leak:
    """What a leak adds to the balanced accuracy of a probe.

    Attributes:
        with_leak: the score that profits from it.
        without: the score that does not.
        added: their paired difference, with its 95 % interval over groups.
        removed: training images that were left out for the second; 0 where folds differ instead.
    """

    with_leak: Metric
    without: Metric
    added: Difference
    removed: int


def draw(images: LabelledImages, most: int, seed: int) -> Subset:
    """Draws whole groups of a split until the next would exceed `most` images, in their order.

    At least one group is drawn of each class.
    """
    rows = np.arange(len(images))
    if len(rows) > most:
        _, group_of = np.unique(images.groups, return_inverse=True)
        sizes = np.bincount(group_of)
        order = np.random.default_rng(seed).permutation(len(sizes))
        is_drawn = np.zeros(len(sizes), np.bool_)
        is_drawn[order[: np.searchsorted(np.cumsum(sizes[order]), most, side="right")]] = True
        rank = np.argsort(order)[group_of]
        for each in np.unique(images.labels):
            is_drawn[order[rank[images.labels == each].min()]] = True
        rows = rows[is_drawn[group_of]]
    return Subset(images=images, rows=rows)


def embed(encoder: Encoder, subset: Subset, config: extract.Config, folder: Path) -> Sample:
    """Embeds a subset, or takes its embeddings from the cache."""
    images, rows = subset.images, subset.rows
    title = f"{images.dataset} {images.split} by {encoder.name}"
    return Sample(
        ids=np.array(subset.ids),
        features=cache.embed(encoder, subset, config, folder, title=title),
        labels=images.labels[rows],
        groups=images.groups[rows],
    )


def colour_share(
    histogram: Mapping[str, Sample], encoder: Mapping[str, Sample], n_classes: int, seed: int
) -> ColourShare:
    """Scores the histogram and the encoder on the same split.

    Args:
        histogram: embeddings of `train` and `test`.
        encoder: likewise.
        n_classes: of the dataset.
        seed: of what is held out to choose the penalty.
    """
    predicted = [_on_split(each, n_classes, seed) for each in (histogram, encoder)]
    chance = 1 / len(np.unique(predicted[0].label))
    share, low, high = probing.share_of_gain(predicted[0], predicted[1], chance)
    return ColourShare(
        histogram=measure_mean([predicted[0]], METRIC),
        encoder=measure_mean([predicted[1]], METRIC),
        chance=chance,
        share=share,
        low=low,
        high=high,
    )


def random_split_leak(sample: Sample, folds: int, n_classes: int, seed: int) -> Leak | None:
    """Compares folds drawn image by image with folds of whole groups, of all images of a dataset.

    Every image is predicted once under each, by probes of the same penalty, which is chosen on
    whole groups.

    Returns:
        None where a class has fewer groups than two, so that no fold of whole groups has it.
    """
    groups_of = [np.unique(sample.groups[sample.labels == each]) for each in range(n_classes)]
    if min(map(len, groups_of)) < 2:
        return None
    penalty = probing.choose_penalty(sample, n_classes, seed)
    by_group = probing.cross_validate(sample, sample.groups, folds, n_classes, penalty, seed)
    by_image = probing.cross_validate(sample, sample.ids, folds, n_classes, penalty, seed)
    return _leak([by_image], [by_group], 0)


def duplicate_leak(
    train: Sample, test: Sample, copies: NDArray[np.bool_], n_classes: int, seed: int
) -> Leak | None:
    """Measures what near-duplicates of test images among the training images add to the score.

    The probe is fitted without them, and on as many training images of each class drawn at random;
    five times, with another draw and another held-out part that chooses the penalty.

    Args:
        train: the training images.
        test: the test images.
        copies: which training images are near-duplicates of test images.
        n_classes: of the dataset.
        seed: of the draw.

    Returns:
        None where a class has no other training images.
    """
    kept = np.flatnonzero(~copies)
    counts = np.bincount(train.labels[kept], minlength=n_classes)
    if (counts[np.unique(train.labels)] == 0).any():
        return None
    runs = [_with_and_without(train, test, kept, n_classes, seed + run) for run in range(_RUNS)]
    with_copies, without = zip(*runs, strict=True)
    return _leak(with_copies, without, int(copies.sum()))


def _with_and_without(
    train: Sample, test: Sample, kept: NDArray[np.int64], n_classes: int, seed: int
) -> tuple[Predictions, Predictions]:
    """Predicts from a draw of all training images, and from those kept, as many of each class."""
    generator = np.random.default_rng(seed)
    rows = np.concatenate(
        [
            generator.choice(
                np.flatnonzero(train.labels == each),
                int((train.labels[kept] == each).sum()),
                replace=False,
            )
            for each in np.unique(train.labels)
        ]
    )
    without = train.take(kept)
    penalty = probing.choose_penalty(without, n_classes, seed)
    return (
        probing.predict(train.take(np.sort(rows)), test, n_classes, penalty),
        probing.predict(without, test, n_classes, penalty),
    )


def _on_split(splits: Mapping[str, Sample], n_classes: int, seed: int) -> Predictions:
    penalty = probing.choose_penalty(splits["train"], n_classes, seed)
    return probing.predict(splits["train"], splits["test"], n_classes, penalty)


def _leak(first: Sequence[Predictions], second: Sequence[Predictions], removed: int) -> Leak:
    return Leak(
        with_leak=measure_mean(first, METRIC),
        without=measure_mean(second, METRIC),
        added=compare(first, second, METRIC),
        removed=removed,
    )
