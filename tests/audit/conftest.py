"""Drawn images with structure of many sizes, so that no two are alike and copies are."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
Draw = Callable[[int], Picture]


@pytest.fixture(scope="session")
def draw() -> Draw:
    def picture(seed: int) -> Picture:
        rng = np.random.default_rng(seed)
        total = np.zeros((128, 128, 3))
        for spread, weight in ((2, 1.0), (5, 1.5), (12, 1.5)):
            noise = cv2.GaussianBlur(rng.normal(size=(128, 128)), (0, 0), spread)
            total += weight * (noise / noise.std())[..., None] * (0.9, 1.0, 0.7)
        return np.clip(150 + 22 * total, 0, 255).astype(np.uint8)

    return picture


@pytest.fixture(scope="session")
def write() -> Callable[[Path, Picture], None]:
    def to_file(path: Path, image: Picture) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        quality = {} if path.suffix == ".png" else {"quality": 70}
        Image.fromarray(image).save(path, **quality)

    return to_file
