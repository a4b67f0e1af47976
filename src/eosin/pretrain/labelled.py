"""How well the encoder of a run tells labelled images apart while it trains.

The scores say how the run goes on and which of its checkpoints to take; they are no results. The
test split is never read, so that `eosin evaluate` still may.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.datasets._base import LabelledImages, Options, check_labelled, find_dataset
from eosin.datasets._division import hold_out
from eosin.embeddings.extract import fit_to_square
from eosin.encoders import Encoder
from eosin.engine.precision import Precision
from eosin.errors import InputError, UsageError
from eosin.pretrain.monitor import embed_tiles
from eosin.probes import linear
from eosin.probes.knn import KnnProbe
from eosin.progress import Bar
from eosin.protocols import strict
from eosin.provenance import available_cores

Labels = NDArray[np.int64]
Indices = NDArray[np.int64]

MOST_IMAGES = 2000
"""Images of each part: at 224 px both parts take 0.6 GB."""
_K = 20
_LINEAR_C, _LINEAR_ITERATIONS = 0.01, 200
_HELD_OUT_SHARE = 0.3
_READ_AT_ONCE = 64
_OPTION = "--monitor-on"


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Images as the encoder takes them, uint8 [N, 3, S, S], and their classes [N]."""

    tiles: Tensor
    labels: Labels


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledTiles:
    """Labelled images in memory.

    Attributes:
        dataset: name of the dataset.
        classes: class names.
        fitted: what probes are fitted on: images of the training split.
        scored: what they are scored on.
        scored_from: where `scored` comes from, in words.
    """

    dataset: str
    classes: tuple[str, ...]
    fitted: Part
    scored: Part
    scored_from: str

    def __str__(self) -> str:
        return (
            f"{self.dataset}: {len(self.classes)} classes, probes fitted on "
            f"{len(self.fitted.labels):,} training images and scored on "
            f"{len(self.scored.labels):,} of {self.scored_from}"
        )


def load_labelled(
    root: Path,
    encoder: Encoder,
    *,
    options: Options | None = None,
    most_images: int = MOST_IMAGES,
    seed: int = 0,
) -> LabelledTiles:
    """Reads what a run is scored on: of the training split and, to score, of the validation split.

    Where there is no validation split, whole groups of the training split are held out instead.
    Of each part at most `most_images` are taken, of each class its share.

    Args:
        root: folder of a dataset, as of `eosin evaluate --on`.
        encoder: for the size and the interpolation.
        options: how a dataset without groups or splits of its own is grouped and divided.
        most_images: of each part.
        seed: of the choice and of the division; the global generators are left alone.

    Raises:
        InputError: the dataset cannot be used, or an image cannot be read.
        UsageError: several kinds of dataset recognise the folder, or too few images are asked for.
    """
    if most_images < 2:
        raise UsageError(f"At most {most_images} images cannot be scored on; give 2 or more.")
    try:
        return _load(root, encoder, options or Options(), most_images, seed)
    except InputError as error:
        raise type(error)(f"{_OPTION}: {error}") from None


def score_labelled(
    encoder: Encoder, labelled: LabelledTiles, precision: Precision = "auto"
) -> Mapping[str, float]:
    """Fits probes on an encoder's embeddings, and leaves the encoder as it was.

    Returns:
        `knn`, the accuracy of the 20 nearest neighbours by cosine (centred and weighted as the
        protocol `strict` does), `knn_balanced`, their balanced accuracy, and `linear`, the accuracy
        of logistic regression with one fixed penalty. Nothing where embeddings are not finite.
    """
    fitted, scored = labelled.fitted, labelled.scored
    features = embed_tiles(encoder, fitted.tiles, precision).numpy()
    queries = embed_tiles(encoder, scored.tiles, precision).numpy()
    if not (np.isfinite(features).all() and np.isfinite(queries).all()):
        return {}
    n_classes = len(labelled.classes)
    centre = features.mean(0)
    knn = KnnProbe(
        features=features - centre,
        labels=fitted.labels,
        n_classes=n_classes,
        k=_K,
        temperature=strict.KNN.temperature,
    ).predict(queries - centre)
    probe = linear.fit(features, fitted.labels, n_classes, _LINEAR_C, _LINEAR_ITERATIONS)
    hits = knn.argmax(1) == scored.labels
    by_class = [hits[scored.labels == each].mean() for each in np.unique(scored.labels)]
    return {
        "knn": float(hits.mean()),
        "knn_balanced": float(np.mean(by_class)),
        "linear": float((probe.predict(queries).argmax(1) == scored.labels).mean()),
    }


