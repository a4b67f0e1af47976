"""What instances of an image were found, counted from one table of which pixels they share.

Definitions: aggregated Jaccard index, Kumar et al. 2017; its one-to-one form, panoptic quality and
detection of nuclei, Graham et al. 2019, as the authors' code has them (vqdang/hover_net at 67e2ce5,
metrics/stats_utils.py and compute_stats.py), but that an image without nuclei gets none at its
corner. Metrics of one type are those of the instances of the type, as in CoNIC and PanNuke.
`eosin.results.instance_scores` makes metrics of the counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial.distance import cdist

from eosin.images.compiling import compiled
from eosin.results.instance_counts import OF_TYPES, SHARED, InstanceCounts

RADIUS_PX = 12.0
"""How far apart centroids may be that are paired, at 0.25 micrometres a pixel."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Names = Sequence[str] | NDArray[np.str_]
Labelled = tuple[NDArray[np.integer], NDArray[np.integer]]
"""A map of instances [H, W], 0 background, and the type of instance k + 1 at place k, [n]."""

# Added to a union, as in the authors' code: of pairs with the same IoU the larger comes first.
_SMALL = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageCounts:
    """One image's row of `InstanceCounts`, where each count is explained: float64 without [N]."""

    areas: Floats
    aji: Floats
    aji_plus: Floats
    matched: Floats
    matched_of_type: Floats
    found: Floats
    found_of_type: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class _Side:
    """Instances that have pixels: how many [n], their centroids (y, x) [n, 2], and types [n]."""

    pixels: Indices
    centroids: Floats
    types: Indices


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """Instances that share pixels, in the order of `true`, then `predicted`: numbers from 0 [m]."""

    true: Indices
    predicted: Indices
    common: Indices
    union: Indices


def count(
    truth: Labelled, predicted: Labelled, n_types: int, *, radius_px: float = RADIUS_PX
) -> ImageCounts:
    """Counts what was found of an image's instances.

    Numbers without pixels count as no instance. Without any instance on either side all counts are
    0; without any on one side, all those of the other are false positives or false negatives, and
    their pixels are the union.

    Centroids are paired so that the sum of all distances is least, and pairs farther apart than
    the radius are dropped then, as in the authors' code; this takes 8 bytes for each true and
    predicted instance, multiplied.

    Args:
        truth: true instances and their types.
        predicted: predicted ones, of the same height and width.
        n_types: types are numbers from 0 to `n_types - 1`.
        radius_px: how far apart paired centroids may be; in proportion where a pixel is not 0.25
            micrometres.

    Raises:
        ValueError: the maps differ in shape, an instance has no type, or a type is none of those.
    """
    true_map, found_map = _checked(truth, n_types), _checked(predicted, n_types)
    if true_map.shape != found_map.shape:
        raise ValueError(f"maps of {true_map.shape} and {found_map.shape} pixels")
    sums_true, sums_predicted, runs = _tabulate(
        true_map, found_map, len(truth[1]), len(predicted[1])
    )
    true, true_of = _side(sums_true, truth[1])
    found, found_of = _side(sums_predicted, predicted[1])
    pairs = _pairs(runs, true, true_of, found, found_of)
    areas = [true.pixels.sum(), found.pixels.sum(), pairs.common.sum()]
    return ImageCounts(
        areas=np.array(areas, dtype=np.float64),
        aji=_aggregate(pairs, true, found, _best_for_each(pairs)),
        aji_plus=_aggregate(pairs, true, found, _one_to_one(pairs, len(true.pixels))),
        **_matches(pairs, true, found, n_types),
        **_found(true, found, n_types, radius_px),
    )


def stack(
    types: Sequence[str], samples: Names, groups: Names, rows: Sequence[ImageCounts]
) -> InstanceCounts:
    """Puts the counts of images together.

    Args:
        types: names of the types.
        samples: names of the images.
        groups: patient or slide of each.
        rows: counts of each; at least one.

    Raises:
        ValueError: these are not as many, or there are none.
    """
    counts = {name: np.stack([getattr(row, name) for row in rows]) for name in SHARED | OF_TYPES}
    return InstanceCounts(
        types=tuple(types),
        sample=np.array(samples, dtype=np.str_),
        group=np.array(groups, dtype=np.str_),
        **counts,
    )


