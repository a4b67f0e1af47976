"""Arrays that a thread keeps between images, for what is thrown away when an image is done.

Fresh arrays of this size come from the operating system a page at a time, which takes about as long
as the arithmetic on them.
"""

import math
import threading
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Scalar = TypeVar("Scalar", bound=np.generic)

_MOST_BYTES = 16_000_000


class Buffers(threading.local):
    """Arrays by name; each thread has its own."""

    def __init__(self) -> None:
        self._kept: dict[str, npt.NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
        """Gives a contiguous array of any content, which is valid until `name` is asked for again.

        Args:
            name: what it is for; one name has one type.
            shape: of the array; above 16 MB it is a new array and not kept.
            dtype: of its values.
        """
        size = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.size < size:
            kept = np.empty(size, dtype)
            if kept.nbytes <= _MOST_BYTES:
                self._kept[name] = kept
        return kept[:size].reshape(shape)
