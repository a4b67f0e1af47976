"""Images of two textures in any orientation, for the tests of fine-tuning."""

from pathlib import Path

import numpy as np

from eosin.datasets._base import LabelledImages
from eosin.embeddings.embedded import stamp_data, stamp_encoder
from eosin.encoders import Encoder
from eosin.protocols._base import FineTuning
from eosin.tasks._base import Inputs

CLASSES = ("fine", "coarse")
PX = 32

SETTINGS = FineTuning(
    learning_rates=(0.02,),
    layer_decay=0.75,
    weight_decay=0.05,
    epochs=1,
    warm_up=0.2,
    batch_size=16,
    optimizer="adamw",
    min_updates=6,
)


def texture(of_class: int, seed: int, height: int = PX, width: int = PX) -> np.ndarray:
    """Narrow or broad stripes of two colours, across or along, half of each."""
    generator = np.random.default_rng((of_class, seed))
    period = (4, 16)[of_class]
    y, x = np.mgrid[:height, :width]
    along = generator.integers(2)
    is_dark = ((x if along else y) + generator.integers(period)) % period < period // 2
    image = np.where(is_dark[..., None], (120, 60, 150), (220, 180, 200))
    return (image + generator.integers(-20, 20, image.shape)).astype(np.uint8)


def images(split: str, count: int, *, per_group: int = 2) -> LabelledImages:
    labels = np.arange(count) % 2
    offset = {"train": 0, "valid": 1000, "test": 2000}[split]
    return LabelledImages(
        dataset="textures",
        split=split,
        ids=tuple(f"{split}/{number}" for number in range(count)),
        labels=labels,
        groups=np.array([f"{split}/patient {n // (2 * per_group)}" for n in range(count)]),
        grouped_by="patient",
        classes=CLASSES,
        reader=lambda index: texture(int(labels[index]), offset + index),
        manifest_sha256=split,
        split_sha256="division",
    )


def make_splits(train: int = 40, test: int = 24, valid: int = 0) -> dict[str, LabelledImages]:
    splits = {"train": images("train", train), "test": images("test", test)}
    return splits | ({"valid": images("valid", valid)} if valid else {})


def make_inputs(
    encoder: Encoder, folder: Path, splits: dict[str, LabelledImages], shifts: tuple = ("none",)
) -> Inputs:
    def refuse():
        raise AssertionError("fine-tuning needs no embeddings of the encoder as it is")

    return Inputs(
        encoder=encoder,
        splits=splits,
        embed=refuse,
        encoder_stamp=stamp_encoder(encoder, "fp32"),
        data_stamp=stamp_data(splits),
        shifts=list(shifts),
        folder=folder,
    )
