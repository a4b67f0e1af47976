"""Whether the difference between two encoders on the same samples can be of chance.

The test is a paired permutation test of whole groups: if two encoders are alike, then in each group
(patient, slide, source image) they could as well be exchanged, which turns the sign of what the
group adds to their difference. The p-value is the share of all ways to exchange that give as large
a difference, up or down. For accuracy over samples that are groups of their own it is the exact
McNemar test.

It is exact up to 2^12 ways; beyond, ways are drawn, and the p-value is (b + 1) / (m + 1) (Phipson
and Smyth, 2010), which is never zero.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from eosin.results.scorers import Floats

_EXACT_GROUPS = 12
_LEAST_DRAWS = 10_000
_DRAWS_A_PAIR = 60
"""So many draws for each pair of a family leave Holm's correction room below 0.05."""
_SIGNS_AT_ONCE = 2**22


def paired_p_values(
    contributions: Floats, pairs: Sequence[tuple[int, int]], *, seed: int = 0
) -> list[float]:
    """Tests differences between encoders, two-sided.

    Args:
        contributions: what each group adds to each encoder's value, `[encoders, groups]`.
        pairs: which encoders to compare.
        seed: of the ways to exchange, which all pairs share.

    Returns:
        A p-value for each pair.
    """
    p_values = [1.0] * len(pairs)
    left: list[int] = []
    for number, (first, second) in enumerate(pairs):
        difference = contributions[first] - contributions[second]
        moving = difference[abs(difference) > _tolerance(difference)]
        if len(moving) <= _EXACT_GROUPS:
            p_values[number] = _exact(moving)
        else:
            left.append(number)
    if left:
        drawn = _drawn(contributions, [pairs[number] for number in left], len(pairs), seed)
        for number, p_value in zip(left, drawn.tolist(), strict=True):
            p_values[number] = p_value
    return p_values


def smallest_p_value(n_groups: int) -> float:
    """Gives the smallest p-value that a test over so many groups can have."""
    return min(1.0, 2.0 ** (1 - n_groups))


def _exact(difference: Floats) -> float:
    """Goes through all signs; the first stays, as turning all of them changes nothing."""
    if len(difference) == 0:
        return 1.0
    sums = difference[:1]
    for value in difference[1:]:
        sums = np.concatenate([sums + value, sums - value])
    observed = abs(difference.sum()) - _tolerance(difference)
    return float(np.mean(abs(sums) >= observed))


def _drawn(
    contributions: Floats, pairs: Sequence[tuple[int, int]], family: int, seed: int
) -> Floats:
    # Groups that say the same of all encoders cancel in every difference.
    moving = np.ptp(contributions, axis=0) > 0
    values = contributions[:, moving]
    first, second = np.array(pairs).T
    tolerance = np.array([_tolerance(values[a] - values[b]) for a, b in pairs])
    observed = abs((values[first] - values[second]).sum(1)) - tolerance
    draws = max(_LEAST_DRAWS, _DRAWS_A_PAIR * family) - 1
    beyond = np.zeros(len(pairs), dtype=np.int64)
    for signs in _signs(values.shape[1], draws, seed):
        sums = signs @ values.T
        beyond += (abs(sums[:, first] - sums[:, second]) >= observed).sum(0)
    return (beyond + 1) / (draws + 1)


def _signs(n_groups: int, draws: int, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    at_once = max(1, _SIGNS_AT_ONCE // n_groups)
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        octets = np.frombuffer(generator.bytes(rows * -(-n_groups // 8)), dtype=np.uint8)
        bits = np.unpackbits(octets.reshape(rows, -1), axis=1, count=n_groups)
        yield bits.astype(np.float64) * 2 - 1


def _tolerance(difference: Floats) -> float:
    """Sums that rounding alone tells apart count as equal."""
    return 1e-9 * float(abs(difference).sum())
