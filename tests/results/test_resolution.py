from math import inf, sqrt
from statistics import NormalDist

import numpy as np
import pytest

from eosin.results.permutation import paired_p_values
from eosin.results.resolution import planned_difference, smallest_difference


def test_figures_worked_by_hand():
    z = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)
    samples, groups = planned_difference(1000, 100, accuracy=0.9)
    assert samples == pytest.approx(z * sqrt(2 * 0.9 * 0.1 / 1000))
    assert groups == pytest.approx(z * sqrt(2 * 0.9 * 0.1 / 100))
    assert smallest_difference(0.01, 10**6) == pytest.approx(z * 0.01, rel=1e-4)
    assert smallest_difference(0.01, 1) == smallest_difference(0.01, 5) == inf
    assert planned_difference(2, 1) == (pytest.approx(z * 0.3), 1.0)


def test_few_groups_resolve_less():
    assert smallest_difference(0.01, 6) > smallest_difference(0.01, 20) > 0.028


@pytest.mark.parametrize("groups", [15, 60])
def test_a_difference_of_the_smallest_size_is_shown_in_four_of_five_cases(groups):
    generator = np.random.default_rng(1)
    size = smallest_difference(1 / sqrt(groups), groups)
    shown = 0
    for _ in range(200):
        drawn = generator.normal(size, 1, size=groups)
        contributions = np.stack([drawn, np.zeros(groups)])
        shown += paired_p_values(contributions, [(0, 1)])[0] < 0.05
    assert 0.72 <= shown / 200 <= 0.88


def test_the_plan_holds_for_encoders_that_err_independently():
    generator = np.random.default_rng(2)
    samples = 400
    (size, _) = planned_difference(samples, samples, accuracy=0.8)
    shown = 0
    for _ in range(200):
        right = generator.random((2, samples)) < np.array([[0.8 + size / 2], [0.8 - size / 2]])
        shown += paired_p_values(right / samples, [(0, 1)])[0] < 0.05
    assert 0.70 <= shown / 200 <= 0.88
