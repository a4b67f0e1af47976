"""The smallest difference between two encoders that a test set can show."""

from dataclasses import dataclass
from math import sqrt

from scipy.special import ndtri, stdtrit

from eosin.results.permutation import smallest_p_value

POWER = 0.8
"""How likely a difference of the smallest size is shown."""
_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """What a test set can resolve, in units of the metric, by one test at 5 % with power 80 %.

    After Holm's correction over many encoders it takes more.
    """

    before: float | None
    """What the number of samples alone lets expect, see `planned_difference`; None for macro F1 and
    AUROC, of which it says nothing."""
    observed: float | None
    """From how the compared encoders differ from group to group; infinite where there are too few
    groups, and None where no two encoders differ."""


def smallest_difference(standard_error: float, n_groups: int) -> float:
    """Gives the difference that a paired test shows with 80 % power at the level of 5 %.

    Args:
        standard_error: of the difference between two encoders, resampling groups.
        n_groups: how many groups there were. With five no test can reach that level, however large
            the difference: it is infinite.
    """
    if smallest_p_value(n_groups) >= _LEVEL:
        return float("inf")
    t = stdtrit(n_groups - 1, 1 - _LEVEL / 2) + stdtrit(n_groups - 1, POWER)
    return float(t) * standard_error


def planned_difference(n_samples: int, n_groups: int, accuracy: float = 0.9) -> tuple[float, float]:
    """Gives, before any result, the difference in accuracy that a test set can show.

    Both encoders have about the given accuracy and err independently of each other; encoders that
    err on the same samples are told apart more easily.

    Returns:
        If samples of a group are as different as any, and if a group is as good as one sample.
    """
    deviation = sqrt(2 * accuracy * (1 - accuracy))
    z = float(ndtri(1 - _LEVEL / 2) + ndtri(POWER))
    of_samples, of_groups = (z * deviation / sqrt(count) for count in (n_samples, n_groups))
    return min(1.0, of_samples), min(1.0, of_groups)
