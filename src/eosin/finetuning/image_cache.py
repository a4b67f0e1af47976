"""Training images in memory, as large as augmentation has use for."""

import threading
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import LabelledImages

Image = NDArray[np.uint8]

MOST_BYTES = 1 << 30
"""What the images of a job may take in each process; further ones are read each time."""


class ImageCache:
    """Reads images once, reduces those far larger than needed, and keeps what there is room for.

    A reduced image has a short side of twice what the encoder takes, so that a crop of a quarter
    of its area still is as fine as the view of it. What is given does not depend on what is kept.
    Any number of threads may read.

    Args:
        splits: where the images are from.
        input_px: side of the encoder's input.
        most_bytes: how much to keep.
    """

    def __init__(
        self, splits: Mapping[str, LabelledImages], input_px: int, most_bytes: int = MOST_BYTES
    ) -> None:
        self._splits, self._short_px = splits, 2 * input_px
        self._left = most_bytes
        self._kept: dict[tuple[str, int], Image] = {}
        self._lock = threading.Lock()

    def read(self, split: str, index: int) -> Image:
        """Gives image number `index` of a split as uint8 RGB [H, W, 3].

        Raises:
            InputError: it cannot be read.
        """
        kept = self._kept.get((split, index))
        if kept is not None:
            return kept
        image = reduce(self._splits[split].read(index), self._short_px)
        with self._lock:
            if image.nbytes <= self._left and (split, index) not in self._kept:
                self._left -= image.nbytes
                self._kept[split, index] = image
        return image


def reduce(image: Image, short_px: int) -> Image:
    """Averages an image [H, W, 3] down to a short side of `short_px`, unless it is no longer."""
    height, width = image.shape[:2]
    short = min(height, width)
    if short <= short_px:
        return np.ascontiguousarray(image)
    size = (round(width * short_px / short), round(height * short_px / short))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
