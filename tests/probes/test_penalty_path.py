import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score

from eosin.probes._base import Fold, Material
from eosin.probes.penalty_path import PenaltyPath
from tests.probes._material import material, samples
from tests.probes._reference import softmax

DINO_CS = tuple(10 ** (-6 + 11 * step / 44) for step in range(45))


def part(given: Material, rows: np.ndarray):
    train = given.train
    return type(train)(
        features=train.features[rows],
        labels=train.labels[rows],
        groups=train.groups[rows],
        ids=(),
    )


def in_folds(given: Material, count: int) -> Material:
    number = np.arange(len(given.train)) // 3 % count
    folds = tuple(
        Fold(fit=part(given, number != each), held_out=part(given, number == each))
        for each in range(count)
    )
    return Material(train=given.train, folds=folds, n_classes=given.n_classes)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_penalty_is_chosen_on_the_folds_and_all_is_fitted_on(classes: int) -> None:
    given = in_folds(material(240, classes, 6, spread=3.0), 4)
    cs = (1e-5, 1e-3, 1e-1, 10.0)
    head = PenaltyPath(
        cs=cs, max_iterations=1000, standardises=False, criterion="balanced_accuracy"
    )
    fitted = head.fit(given, 0)
    means = [
        np.mean(
            [
                balanced_accuracy_score(
                    fold.held_out.labels, plain(fold.fit, c).predict(fold.held_out.features)
                )
                for fold in given.folds
            ]
        )
        for c in cs
    ]
    best = int(np.argmax(means))
    assert fitted.chosen["c"] == cs[best]
    assert fitted.chosen["balanced_accuracy"] == pytest.approx(means[best], abs=1e-9)
    assert fitted.chosen["has_converged"] is True
    queries = samples(50, classes, 6, 2, 3.0).features
    expected = plain(given.train, cs[best]).predict_proba(queries)
    assert fitted.predict(queries) == pytest.approx(expected, abs=2e-3)


def plain(train, c: float) -> LogisticRegression:
    model = LogisticRegression(C=c, solver="newton-cholesky", max_iter=10000, tol=1e-10)
    return model.fit(train.features.astype(np.float64), train.labels)


@pytest.mark.parametrize("count", [400, 40])
def test_every_penalty_of_dinov2_reaches_the_minimum(count: int) -> None:
    given = material(count, 3, 60, held_out=60, spread=3.0)
    queries = samples(50, 3, 60, 2, 3.0).features
    for c in (DINO_CS[0], DINO_CS[20], DINO_CS[30], DINO_CS[44]):
        head = PenaltyPath(cs=(c,), max_iterations=1000, standardises=False, criterion="accuracy")
        fitted = head.fit(given, 0)
        assert fitted.chosen["has_converged"]
        expected = plain(given.train, c).predict_proba(queries)
        assert fitted.predict(queries) == pytest.approx(expected, abs=0.02)


def test_of_equally_good_penalties_the_strongest_is_taken() -> None:
    given = material(60, 3, held_out=60, spread=0.01)
    head = PenaltyPath(
        cs=DINO_CS[20:], max_iterations=1000, standardises=True, criterion="accuracy"
    )
    assert head.fit(given, 0).chosen["c"] == DINO_CS[20]


def test_weights_are_penalised_as_the_loss_says() -> None:
    given = material(200, 4, 6, spread=3.0)
    c = 0.05
    head = PenaltyPath(cs=(c,), max_iterations=1000, standardises=False, criterion="accuracy")
    fitted = head.fit(given, 0)
    train = given.train
    shares = fitted.predict(train.features)
    # At the minimum, C times the sum of the errors' products with the embeddings is the weights.
    errors = np.eye(4)[train.labels] - shares
    weights = c * errors.T @ train.features
    logits = train.features @ weights.T
    gap = np.log(shares) - np.log(softmax(logits))
    spread = gap - gap.mean(0)
    assert np.abs(spread - spread.mean(1, keepdims=True)).max() < 0.01
    assert np.abs(errors.sum(0)).max() < 0.01 * len(train)
