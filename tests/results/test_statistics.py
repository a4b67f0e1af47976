import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from eosin.errors import InputError
from eosin.results.schema import Predictions
from eosin.results.statistics import CLASS_METRICS, compare, measure, measure_mean


def predicted(label, said, *, classes=None, group=None, scores=None):
    label, said = np.asarray(label), np.asarray(said)
    names = np.array([f"s{index:05d}" for index in range(len(label))])
    classes = classes or int(max(label.max(), said.max())) + 1
    return Predictions(
        sample=names,
        group=names if group is None else np.asarray(group).astype(np.str_),
        label=label,
        predicted=said,
        scores=np.eye(classes, dtype=np.float32)[said] if scores is None else scores,
    )


@st.composite
def any_predictions(draw):
    classes, samples = draw(st.integers(2, 5)), draw(st.integers(4, 60))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    label = generator.integers(classes, size=samples)
    label[:2] = [0, 1]
    # Few distinct scores, so that ties are common.
    scores = generator.integers(0, 4, size=(samples, classes)).astype(np.float32)
    group = generator.integers(draw(st.integers(2, 12)), size=samples)
    return predicted(label, scores.argmax(1), classes=classes, group=group, scores=scores)


def sklearn_values(predictions):
    label, said, scores = predictions.label, predictions.predicted, predictions.scores
    classes = [1] if scores.shape[1] == 2 else np.unique(label)
    present = np.unique(label)
    return {
        "accuracy": sklearn_metrics.accuracy_score(label, said),
        "balanced_accuracy": sklearn_metrics.recall_score(
            label, said, labels=present, average="macro"
        ),
        "macro_f1": sklearn_metrics.f1_score(label, said, average="macro"),
        "auroc": np.mean(
            [sklearn_metrics.roc_auc_score(label == each, scores[:, each]) for each in classes]
        ),
    }


@settings(deadline=None)
@given(any_predictions())
def test_every_metric_is_that_of_scikit_learn(predictions):
    measured = measure(predictions, draws=10)
    assert {name: measured[name].value for name in CLASS_METRICS} == pytest.approx(
        sklearn_values(predictions)
    )


@settings(deadline=None)
@given(any_predictions(), st.integers(0, 1000))
def test_the_order_of_samples_does_not_matter(predictions, seed):
    order = np.random.default_rng(seed).permutation(len(predictions.label))
    shuffled = Predictions(
        sample=predictions.sample[order],
        group=predictions.group[order],
        label=predictions.label[order],
        predicted=predictions.predicted[order],
        scores=predictions.scores[order],
    )
    assert measure(shuffled, draws=20) == measure(predictions, draws=20)


@settings(max_examples=30, deadline=None)
@given(any_predictions(), st.sampled_from(CLASS_METRICS), st.integers(0, 1000))
def test_a_difference_turned_round_changes_its_sign_alone(predictions, metric, seed):
    scores = np.random.default_rng(seed).random(predictions.scores.shape).astype(np.float32)
    other = predicted(
        predictions.label,
        scores.argmax(1),
        classes=scores.shape[1],
        group=predictions.group,
        scores=scores,
    )
    there = compare([predictions], [other], metric, draws=60)
    back = compare([other], [predictions], metric, draws=60)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low)
    )
    assert -1 <= there.low <= there.high <= 1
    assert there.is_real == back.is_real


def test_a_case_worked_by_hand():
    # Group p is right twice and q wrong twice: the draws pp, pq, qp, qq score 1, 1/2, 1/2, 0.
    two = predicted([0, 1, 0, 1], [0, 1, 1, 0], group=["p", "p", "q", "q"])
    accuracy = measure(two, draws=400)["accuracy"]
    assert (accuracy.value, accuracy.low, accuracy.high) == (0.5, 0.0, 1.0)

    # One in four is wrong in each of 40 groups: no draw of groups changes that.
    same = predicted([0, 0, 1, 1] * 40, [0, 0, 1, 0] * 40, group=np.repeat(np.arange(40), 4))
    accuracy = measure(same, draws=400)["accuracy"]
    assert (accuracy.value, accuracy.low, accuracy.high) == (0.75, 0.75, 0.75)

    # Scores 1 and 3 of the negatives, 2 and 3 of the positives: 2 beats 1; 3 beats 1, ties 3.
    scores = np.array([[0, 1], [0, 3], [0, 2], [0, 3]], np.float32)
    ranked = predicted([0, 0, 1, 1], [1, 1, 1, 1], scores=scores)
    assert measure(ranked, draws=10)["auroc"].value == 2.5 / 4


