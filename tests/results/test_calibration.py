from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from eosin.results.calibration import is_probabilistic
from eosin.results.schema import Predictions
from eosin.results.statistics import CLASS_METRICS, measure


def probabilities(samples=400, classes=2, groups=40, seed=0, sharpness=1.0):
    """Labels that are drawn from the probabilities, which are then made sharper."""
    generator = np.random.default_rng(seed)
    true = generator.dirichlet(np.ones(classes), size=samples)
    label = (generator.random((samples, 1)) < true.cumsum(1)).argmax(1)
    scores = true**sharpness
    scores /= scores.sum(1, keepdims=True)
    return Predictions(
        sample=np.array([f"s{i:05d}" for i in range(samples)]),
        group=np.array([f"g{i % groups}" for i in range(samples)]),
        label=label,
        predicted=scores.argmax(1),
        scores=scores.astype(np.float32),
    )


def plain_error(predictions, bins=15):
    """As its definition reads, bin by bin."""
    confidence = predictions.scores.max(1).astype(float)
    hit = predictions.scores.argmax(1) == predictions.label
    error = 0.0
    for low, high in zip(np.arange(bins) / bins, np.arange(1, bins + 1) / bins, strict=True):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            error += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("classes", [2, 5])
def test_both_are_what_their_definitions_say(classes):
    made = probabilities(classes=classes)
    measured = measure(made, draws=200)
    assert measured["ece"].value == pytest.approx(plain_error(made))
    scores = made.scores / made.scores.sum(1, keepdims=True, dtype=float)
    expected = brier_score_loss(made.label, scores, scale_by_half=True, labels=range(classes))
    assert measured["brier"].value == pytest.approx(expected, abs=1e-7)
    assert measured["brier"].low < expected < measured["brier"].high


def test_two_classes_give_the_usual_brier_score():
    made = probabilities()
    expected = brier_score_loss(made.label, made.scores[:, 1].astype(float))
    assert measure(made, draws=5)["brier"].value == pytest.approx(expected)


def test_certainty_that_is_right_has_no_error():
    label = np.array([0, 1, 1, 0])
    sure = Predictions(
        sample=np.array(list("abcd")),
        group=np.array(list("ppqq")),
        label=label,
        predicted=label,
        scores=np.eye(2, dtype=np.float32)[label],
    )
    measured = measure(sure, draws=20)
    assert (measured["ece"].value, measured["brier"].value) == (0.0, 0.0)
    assert measure(replace(sure, label=1 - label), draws=5)["brier"].value == 1.0


def test_overconfidence_costs():
    calibrated = measure(probabilities(samples=4000), draws=5)
    overconfident = measure(probabilities(samples=4000, sharpness=4.0), draws=5)
    assert calibrated["ece"].value < 0.05 < overconfident["ece"].value
    assert calibrated["brier"].value < overconfident["brier"].value


def test_scores_that_are_no_probabilities_have_no_calibration():
    made = probabilities()
    for scores in (made.scores * 2, made.scores - 1, -made.scores):
        other = replace(made, scores=scores.astype(np.float32))
        assert not is_probabilistic(other)
        assert set(measure(other, draws=5)) == set(CLASS_METRICS)
    assert set(measure(replace(made, is_share=True), draws=5)) == {"accuracy", "balanced_accuracy"}


def test_the_interval_of_the_error_makes_up_for_the_bias_of_a_bootstrap():
    # Almost calibrated: the error of a sample is larger than the true one, that of a draw more so.
    true = plain_error(probabilities(samples=200_000, sharpness=1.3, classes=3))
    held = 0
    for seed in range(60):
        made = probabilities(samples=300, groups=300, seed=seed, sharpness=1.3, classes=3)
        error = measure(made, draws=200)["ece"]
        assert 0 <= error.low <= error.value <= error.high
        held += error.low <= true <= error.high
    assert held >= 48


def test_intervals_resample_groups():
    made = probabilities(groups=400)
    grouped = replace(made, group=np.sort(made.group))
    assert measure(made, draws=300)["ece"].low < measure(made, draws=300)["ece"].value
    assert measure(made, draws=50) != measure(grouped, draws=50)
