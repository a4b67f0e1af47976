import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from eosin.probes.linear import fit, fit_path


def overlapping(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    centres = np.random.default_rng(99).normal(size=(classes, 10))
    features = centres[labels] + 1.5 * generator.normal(size=(count, 10))
    return (features * np.geomspace(0.01, 100, 10)).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("c", [0.001, 0.1, 10.0])
def test_probe_agrees_with_a_scikit_learn_pipeline(classes: int, c: float) -> None:
    features, labels = overlapping(400, classes)
    others, _ = overlapping(100, classes, seed=1)
    probe = fit(features, labels, classes, c)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000, tol=1e-6))
    reference.fit(features.astype(np.float64), labels)
    assert probe.has_converged
    assert probe.predict(others) == pytest.approx(reference.predict_proba(others), abs=5e-3)
    assert (probe.predict(others).argmax(1) == reference.predict(others)).mean() > 0.98


def test_a_path_reaches_the_same_solutions_as_single_fits() -> None:
    features, labels = overlapping(300, 3)
    cs = (0.001, 0.01, 0.1)
    for c, probe in zip(cs, fit_path(features, labels, 3, cs), strict=True):
        alone = fit(features, labels, 3, c)
        assert probe.predict(features) == pytest.approx(alone.predict(features), abs=5e-3)


def test_fits_are_repeatable_and_leave_numpy_s_generator_alone() -> None:
    features, labels = overlapping(200, 3)
    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    first, second = (fit(features, labels, 3, 0.1) for _ in range(2))
    assert (first.weights == second.weights).all()
    assert (np.random.get_state()[1] == before).all()


def test_an_absent_class_gets_no_probability() -> None:
    features, labels = overlapping(200, 2)
    for shifted in (labels, labels * 2, labels + 1):
        probabilities = fit(features, shifted, 3, 0.1).predict(features)
        absent = ({0, 1, 2} - set(shifted.tolist())).pop()
        assert (probabilities[:, absent] == 0).all()
        assert probabilities.sum(1) == pytest.approx(np.ones(200), abs=1e-5)


def test_values_that_do_not_vary_have_no_say() -> None:
    features, labels = overlapping(200, 2)
    constant = np.full((200, 1), 0.3, dtype=np.float32)
    probe = fit(np.hstack([features, constant]), labels, 2, 0.1)
    moved = np.hstack([features, constant + np.float32(0.01)])
    plain = fit(features, labels, 2, 0.1)
    assert probe.predict(moved) == pytest.approx(plain.predict(features), abs=1e-3)


def test_an_unfinished_fit_says_so_without_a_warning() -> None:
    features, labels = overlapping(200, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not fit(features, labels, 3, 10.0, max_iterations=2).has_converged


@pytest.mark.parametrize("off", [0.0, 3.0, 300.0])
def test_where_the_embeddings_lie_changes_nothing(off: float) -> None:
    features, labels = overlapping(400, 3)
    far = (features.astype(np.float64) + off * features.std(0)).astype(np.float32)
    expected = fit(features, labels, 3, 0.1).predict(features)
    assert fit(far, labels, 3, 0.1).predict(far) == pytest.approx(expected, abs=1e-3)
