"""The part of an audit that needs embeddings: which share of a score is colour, and which leak."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eosin.audit import findings, probing, scores
from eosin.audit.comparing import Compared
from eosin.audit.config import DEFAULT_ENCODER, Config
from eosin.audit.findings import Finding
from eosin.audit.probing import Sample
from eosin.datasets._base import LabelledImages
from eosin.encoders import Encoder, build_encoder
from eosin.encoders.colour_histogram import NAME as COLOUR_HISTOGRAM
from eosin.weights import load_encoder

_MOST_FOLDS = 5


def explain(
    dataset: str,
    splits: Mapping[str, LabelledImages],
    compared: Sequence[Compared],
    config: Config,
) -> Iterator[Finding]:
    """Yields what colour, a random split and near-duplicates add to the score on a dataset.

    Args:
        dataset: name.
        splits: its images.
        compared: the near-duplicates found in it.
        config: of the audit.
    """
    if not {"train", "test"} <= splits.keys():
        why = "without a training and a test split no score can be explained."
        yield findings.not_measured(dataset, "colour", why)
        return
    encoder = load_encoder(config.encoder or DEFAULT_ENCODER)
    n_classes = len(splits["train"].classes)
    embedded = _embed(encoder, splits, config)
    name = encoder.name
    if encoder.name != COLOUR_HISTOGRAM:
        histogram = _embed(build_encoder(COLOUR_HISTOGRAM).eval(), splits, config)
        found = scores.colour_share(histogram, embedded, n_classes, config.seed)
        yield findings.colour(dataset, name, found)
    yield _random_split(dataset, name, embedded, splits["train"], config)
    copies = _copies(embedded, compared, dataset)
    if copies.any():
        leak = scores.duplicate_leak(
            embedded["train"], embedded["test"], copies, n_classes, config.seed
        )
        if leak is None:
            why = "a class has no training images besides near-duplicates of test images."
            yield findings.not_measured(dataset, "duplicate_leak", why)
        else:
            yield findings.duplicate_leak(dataset, name, leak)


def _embed(
    encoder: Encoder, splits: Mapping[str, LabelledImages], config: Config
) -> dict[str, Sample]:
    folder = config.out / "embeddings"
    return {
        name: scores.embed(
            encoder,
            scores.draw(splits[name], config.probe_images, config.seed),
            config.embedding,
            folder,
        )
        for name in ("train", "test")
    }


def _random_split(
    dataset: str,
    encoder: str,
    embedded: Mapping[str, Sample],
    train: LabelledImages,
    config: Config,
) -> Finding:
    kind = "random_split"
    whole = probing.join(embedded["train"], embedded["test"])
    if len(np.unique(whole.groups)) == len(whole):
        why = (
            "its patients, slides or source images are not known (every image is its own group), "
            "so what a random split adds cannot be measured."
        )
        return findings.not_measured(dataset, kind, why)
    folds = min(max(round(1 / config.grouping.test_share), 2), _MOST_FOLDS)
    n_classes = len(train.classes)
    leak = scores.random_split_leak(whole, folds, n_classes, config.seed)
    if leak is None:
        why = "a class is of a single group, so no test can be without its group."
        return findings.not_measured(dataset, kind, why)
    return findings.random_split(dataset, encoder, train.grouped_by, folds, leak)


def _copies(
    embedded: Mapping[str, Sample], compared: Sequence[Compared], dataset: str
) -> NDArray[np.bool_]:
    """Marks the training images that are near-duplicates of test images that are scored."""
    tested = set(embedded["test"].ids.tolist())
    copied = {
        each.references.name(pair.reference)
        for each in compared
        if each.split == "test" and each.against == f"{dataset} train"
        for pair in each.pairs
        if each.queries.name(pair.query) in tested
    }
    return np.array([name in copied for name in embedded["train"].ids.tolist()], np.bool_)
