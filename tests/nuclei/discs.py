"""Images of discs of two colours that never were, for the tests of training and of the task."""

import numpy as np

from eosin.datasets._instances import InstanceImages, Labelled

CLASSES = ("violet", "blue")
SIDE = 96


def labelled(seed: int, side: int = SIDE, count: int = 14) -> Labelled:
    """Draws discs that may touch but not overlap, on a pale ground."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    instances = np.zeros((side, side), np.int32)
    image = generator.normal((225, 200, 220), 6, (side, side, 3))
    types: list[int] = []
    for _ in range(count * 4):
        radius = generator.uniform(5, 8)
        middle = generator.uniform(0, side, 2)
        disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 <= radius**2
        if instances[disc].any() or len(types) == count:
            continue
        of_type = int(generator.integers(2))
        types.append(of_type)
        instances[disc] = len(types)
        colour = ((140, 60, 150), (60, 90, 190))[of_type]
        image[disc] = generator.normal(colour, 12, (int(disc.sum()), 3))
    return Labelled(image.clip(0, 255).astype(np.uint8), instances, np.array(types, dtype=np.int64))


def images(split: str, count: int, side: int = SIDE) -> InstanceImages:
    """A split of such images, two of each patient."""
    offset = {"train": 0, "valid": 500, "test": 1000}[split]
    return InstanceImages(
        dataset="discs",
        split=split,
        ids=tuple(f"{split}/{number}" for number in range(count)),
        groups=np.array([f"{split}/patient {number // 2}" for number in range(count)]),
        grouped_by="patient",
        classes=CLASSES,
        mpp=0.25,
        reader=lambda index: labelled(offset + index, side),
        manifest_sha256=split,
        split_sha256="division",
    )