def _checked(side: Labelled, n_types: int) -> NDArray[np.int32]:
    """Gives the map as int32, in order, if it is one and its types are known."""
    instances, types = side
    if instances.ndim != 2 or instances.dtype.kind not in "biu":
        raise ValueError(f"a map of instances is not {instances.dtype} {instances.shape}")
    if instances.size and (instances.min() < 0 or instances.max() > len(types)):
        raise ValueError(
            f"instances {instances.min()} to {instances.max()} come with {len(types)} types"
        )
    if len(types) and not (types.min() >= 0 and types.max() < n_types):
        raise ValueError(f"types {types.min()} to {types.max()} are not all below {n_types}")
    return np.ascontiguousarray(instances, dtype=np.int32)


def _side(sums: Indices, types: NDArray[np.integer]) -> tuple[_Side, Indices]:
    """Keeps instances that have pixels; gives them, and the place there of each number from 1."""
    is_there = sums[1:, 0] > 0
    pixels, sum_y, sum_x = sums[1:][is_there].T
    centroids = np.stack([sum_y, sum_x], axis=1) / pixels[:, None]
    side = _Side(pixels=pixels, centroids=centroids, types=types[is_there].astype(np.int64))
    return side, np.cumsum(is_there) - 1


def _pairs(
    runs: NDArray[np.int32], true: _Side, true_of: Indices, found: _Side, found_of: Indices
) -> _Pairs:
    """Sums the runs of pixels that a true and a predicted instance share."""
    rows, columns, lengths = true_of[runs[:, 0] - 1], found_of[runs[:, 1] - 1], runs[:, 2]
    shape = (len(true.pixels), len(found.pixels))
    if not len(runs):
        rows = columns = lengths = np.empty(0, np.int64)
    summed = coo_array((lengths.astype(np.int64), (rows, columns)), shape=shape).tocsr().tocoo()
    row, column = (np.asarray(each, dtype=np.int64) for each in summed.coords)
    common = np.asarray(summed.data, dtype=np.int64)
    union: Indices = true.pixels[row] + found.pixels[column] - common
    return _Pairs(true=row, predicted=column, common=common, union=union)


def _best_for_each(pairs: _Pairs) -> Indices:
    """Gives the pair of greatest IoU of each true instance; of equals the first."""
    order = np.lexsort((-pairs.common / (pairs.union + _SMALL), pairs.true))
    _, first = np.unique(pairs.true[order], return_index=True)
    return order[first]


def _one_to_one(pairs: _Pairs, n_true: int) -> Indices:
    """Gives the pairs that together have the greatest IoU where no instance is in two."""
    if not len(pairs.true):
        return np.empty(0, np.int64)
    # Each true instance may also be paired with nothing, which is a column of its own: so all of
    # them are paired with something, and only pairs that share pixels need be looked at.
    n_predicted = int(pairs.predicted.max()) + 1
    alone = np.arange(n_true)
    rows = np.concatenate([pairs.true, alone])
    columns = np.concatenate([pairs.predicted, n_predicted + alone])
    cost = np.concatenate([2 - pairs.common / (pairs.union + _SMALL), np.full(n_true, 2.0)])
    graph = csr_array((cost, (rows, columns)), shape=(n_true, n_predicted + n_true))
    chosen, partner = min_weight_full_bipartite_matching(graph)
    partner_of = np.empty(n_true, np.int64)
    partner_of[chosen] = partner
    return np.flatnonzero(partner_of[pairs.true] == pairs.predicted)


