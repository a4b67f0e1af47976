"""Arrays derived from the rows of a store: kept on disk, mapped into memory, shared by processes.

None of them holds anything that the rows do not: a missing or damaged one is made again.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eosin import atomic

Array = npt.NDArray[Any]


def open_array(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], fill: Callable[[Array], None]
) -> Array:
    """Maps an array into memory, read only, and makes it first where it is missing or damaged.

    On a disk that cannot be written it is made in memory instead.

    Args:
        path: where it lies, a `.npy` file.
        shape: what it must have; a file that differs is taken for damaged.
        dtype: likewise.
        fill: writes the content into an array of that shape and type.
    """
    array = map_array(path, shape, dtype)
    if array is not None:
        return array
    try:
        with atomic.replacing(path) as temporary:
            fill(np.lib.format.open_memmap(temporary, "w+", dtype, shape))
        array = map_array(path, shape, dtype)
    except OSError:
        array = None
    if array is None:
        array = np.empty(shape, dtype)
        fill(array)
        array.flags.writeable = False
    return array


def map_array(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """Maps a `.npy` file into memory, read only; None if there is none, or it is another array."""
    try:
        # An array without elements cannot be mapped.
        mode = "r" if shape[0] else None
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    # A plain view: np.memmap does bookkeeping at each element that is taken out of it.
    return array.view(np.ndarray) if (array.shape, array.dtype) == (shape, dtype) else None
