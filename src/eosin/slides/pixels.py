"""What a back end offers: the levels of one slide, and the pixels in them."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from eosin.slides.encoding import JpegEncoding

RGB = npt.NDArray[np.uint8]


class Pixels(Protocol):
    """The levels of one slide and the pixels in them; safe to read from several threads."""

    name: str
    """The back end, as it is recorded."""
    vendor: str
    mpp: float | None
    """Micrometres per level-0 pixel, if the file says it plausibly."""
    level_dimensions: tuple[tuple[int, int], ...]
    level_downsamples: tuple[float, ...]
    scales: tuple[tuple[int, ...], ...]
    """For each level, by how much it can be reduced while it is decoded; 1 among them."""

    def read_level(
        self, level: int, x_px: int, y_px: int, width_px: int, height_px: int, scale: int = 1
    ) -> RGB:
        """Reads a box of one level, reduced by `scale`; all measures in pixels of the outcome.

        What lies outside the slide, or was never scanned, is white.

        Raises:
            InputError: the file is damaged there.
        """
        ...

    def encoding(self, level: int) -> JpegEncoding | None:
        """How the slide itself encodes a level, or None if not as JPEG or not known."""
        ...

    def close(self) -> None:
        """Releases the file."""
        ...