def _aggregate(pairs: _Pairs, true: _Side, found: _Side, chosen: Indices) -> Floats:
    """Sums what the chosen pairs share and their unions, to which all that is unpaired belongs."""
    union = pairs.union[chosen].sum()
    for side, paired in ((true, pairs.true[chosen]), (found, pairs.predicted[chosen])):
        is_alone = np.ones(len(side.pixels), dtype=np.bool_)
        is_alone[paired] = False
        union += side.pixels[is_alone].sum()
    return np.array([pairs.common[chosen].sum(), union], dtype=np.float64)


def _matches(pairs: _Pairs, true: _Side, found: _Side, n_types: int) -> dict[str, Floats]:
    """Counts pairs with an IoU above 0.5, which no instance can have two of."""
    is_match = 2 * pairs.common > pairs.union
    iou = pairs.common[is_match] / pairs.union[is_match]
    of_true = true.types[pairs.true[is_match]]
    agree = of_true == found.types[pairs.predicted[is_match]]
    tp = len(iou)
    matched = [tp, len(found.pixels) - tp, len(true.pixels) - tp, iou.sum()]
    tp_of = _count(of_true[agree], n_types)
    iou_of = np.bincount(of_true[agree], iou[agree], n_types).astype(np.float64)
    fp_of, fn_of = _count(found.types, n_types) - tp_of, _count(true.types, n_types) - tp_of
    return {
        "matched": np.array(matched, dtype=np.float64),
        "matched_of_type": np.stack([tp_of, fp_of, fn_of, iou_of], axis=1),
    }


def _found(true: _Side, found: _Side, n_types: int, radius_px: float) -> dict[str, Floats]:
    """Counts pairs of centroids that are near each other."""
    # scipy copies a matrix with more rows than columns, against the order of its memory.
    few, many = sorted((true, found), key=lambda side: len(side.pixels))
    distances = cdist(few.centroids, many.centroids)
    pairs = np.stack(linear_sum_assignment(distances))
    pairs = pairs[:, distances[tuple(pairs)] <= radius_px]
    rows, columns = pairs if few is true else pairs[::-1]
    of_true, of_found = true.types[rows], found.types[columns]
    agree = of_true == of_found
    of_types = [
        _count(of_true[agree], n_types),
        _count(of_found[~agree], n_types),
        _count(of_true[~agree], n_types),
        _count(np.delete(found.types, columns), n_types),
        _count(np.delete(true.types, rows), n_types),
    ]
    n_pairs = len(rows)
    shared = [n_pairs, len(found.types) - n_pairs, len(true.types) - n_pairs]
    return {
        "found": np.array(shared, dtype=np.float64),
        "found_of_type": np.stack(of_types, axis=1),
    }


def _count(types: Indices, n_types: int) -> Floats:
    return np.bincount(types, minlength=n_types).astype(np.float64)


@compiled
def _tabulate(
    truth: NDArray[np.int32], predicted: NDArray[np.int32], n_true: int, n_predicted: int
) -> tuple[Indices, Indices, NDArray[np.int32]]:
    """Sums over runs of pixels in a row that belong to the same true and predicted instance.

    Returns:
        Pixels and sums of y and x of each number, 0 too, [n + 1, 3], of truth and prediction; and
        of each run within both: true and predicted number and length, [runs, 3].
    """
    height, width = truth.shape
    of_true = np.zeros((n_true + 1, 3), np.int64)
    of_predicted = np.zeros((n_predicted + 1, 3), np.int64)
    runs = np.empty((height * width, 3), np.int32)
    count = 0
    for y in range(height):
        x = 0
        while x < width:
            t, p = truth[y, x], predicted[y, x]
            start = x
            while x < width and truth[y, x] == t and predicted[y, x] == p:
                x += 1
            length = x - start
            sum_x = length * (start + x - 1) // 2
            if t != 0:
                of_true[t, 0] += length
                of_true[t, 1] += length * y
                of_true[t, 2] += sum_x
            if p != 0:
                of_predicted[p, 0] += length
                of_predicted[p, 1] += length * y
                of_predicted[p, 2] += sum_x
            if t != 0 and p != 0:
                runs[count, 0], runs[count, 1], runs[count, 2] = t, p, length
                count += 1
    return of_true, of_predicted, runs[:count]
