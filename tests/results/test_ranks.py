import numpy as np
import pytest
from scipy.stats import chi2, friedmanchisquare

from eosin.results.ranks import bars, critical_difference, friedman, mean_ranks, rank_intervals

# Demsar (2006), table 6: AUC of four variants of C4.5 on 14 data sets. Of the tie in the last but
# one row the paper's ranks know that it is none, but for rounding.
_DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_the_worked_example_of_demsar_is_reproduced():
    rows = list(_DEMSAR)
    # As printed there: average ranks, and a chi-squared of 9.28 on 3 degrees of freedom.
    np.testing.assert_allclose(mean_ranks(rows), [3.143, 2.0, 2.893, 1.964], atol=5e-4)
    assert friedman(rows) == pytest.approx(friedmanchisquare(*_DEMSAR.T).pvalue)
    # The paper's leaves out the correction for ties, which makes it smaller.
    assert 0.015 < friedman(rows) < chi2.sf(9.28, 3)
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=2e-3)


@pytest.mark.parametrize(
    ("encoders", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)]
)
def test_critical_values_are_those_of_demsars_table(encoders, q):
    expected = q * np.sqrt(encoders * (encoders + 1) / (6 * 5))
    assert critical_difference(encoders, 5) == pytest.approx(expected, rel=1e-3)


def test_two_encoders_have_no_friedman_test_and_equal_ones_no_difference():
    assert friedman([np.array([0.1, 0.2]), np.array([0.3, 0.1])]) is None
    assert friedman([np.full(3, 0.5), np.full(3, 0.5)]) == 1.0


def test_intervals_are_those_of_ranks_drawn_in_every_combination():
    generator = np.random.default_rng(0)
    sets = [generator.normal([[0.9], [0.85], [0.5]], 0.05, size=(3, 2000)) for _ in range(2)]
    low, high = rank_intervals(sets)
    # Every draw of one data set with every draw of the other, on a part of them.
    ranks = [(-each[:, :300]).argsort(0).argsort(0) + 1 for each in sets]
    met = (ranks[0][:, :, None] + ranks[1][:, None, :]).reshape(3, -1) / 2
    expected = np.quantile(met, [0.025, 0.975], axis=1)
    np.testing.assert_allclose([low, high], expected, atol=0.01)
    assert (low[2], high[2]) == (3.0, 3.0)


def test_undefined_draws_are_left_out():
    draws = np.array([[0.9, np.nan, 0.8], [0.1, 0.2, 0.3]])
    low, high = rank_intervals([draws, draws])
    assert low.tolist() == high.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("ranks", "critical", "found"),
    [
        ([1.0, 2.0, 3.0], 1.5, [(1.0, 2.0), (2.0, 3.0)]),
        ([3.0, 1.0, 2.0], 5.0, [(1.0, 3.0)]),
        ([1.0, 2.0, 3.0], 0.5, []),
        ([1.5, 1.5, 4.0], 0.5, [(1.5, 1.5)]),
        ([1.0, 1.2, 2.0, 2.1], 1.0, [(1.0, 1.2), (1.2, 2.1)]),
    ],
)
def test_bars_join_what_is_not_told_apart(ranks, critical, found):
    assert bars(ranks, critical) == found
