from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from eosin.results.permutation import paired_p_values, smallest_p_value
from eosin.results.schema import Predictions
from eosin.results.statistics import resample


def against_zero(difference, **options):
    contributions = np.stack([difference, np.zeros(len(difference))])
    return paired_p_values(contributions, [(0, 1)], **options)[0]


@settings(deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_few_groups_are_exchanged_in_every_way(values):
    difference = np.array(values) / 7
    sums = [abs(np.dot(signs, values)) for signs in product((1, -1), repeat=len(values))]
    assert against_zero(difference) == pytest.approx(np.mean(np.array(sums) >= abs(sum(values))))


@pytest.mark.parametrize(("wins", "losses"), [(9, 1), (7, 4), (5, 0), (0, 6), (6, 6), (1, 0)])
def test_samples_alone_give_the_exact_mcnemar_test(wins, losses):
    difference = np.concatenate([np.full(wins, 0.01), np.full(losses, -0.01), np.zeros(50)])
    assert against_zero(difference) == pytest.approx(binomtest(wins, wins + losses).pvalue)


@pytest.mark.parametrize(("wins", "losses"), [(40, 20), (33, 30), (100, 60)])
def test_drawn_exchanges_come_close_to_the_exact_test(wins, losses):
    difference = np.concatenate([np.full(wins, 0.01), np.full(losses, -0.01), np.zeros(50)])
    exact = binomtest(wins, wins + losses).pvalue
    assert against_zero(difference) == pytest.approx(exact, abs=4 * np.sqrt(exact / 10_000))


def test_drawn_exchanges_agree_with_scipy():
    difference = np.random.default_rng(0).normal(0.25, 1, size=40)
    expected = permutation_test(
        (difference, np.zeros(40)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert against_zero(difference) == pytest.approx(expected, abs=0.012)


def test_a_drawn_p_value_is_never_zero_and_finer_for_more_pairs():
    contributions = np.stack([np.full(200, value) for value in np.arange(30.0)])
    pairs = [(i, j) for i in range(30) for j in range(i)]
    assert set(paired_p_values(contributions, pairs)) == {1 / (60 * len(pairs))}
    assert against_zero(np.ones(200)) == 1e-4


def test_equal_encoders_are_not_told_apart():
    assert against_zero(np.zeros(30)) == 1.0
    assert against_zero(np.array([0.3])) == 1.0


def test_the_smallest_p_value_is_that_of_one_sided_groups():
    for groups in (1, 2, 5, 10):
        assert against_zero(np.ones(groups)) == smallest_p_value(groups)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy", "macro_f1", "auroc"])
def test_equal_encoders_on_clustered_samples_are_called_different_as_often_as_promised(metric):
    generator = np.random.default_rng(7)
    called = 0
    for _ in range(150):
        first, second = alike(generator)
        sampled = resample([[first], [second]], metric, draws=1)
        called += paired_p_values(sampled.contributions, [(0, 1)])[0] < 0.05
    # Of 150, 15 or fewer in 99.6 % of cases.
    assert called <= 15


def alike(generator, groups=10):
    """Two encoders of the same law: of a group's samples they are good or bad at all."""
    group = np.repeat(np.arange(groups), generator.integers(4, 20, size=groups))
    label = generator.integers(2, size=len(group))
    label[:2] = 0, 1
    hard = generator.normal(size=groups)[group]
    for_both = []
    for _ in range(2):
        scores = generator.normal(size=(len(group), 2)) + generator.normal(size=(groups, 2))[group]
        scores[np.arange(len(group)), label] += 1.2 + hard
        for_both.append(
            Predictions(
                sample=np.array([f"s{i:04d}" for i in range(len(group))]),
                group=group.astype(np.str_),
                label=label,
                predicted=scores.argmax(1),
                scores=scores.astype(np.float32),
            )
        )
    return for_both
