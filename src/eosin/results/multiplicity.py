"""Many tests at once: Holm's correction, and ties as letters."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for having tested all of them (Holm, 1979).

    Those below a level are then all true with that certainty, whatever the tests depend on.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = largest
    return adjusted


def letters(differs: npt.NDArray[np.bool_]) -> list[str]:
    """Gives letters so that two encoders share one exactly if they were not told apart.

    Args:
        differs: whether two were told apart, symmetric `[encoders, encoders]`, best first.

    Returns:
        The letters of each, such as `ab`; `a` for the best. After the 26th come `aa`, `ab`, each
        set apart by commas.
    """
    alike = _without_needless(_sets_of_alike(differs), len(differs))
    alike.sort(key=sorted)
    names = [_name(number) for number in range(len(alike))]
    between = "," if len(alike) > 26 else ""
    return [
        between.join(name for name, members in zip(names, alike, strict=True) if each in members)
        for each in range(len(differs))
    ]


def _sets_of_alike(differs: npt.NDArray[np.bool_]) -> list[frozenset[int]]:
    """Finds the largest sets without a difference: by inserting differences (Piepho, 2004)."""
    sets = [frozenset(range(len(differs)))]
    for first, second in np.argwhere(np.triu(differs, 1)).tolist():
        split: list[frozenset[int]] = []
        for members in sets:
            both = first in members and second in members
            split += [members - {first}, members - {second}] if both else [members]
        whole = list(dict.fromkeys(split))
        sets = [each for each in whole if not any(each < other for other in whole)]
    return sets


def _without_needless(sets: list[frozenset[int]], count: int) -> list[frozenset[int]]:
    """Drops sets, small ones first, whose pairs all lie in others."""
    kept = sorted(sets, key=lambda each: (-len(each), sorted(each)))
    for members in reversed(list(kept)):
        others = [each for each in kept if each != members]
        pairs = [{a, b} for a in members for b in members]
        if others and all(any(pair <= other for other in others) for pair in pairs):
            kept = others
    assert all(any(each in members for members in kept) for each in range(count))
    return kept


def _name(number: int) -> str:
    """Counts `a` to `z`, `aa`, `ab` and so on."""
    name = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        name = chr(ord("a") + letter) + name
    return name
