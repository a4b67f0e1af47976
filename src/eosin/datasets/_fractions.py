"""Parts of the labels, for label efficiency: nested, stratified, whole groups at a time."""

import hashlib

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Groups = NDArray[np.str_]


def labelled_part(labels: Labels, groups: Groups, fraction: float, draw: int) -> NDArray[np.int64]:
    """Chooses the images whose labels are used.

    The groups are put in an order that depends on their names and the draw alone. Of the groups
    that hold most images of a class, the first are taken until they reach the fraction; so the part
    of a smaller fraction lies within that of a larger one, and no group is cut. Every class is in
    every part, by at least one group.

    Args:
        labels: class of each image [N].
        groups: group of each image [N].
        fraction: above 0 and at most 1; 1 takes all.
        draw: another draw takes others.

    Returns:
        Indices of the chosen images, rising.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a fraction of the labels is above 0 and at most 1, not {fraction}")
    if fraction == 1:
        return np.arange(len(labels))
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(counts, (group_of, labels), 1)
    order = np.argsort([_rank(name, draw) for name in names.tolist()], kind="stable")
    position = _positions(counts, order)
    return np.flatnonzero(position[group_of] < fraction)


def _positions(counts: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """The fraction above which each group is taken: where its middle lies among its stratum."""
    stratum = counts.argmax(1)
    position = np.zeros(len(counts))
    for of_class in range(counts.shape[1]):
        members = order[stratum[order] == of_class]
        sizes = counts[members, of_class]
        if len(members):
            position[members] = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    for of_class in range(counts.shape[1]):
        with_class = order[counts[order, of_class] > 0]
        position[with_class[:1]] = 0
    return position


def _rank(name: str, draw: int) -> bytes:
    return hashlib.sha256(f"label draw {draw}\n{name}".encode()).digest()
