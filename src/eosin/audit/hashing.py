"""A perceptual hash in eight orientations, and the nearest hashes by exact search.

The hash is the sign of the 63 lowest frequencies of a 32 x 32 grey thumbnail against their median
(the "pHash"). Flips and turns by 90 degrees change signs and places of frequencies, so all eight
orientations of an image come from one transform.
"""

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from eosin.images.compiling import compiled

Hashes = NDArray[np.uint64]

ORIENTATIONS = 8
_SIDE, _LOW = 32, 8


def hash_orientations(grey: NDArray[np.uint8]) -> Hashes:
    """Hashes thumbnails [N, H, W] in all orientations [N, 8]; the first is the one they have."""
    small = [cv2.resize(each, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for each in grey]
    images = np.array(small, dtype=np.float32).reshape(-1, _SIDE, _SIDE)
    low = np.asarray(dctn(images, axes=(1, 2)))[:, :_LOW, :_LOW]
    sign = np.where(np.arange(_LOW) % 2, -1, 1).astype(np.float32)
    hashes: list[Hashes] = []
    for turned in (low, low.transpose(0, 2, 1)):
        for rows in (1, sign[:, None]):
            for columns in (1, sign):
                hashes.append(_bits(turned * rows * columns))
    return np.stack(hashes, axis=1)


def _bits(frequencies: NDArray[np.float32]) -> Hashes:
    flat = frequencies.reshape(len(frequencies), -1)[:, 1:]
    is_high = flat > np.median(flat, axis=1, keepdims=True)
    weights = np.left_shift(np.uint64(1), np.arange(flat.shape[1], dtype=np.uint64))
    return (is_high * weights).sum(1, dtype=np.uint64)


def nearest_hashes(
    queries: Hashes, references: Hashes, most: int, count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Finds the references with the fewest bits that differ in any orientation, by exact search.

    Args:
        queries: [N, 8], all orientations of each query.
        references: [M], one orientation of each reference.
        most: bits that may differ.
        count: references that are found for each query at most.

    Returns:
        The numbers of the references [N, count], nearest first and -1 where there are no more; and
        how many bits differ [N, count].
    """
    found = np.full((len(queries), count), -1, dtype=np.int32)
    distances = np.full((len(queries), count), most + 1, dtype=np.int32)
    _search(queries, references, found, distances)
    return found, distances


@compiled
def _search(
    queries: Hashes, references: Hashes, found: NDArray[np.int32], distances: NDArray[np.int32]
) -> None:
    m1, m2 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
    m4, h01 = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
    one, two, four, top = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(56)
    count = found.shape[1]
    least = np.empty(len(references), dtype=np.int32)
    for query in range(len(queries)):
        for reference in range(len(references)):
            least[reference] = 64
        for turn in range(queries.shape[1]):
            own = queries[query, turn]
            for reference in range(len(references)):
                # Counts bits, in a form that compilers know.
                x = own ^ references[reference]
                x = x - ((x >> one) & m1)
                x = (x & m2) + ((x >> two) & m2)
                x = (x + (x >> four)) & m4
                least[reference] = min(least[reference], np.int32((x * h01) >> top))
        for reference in range(len(references)):
            distance = least[reference]
            if distance < distances[query, count - 1]:
                place = count - 1
                while place > 0 and distances[query, place - 1] > distance:
                    distances[query, place] = distances[query, place - 1]
                    found[query, place] = found[query, place - 1]
                    place -= 1
                distances[query, place] = distance
                found[query, place] = reference
