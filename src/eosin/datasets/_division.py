"""Divisions of labelled images that keep classes in proportion and never separate a group."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Groups = NDArray[np.str_]


def divide(labels: Labels, groups: Groups, shares: Sequence[float], seed: int) -> NDArray[np.int64]:
    """Divides images into parts, whole groups at a time, each part with its share of every class.

    Groups are taken in an order that only depends on their names and the seed, and each goes to
    the part that lacks most of its classes. A class with at least as many groups as there are
    parts is present in every part wherever a single move of a group can bring that about.

    Args:
        labels: class of each image [N].
        groups: group of each image [N].
        shares: wanted share of each part; they sum to 1.
        seed: another seed gives another division.

    Returns:
        The part of each image [N].
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max()) + 1))
    np.add.at(counts, (group_of, labels), 1)
    order = np.argsort([_rank(name, seed) for name in names.tolist()], kind="stable")
    totals = counts.sum(0).clip(min=1)
    # Least squares: sum over parts and classes of ((count - wanted) / total)^2 falls most where
    # (count - wanted) . group / total^2 is smallest.
    lacking = -np.outer(shares, totals)
    part_of = np.zeros(len(names), dtype=np.int64)
    for group in order:
        part_of[group] = np.argmin(lacking @ (counts[group] / totals**2))
        lacking[part_of[group]] += counts[group]
    _represent_every_class(part_of, counts, order, len(shares))
    return part_of[group_of]


def hold_out(labels: Labels, groups: Groups, share: float, seed: int) -> NDArray[np.bool_]:
    """Marks the images [N] of a held-out part with about this share of every class."""
    return divide(labels, groups, (1 - share, share), seed) == 1


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{name}".encode()).hexdigest()


def _represent_every_class(
    part_of: NDArray[np.int64], counts: NDArray[np.float64], order: NDArray[np.int64], n_parts: int
) -> None:
    """Moves small groups, in place, into parts that lack one of their classes altogether."""
    has_class = counts > 0
    for of_class in range(counts.shape[1]):
        for part in range(n_parts):
            if (has_class[:, of_class] & (part_of == part)).any():
                continue
            movable = [group for group in order if has_class[group, of_class]]
            for group in sorted(movable, key=lambda group: counts[group].sum()):
                own_part = has_class[part_of == part_of[group]][:, has_class[group]]
                if (own_part.sum(0) > 1).all():
                    part_of[group] = part
                    break
