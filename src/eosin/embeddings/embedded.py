"""One encoder's embeddings of one labelled dataset: what tasks and protocols take."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages
from eosin.datasets._instances import InstanceImages
from eosin.embeddings.extract import NO_SHIFT
from eosin.encoders import Encoder
from eosin.provenance import sha256_of
from eosin.results.schema import DataStamp, EncoderStamp

Matrix = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """The images of a split and their embeddings [N, D]."""

    images: LabelledImages
    embeddings: Matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """One encoder's embeddings of one dataset.

    Attributes:
        encoder: which encoder.
        data: which dataset.
        train: what is fitted on.
        valid: what hyper-parameters are chosen on, where the dataset has such a split.
        tests: what is scored, by what was done to the images: `none` or a shift.
    """

    encoder: EncoderStamp
    data: DataStamp
    train: Split
    valid: Split | None
    tests: Mapping[str, Split]

    @property
    def n_classes(self) -> int:
        """How many classes the dataset has."""
        return len(self.data.classes)

    @property
    def splits(self) -> dict[str, LabelledImages]:
        """The images of all splits, by name."""
        given = {"train": self.train.images, "test": self.tests[NO_SHIFT].images}
        return given if self.valid is None else {**given, "valid": self.valid.images}

    def embeddings_of(self, split: str) -> Matrix:
        """The embeddings of a split's images as they are."""
        chosen = {"train": self.train, "valid": self.valid, "test": self.tests[NO_SHIFT]}[split]
        assert chosen is not None, f"there is no split {split}"
        return chosen.embeddings


def stamp_encoder(encoder: Encoder, precision: str) -> EncoderStamp:
    """Says which encoder it is, down to what changes its embeddings."""
    return EncoderStamp(
        name=encoder.name,
        weights_sha256=encoder.weights_sha256(),
        transform=encoder.transform_id(),
        pooling=encoder.pooling,
        precision=precision,
        embed_dim=encoder.embed_dim,
        architecture=encoder.architecture,
    )


def stamp_data(
    splits: Mapping[str, LabelledImages] | Mapping[str, InstanceImages],
) -> DataStamp:
    """Says which images and labels a dataset consists of."""
    train = splits["train"]
    return DataStamp(
        name=train.dataset,
        manifest_sha256=sha256_of([images.manifest_sha256 for images in splits.values()]),
        split_sha256=train.split_sha256,
        n_train=len(train),
        n_test=len(splits["test"]),
        classes=train.classes,
    )


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

    def part(split: str, shift: str = NO_SHIFT) -> Split:
        return Split(images=splits[split], embeddings=embed(split, shift))

    return Embedded(
        encoder=stamp_encoder(encoder, precision),
        data=stamp_data(splits),
        train=part("train"),
        valid=part("valid") if "valid" in splits else None,
        tests={shift: part("test", shift) for shift in shifts},
    )
