import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from eosin.results.measures import make_scorers
from eosin.results.schema import Predictions
from eosin.results.scorers import Areas
from eosin.results.statistics import CLASS_METRICS


def predictions(samples, groups, seed, *, levels=None, classes=3):
    generator = np.random.default_rng(seed)
    label = generator.integers(classes, size=samples)
    label[:classes] = range(classes)
    scores = generator.normal(size=(samples, classes)) + np.eye(classes)[label]
    if levels:
        scores = np.round(scores * levels) / levels
    return Predictions(
        sample=np.array([f"s{i:04d}" for i in range(samples)]),
        group=np.array([f"g{i}" for i in generator.integers(groups, size=samples)]),
        label=label,
        predicted=scores.argmax(1),
        scores=scores.astype(np.float32),
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(6, 80),
    st.integers(1, 12),
    st.integers(0, 10**6),
    st.sampled_from([None, 1, 3]),
    st.integers(2, 4),
)
def test_the_area_of_weighted_samples_is_that_of_scikit_learn(samples, groups, seed, levels, n):
    made = predictions(samples, groups, seed, levels=levels, classes=n)
    names, number = np.unique(made.group, return_inverse=True)
    weights = np.random.default_rng(seed).integers(1, 4, size=(len(names), 3)).astype(float)
    scored = Areas(made).score(weights)
    for draw in range(3):
        each = weights[number, draw]
        expected = np.mean(
            [
                roc_auc_score(made.label == c, made.scores[:, c], sample_weight=each)
                for c in ([1] if n == 2 else range(n))
            ]
        )
        assert scored[draw] == pytest.approx(expected)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(8, 80), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from(CLASS_METRICS)
)
def test_contributions_sum_to_the_metric(samples, groups, seed, metric):
    (scorer,) = make_scorers([predictions(samples, groups, seed)], metric)
    found = scorer.contributions()
    value = scorer.score(np.ones((len(found), 1)))[0]
    assert found.sum() == pytest.approx(value)


@pytest.mark.parametrize("metric", ["macro_f1", "auroc"])
def test_contributions_of_many_groups_are_the_derivative(metric):
    made = predictions(600, 10**9, 3)
    (scorer,) = make_scorers([made], metric)
    value = scorer.score(np.ones((600, 1)))[0]
    step = 1e-5
    changed = scorer.score(np.ones((600, 600)) + step * np.eye(600))
    # Without groups, a sample has a 600th of the value besides what its weight changes.
    expected = (changed - value) / step + value / 600
    np.testing.assert_allclose(scorer.contributions(), expected, atol=1e-6)


@pytest.mark.parametrize("metric", ["accuracy", "balanced_accuracy"])
def test_contributions_are_what_exchanging_a_group_moves(metric):
    first, second = predictions(90, 9, 1), predictions(90, 9, 2)
    second = Predictions(
        sample=first.sample,
        group=first.group,
        label=first.label,
        predicted=second.predicted,
        scores=second.scores,
    )
    ours, theirs = (make_scorers([run], metric)[0] for run in (first, second))
    names, number = np.unique(first.group, return_inverse=True)
    ones = np.ones((len(names), 1))
    for group in range(len(names)):
        mixed = Predictions(
            sample=first.sample,
            group=first.group,
            label=first.label,
            predicted=np.where(number == group, second.predicted, first.predicted),
            scores=first.scores,
        )
        moved = ours.score(ones) - make_scorers([mixed], metric)[0].score(ones)
        difference = ours.contributions() - theirs.contributions()
        assert moved[0] == pytest.approx(difference[group])