def test_a_paired_difference_does_not_suffer_from_hard_and_easy_groups():
    # Accuracy swings between groups by far more than the two encoders differ, which is by one
    # sample of ten in each group.
    right = np.random.default_rng(0).integers(2, 10, size=30)

    def said(extra):
        return np.concatenate([np.arange(10) < count + extra for count in right]).astype(int)

    label, group = np.ones(300, int), np.repeat(np.arange(30), 10)
    first, second = (predicted(label, said(extra), classes=2, group=group) for extra in (1, 0))
    alone = measure(first)["accuracy"]
    difference = compare([first], [second], "accuracy")
    assert alone.high - alone.low > 0.1
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    assert difference.verdict == "real"
    assert compare([first], [first], "accuracy").verdict == "not resolved"


def plain_values(label, said, scores):
    """The metrics as their definitions read, class by class and pair by pair."""
    recalls, f1s, areas = [], [], []
    for each in range(scores.shape[1]):
        hits = np.sum((label == each) & (said == each))
        if np.sum(label == each):
            recalls.append(hits / np.sum(label == each))
        if np.sum(label == each) + np.sum(said == each):
            f1s.append(2 * hits / (np.sum(label == each) + np.sum(said == each)))
        pairs = scores[label == each, each][:, None] - scores[label != each, each]
        if pairs.size:
            areas.append(np.mean((pairs > 0) + 0.5 * (pairs == 0)))
    return [np.mean(label == said), np.mean(recalls), np.mean(f1s), np.mean(areas)]


def slow_intervals(predictions, draws):
    """The cluster bootstrap as its definition reads: copies of whole groups, scored anew."""
    generator = np.random.default_rng(1)
    groups = np.unique(predictions.group)
    members = {group: np.flatnonzero(predictions.group == group) for group in groups}
    values = []
    for _ in range(draws):
        drawn = generator.choice(groups, size=len(groups))
        rows = np.concatenate([members[group] for group in drawn])
        copy = [getattr(predictions, name)[rows] for name in ("label", "predicted", "scores")]
        values.append(plain_values(*copy))
    t = stats.t.ppf(0.025, len(groups) - 1)
    tail = stats.norm.cdf(t * np.sqrt(len(groups) / (len(groups) - 1)))
    return dict(zip(CLASS_METRICS, np.quantile(values, [tail, 1 - tail], axis=0).T, strict=True))


def test_intervals_agree_with_a_plain_cluster_bootstrap():
    generator = np.random.default_rng(3)
    label = generator.integers(3, size=240)
    hard = np.repeat(generator.normal(size=24), 10)
    scores = generator.normal(size=(240, 3)) + np.eye(3)[label] * (1.5 + hard)[:, None]
    predictions = predicted(
        label,
        scores.argmax(1),
        group=np.repeat(np.arange(24), 10),
        scores=scores.astype(np.float32),
    )
    fast = measure(predictions, draws=4000)
    for metric, slow in slow_intervals(predictions, draws=3000).items():
        width = fast[metric].high - fast[metric].low
        assert width > 0.05
        np.testing.assert_allclose(
            [fast[metric].low, fast[metric].high], slow, atol=0.06 * width, err_msg=metric
        )