def _load(
    root: Path, encoder: Encoder, options: Options, most_images: int, seed: int
) -> LabelledTiles:
    module = find_dataset(root)
    check_labelled(module, root)
    names = module.splits(root, options)
    if "train" not in names:
        raise InputError(f"{root} has no training split; it has {', '.join(names) or 'none'}.")
    train: LabelledImages = module.load(root, "train", options)
    if "valid" in names:
        valid: LabelledImages = module.load(root, "valid", options)
        fitted, scored = np.arange(len(train)), np.arange(len(valid))
        scored_from = "the validation split"
    else:
        valid = train
        out = hold_out(train.labels, train.groups, _HELD_OUT_SHARE, seed)
        fitted, scored = np.flatnonzero(~out), np.flatnonzero(out)
        scored_from = f"the training split, held out by {train.grouped_by}"
    fitted = fitted[choose_stratified(train.labels[fitted], most_images, seed)]
    scored = scored[choose_stratified(valid.labels[scored], most_images, seed)]
    _check(root, train, valid, fitted, scored)
    with Bar(f"reading {train.dataset}", len(fitted) + len(scored), "images") as bar:
        return LabelledTiles(
            dataset=train.dataset,
            classes=train.classes,
            fitted=_read(train, fitted, encoder, bar),
            scored=_read(valid, scored, encoder, bar),
            scored_from=scored_from,
        )


def choose_stratified(labels: Labels, most: int, seed: int) -> Indices:
    """Chooses at most `most` images, of each class its share, at random but the same each time.

    Args:
        labels: class of each image [N].
        most: how many; a class that is there at all keeps one image at least.
        seed: another seed gives another choice.

    Returns:
        Numbers of the chosen images, rising.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    # The first image of each class is at 0, the last just below 1, so the lowest are its share.
    place = np.empty(len(labels))
    for each in np.unique(labels):
        own = shuffled[labels[shuffled] == each]
        place[own] = np.arange(len(own)) / len(own)
    return np.sort(shuffled[np.argsort(place[shuffled], kind="stable")][:most])


def _check(
    root: Path, train: LabelledImages, valid: LabelledImages, fitted: Indices, scored: Indices
) -> None:
    """Refuses a division that says nothing.

    Raises:
        InputError: a part has too few images or classes.
    """
    known = np.unique(train.labels[fitted])
    found = np.unique(valid.labels[scored])
    if len(known) < 2 or len(found) < 2:
        raise InputError(
            f"{root} cannot be scored on: {len(known)} of its {len(train.classes)} classes are "
            f"left to fit a probe on and {len(found)} to score it on, where 2 are needed. Add "
            f"images of more groups (they are grouped by {train.grouped_by})."
        )
    unknown = sorted(set(found.tolist()) - set(known.tolist()))
    if unknown:
        raise InputError(
            f"{root}: class {train.classes[unknown[0]]} has images to score on and none to fit a "
            f"probe on. Add images of more groups (they are grouped by {train.grouped_by})."
        )


def _read(images: LabelledImages, chosen: Indices, encoder: Encoder, bar: Bar) -> Part:
    side = encoder.input_px
    pixels = np.empty((len(chosen), side, side, 3), dtype=np.uint8)

    def read(position: int) -> None:
        image = images.read(int(chosen[position]))
        pixels[position] = fit_to_square(image, side, encoder.interpolation)

    with ThreadPoolExecutor(available_cores(), thread_name_prefix="labelled") as pool:
        for start in range(0, len(chosen), _READ_AT_ONCE):
            positions = range(start, min(start + _READ_AT_ONCE, len(chosen)))
            list(pool.map(read, positions))
            bar.advance(len(positions))
    tiles = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return Part(tiles=tiles, labels=images.labels[chosen])
