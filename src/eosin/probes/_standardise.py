"""Embeddings brought to zero mean and unit variance, on all cores."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from eosin.images.compiling import compiled
from eosin.probes._base import Matrix
from eosin.provenance import available_cores

Doubles = NDArray[np.float64]

# Parts stay in a core's own cache; which they are does not depend on the number of cores.
_PART_VALUES = 2**16
_PARTS_TOGETHER = 64


def mean_and_scale(features: Matrix) -> tuple[Matrix, Matrix]:
    """Gives mean and standard deviation [D] of embeddings [N, D]; 1 of what does not vary."""
    shift = features[0].astype(np.float64)
    sums, squares = np.zeros_like(shift), np.zeros_like(shift)

    def of_rows(rows: Matrix) -> tuple[Doubles, Doubles]:
        of_part = np.zeros_like(shift), np.zeros_like(shift)
        _add_moments(np.ascontiguousarray(rows, dtype=np.float32), shift, *of_part)
        return of_part

    with ThreadPoolExecutor(available_cores()) as executor:
        for more, more_squares in executor.map(of_rows, _parts(features, _PARTS_TOGETHER)):
            sums += more
            squares += more_squares
    off = sums / len(features)
    mean = (shift + off).astype(np.float32)
    variance = np.maximum(squares / len(features) - np.square(off), 0)
    scale = np.sqrt(variance).astype(np.float32)
    # What varies by less than float32 can tell from its mean would be noise blown up to unit size.
    scale[scale <= 4 * np.finfo(np.float32).eps * np.abs(mean)] = 1
    return mean, scale


def standardised(features: Matrix, mean: Matrix, scale: Matrix) -> Matrix:
    """Gives a copy of embeddings [N, D] less their mean and divided by their scale [D]."""
    centred = np.empty(features.shape, dtype=np.float32)

    def fill(rows: Matrix, into: Matrix) -> None:
        for part, of_part in zip(_parts(rows), _parts(into), strict=True):
            np.subtract(part, mean, out=of_part, dtype=np.float32)
            np.divide(of_part, scale, out=of_part)

    together = (_parts(each, _PARTS_TOGETHER) for each in (features, centred))
    with ThreadPoolExecutor(available_cores()) as executor:
        list(executor.map(fill, *together))
    return centred


def _parts(rows: Matrix, together: int = 1) -> Iterator[Matrix]:
    size = together * max(1, _PART_VALUES // rows.shape[1])
    return (rows[start : start + size] for start in range(0, len(rows), size))


@compiled
def _add_moments(rows: Matrix, shift: Doubles, sums: Doubles, squares: Doubles) -> None:
    """Adds rows [N, D] less a shift [D], and their squares; one of the rows is a good shift."""
    for at in range(len(rows)):
        row = rows[at]
        for d in range(len(shift)):
            value = row[d] - shift[d]
            sums[d] += value
            squares[d] += value * value