@pytest.mark.parametrize(("groups", "each", "least"), [(6, 20, 0.88), (40, 5, 0.91)])
def test_intervals_hold_about_as_often_as_they_say(groups, each, least):
    generator = np.random.default_rng(5)
    effects = generator.normal(scale=0.7, size=200_000)
    true = (1 / (1 + np.exp(-1 - effects))).mean()
    held = 0
    for _ in range(300):
        right = 1 / (1 + np.exp(-1 - generator.normal(scale=0.7, size=groups)))
        said = (generator.random((groups, each)) < right[:, None]).ravel().astype(int)
        label, group = np.ones(len(said), int), np.repeat(np.arange(groups), each)
        accuracy = measure_mean(
            [predicted(label, said, classes=2, group=group)], "accuracy", draws=400
        )
        held += accuracy.low <= true <= accuracy.high
    assert least <= held / 300 <= 0.99


def test_samples_of_one_group_make_intervals_wider_than_samples_alone():
    generator = np.random.default_rng(0)
    said = np.repeat(generator.random(20) < 0.7, 10).astype(int)
    label = np.ones(200, int)
    alone = measure(predicted(label, said, classes=2))["accuracy"]
    grouped = measure(predicted(label, said, classes=2, group=np.repeat(np.arange(20), 10)))
    assert grouped["accuracy"].high - grouped["accuracy"].low > 2 * (alone.high - alone.low)


def test_one_group_says_nothing_about_others():
    one = predicted([0, 1], [0, 1], group=["p", "p"])
    accuracy = measure(one)["accuracy"]
    assert (accuracy.value, accuracy.low, accuracy.high) == (1.0, 0.0, 1.0)
    assert compare([one], [one], "accuracy").low == -1.0


def test_equal_seeds_give_equal_intervals_and_others_do_not():
    generator = np.random.default_rng(0)
    label = generator.integers(2, size=101)
    scores = generator.random((101, 2)).astype(np.float32)
    predictions = predicted(label, scores.argmax(1), scores=scores)
    assert measure(predictions, seed=1) == measure(predictions, seed=1)
    assert measure(predictions, seed=1) != measure(predictions, seed=2)


def test_auroc_is_left_out_for_a_single_class():
    single = predicted([0, 0, 0], [0, 1, 0])
    assert set(measure(single, draws=5)) & set(CLASS_METRICS) == set(CLASS_METRICS) - {"auroc"}
    with pytest.raises(InputError, match="one class"):
        measure_mean([single], "auroc")


def test_draws_without_a_second_class_do_not_spoil_auroc():
    rare = predicted([0, 0, 0, 1], [0, 0, 0, 1])
    auroc = measure(rare, draws=200)["auroc"]
    assert (auroc.value, auroc.low, auroc.high) == (1.0, 1.0, 1.0)


def test_the_mean_over_runs_is_measured_on_common_draws():
    label = np.ones(40, int)
    first = predicted(label, np.arange(40) % 2, classes=2)
    second = predicted(label, 1 - np.arange(40) % 2, classes=2)
    # Where one run is right the other is wrong, so that their mean never moves.
    mean = measure_mean([first, second], "accuracy")
    assert (mean.value, mean.low, mean.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sample": np.array(["s00000", "s00001", "other"])}, "not of the same samples"),
        ({"sample": np.array(["s00000", "s00001", "s00001"])}, "'s00001' was predicted twice"),
        ({"label": np.array([0, 1, 1])}, "'s00002' has another label"),
        ({"group": np.array(["p", "p", "r"])}, "'s00002' has another group"),
    ],
)
def test_predictions_that_cannot_be_paired_are_refused(change, words):
    fields = {
        "sample": np.array(["s00000", "s00001", "s00002"]),
        "group": np.array(["p", "p", "q"]),
        "label": np.array([0, 1, 0]),
        "predicted": np.array([0, 1, 1]),
        "scores": np.zeros((3, 2), np.float32),
    }
    with pytest.raises(InputError, match=words):
        compare([Predictions(**fields)], [Predictions(**{**fields, **change})], "accuracy")


def test_no_predictions_are_refused():
    empty = Predictions(
        sample=np.array([], np.str_),
        group=np.array([], np.str_),
        label=np.array([], np.int64),
        predicted=np.array([], np.int64),
        scores=np.zeros((0, 2), np.float32),
    )
    with pytest.raises(InputError, match="test split is empty"):
        measure_mean([empty], "accuracy")
