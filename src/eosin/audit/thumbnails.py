"""Small grey pictures of many images: all that the search for near-duplicates looks at."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from eosin.errors import InputError
from eosin.progress import Bar
from eosin.provenance import available_cores

Image = NDArray[np.uint8]
Grey = NDArray[np.float32]

SIDE_PX = 64

# On glass and in uniform mucus what is left after smoothing is noise, and noise looks like noise:
# PatchCamelyon's blank patches have 0.9 to 1.3 grey levels, its palest tissue has 8.
_LEAST_CONTRAST = 3.0
_FINE_PX, _COARSE_PX = 0.7, 8.0


class Source(Protocol):
    """Images by number, which any number of threads read."""

    def __len__(self) -> int: ...

    def read(self, index: int, /) -> Image:
        """Reads an image as uint8 RGB [H, W, 3]; InputError if it cannot be read."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnails:
    """Grey thumbnails of some images.

    Attributes:
        numbers: of the images in their source [N].
        grey: the largest centred square of each, uint8 [N, 64, 64].
    """

    numbers: NDArray[np.int64]
    grey: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(kw_only=True)
class LeftOut:
    """Images that cannot be compared, by number in their source."""

    near_constant: list[int]
    unreadable: dict[int, str]


def read_thumbnails(
    source: Source, bar: Bar, left_out: LeftOut, at_once: int
) -> Iterator[Thumbnails]:
    """Reads every image once, in threads, and yields thumbnails of those that show something.

    Args:
        source: of the images.
        bar: counts images.
        left_out: takes the numbers of the images that are near-constant or unreadable.
        at_once: images that are looked at before what is left of them is yielded.
    """
    with ThreadPoolExecutor(available_cores(), thread_name_prefix="audit") as pool:
        for start in range(0, len(source), at_once):
            numbers = range(start, min(start + at_once, len(source)))
            kept: list[int] = []
            grey: list[NDArray[np.uint8]] = []
            for number, made in zip(
                numbers, pool.map(lambda each: _read_one(source, each), numbers), strict=True
            ):
                bar.advance()
                if isinstance(made, str):
                    left_out.unreadable[number] = made
                elif contrast(made) < _LEAST_CONTRAST:
                    left_out.near_constant.append(number)
                else:
                    kept.append(number)
                    grey.append(made)
            if kept:
                yield Thumbnails(numbers=np.array(kept, dtype=np.int64), grey=np.stack(grey))


def shrink(image: Image) -> NDArray[np.uint8]:
    """Makes a grey thumbnail [64, 64] of the largest centred square of an RGB image [H, W, 3]."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = np.ascontiguousarray(image[top : top + side, left : left + side])
    grey = cv2.cvtColor(square, cv2.COLOR_RGB2GRAY)
    how = cv2.INTER_AREA if side >= SIDE_PX else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, (SIDE_PX, SIDE_PX), interpolation=how), np.uint8)


def structure(grey: NDArray[np.uint8], coarse_px: float, fine_px: float = _FINE_PX) -> Grey:
    """Takes noise and slow changes of brightness from a thumbnail: a difference of Gaussians."""
    image = grey.astype(np.float32)
    smooth = cv2.GaussianBlur(image, (0, 0), fine_px)
    return np.asarray(smooth - cv2.GaussianBlur(image, (0, 0), coarse_px), np.float32)


def contrast(grey: NDArray[np.uint8]) -> float:
    """Gives the standard deviation of a thumbnail's structure, in grey levels."""
    return float(structure(grey, _COARSE_PX).std())


def _read_one(source: Source, index: int) -> NDArray[np.uint8] | str:
    try:
        return shrink(source.read(index))
    except InputError as error:
        return str(error)
