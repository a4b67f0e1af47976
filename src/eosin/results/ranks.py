"""Ranks of encoders over data sets: how sure they are, and which can be told apart."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from eosin.results.scorers import Floats

LEVEL = 0.95


def mean_ranks(values: Sequence[Floats]) -> Floats:
    """Averages the ranks over data sets, `[encoders]`; 1 is the best, ties share their mean.

    Args:
        values: for each data set the value of each encoder, larger being better.
    """
    return _ranks(np.stack(values)[:, :, None]).mean(0)[:, 0]


def rank_intervals(draws: Sequence[Floats], *, seed: int = 0) -> tuple[Floats, Floats]:
    """Gives 95 % intervals of the mean ranks over test groups, data sets being fixed.

    Args:
        draws: for each data set the value of each encoder on common draws of its test groups,
            `[encoders, draws]`.
        seed: of how draws of one data set meet those of another.

    Returns:
        The lower and the upper ends, `[encoders]`.
    """
    generator = np.random.default_rng(seed)
    met = np.stack([each[:, generator.permutation(each.shape[1])] for each in draws])
    met = met[:, :, np.isfinite(met).all((0, 1))]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(_ranks(met).mean(0), [tail, 1 - tail], axis=1)
    return low, high


def friedman(values: Sequence[Floats]) -> float | None:
    """Gives the p-value of Friedman's test that all encoders rank alike; None for fewer than 3.

    Its distribution is an approximation that is rough for fewer than ten data sets (Demsar, 2006).
    """
    table = np.stack(values)
    if table.shape[1] < 3:
        return None
    if (np.ptp(table, axis=1) == 0).all():
        return 1.0
    return float(friedmanchisquare(*table.T).pvalue)


def critical_difference(n_encoders: int, n_datasets: int) -> float:
    """Gives Nemenyi's critical difference of mean ranks at 5 % (Demsar, 2006)."""
    q = studentized_range.ppf(LEVEL, n_encoders, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(n_encoders * (n_encoders + 1) / (6 * n_datasets)))


def bars(ranks: Sequence[float], critical: float) -> list[tuple[float, float]]:
    """Gives the longest stretches of two mean ranks or more that are less than `critical` long."""
    ordered = sorted(ranks)
    found: list[tuple[float, float]] = []
    furthest = -1
    for start, low in enumerate(ordered):
        end = max(place for place, rank in enumerate(ordered) if rank - low < critical)
        if end > max(start, furthest):
            found.append((low, ordered[end]))
        furthest = max(furthest, end)
    return found


def _ranks(values: Floats) -> Floats:
    """Ranks the encoders `[data sets, encoders, draws]`, best first."""
    return rankdata(-values, method="average", axis=1)
