"""Embeddings of three kinds of images that never were, for the tests of tasks."""

from pathlib import Path

import numpy as np

from eosin.datasets._base import LabelledImages
from eosin.embeddings.embedded import Embedded, Split
from eosin.encoders import build_encoder
from eosin.results.schema import DataStamp, EncoderStamp
from eosin.tasks._base import Inputs

CLASSES = ("a", "b", "c")
SHIFTED = "stain-shift-v1"


def blobs(
    count: int, seed: int, name: str = "train", spread: float = 1.0, per_group: int = 1
) -> Split:
    """Three clouds of points in 16 dimensions."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    centres = np.random.default_rng(99).normal(size=(len(CLASSES), 16))
    features = centres[labels] + spread * generator.normal(size=(count, 16))
    images = LabelledImages(
        dataset="blobs",
        split=name,
        ids=tuple(f"{name}/{number}" for number in range(count)),
        labels=labels,
        groups=np.array([f"{name}/patient {number // per_group}" for number in range(count)]),
        grouped_by="patient",
        classes=CLASSES,
        reader=lambda index: np.zeros((8, 8, 3), np.uint8),
        manifest_sha256=name,
        split_sha256="division",
    )
    return Split(images=images, embeddings=features.astype(np.float32))


def embed(*, with_valid: bool = False, train: Split | None = None) -> Embedded:
    train = train or blobs(120, 0, per_group=6)
    test = blobs(60, 1, "test")
    return Embedded(
        encoder=EncoderStamp(
            name="e", weights_sha256="w", transform="t", pooling="p", precision="fp32", embed_dim=16
        ),
        data=DataStamp(
            name="blobs",
            manifest_sha256="m",
            split_sha256="division",
            n_train=len(train.images),
            n_test=60,
            classes=CLASSES,
        ),
        train=train,
        valid=blobs(30, 2, "valid") if with_valid else None,
        tests={"none": test, SHIFTED: Split(images=test.images, embeddings=-test.embeddings)},
    )


def inputs_of(embedded: Embedded, folder: Path = Path("unfinished")) -> Inputs:
    """The inputs of jobs that only need embeddings."""
    return Inputs(
        encoder=build_encoder("colour_histogram"),
        splits=embedded.splits,
        embed=lambda: embedded,
        encoder_stamp=embedded.encoder,
        data_stamp=embedded.data,
        shifts=list(embedded.tests),
        folder=folder,
    )
