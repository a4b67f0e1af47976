import numpy as np
import pytest
from sklearn.metrics import f1_score
from sklearn.neighbors import KNeighborsClassifier

from eosin.probes.neighbours import Neighbours
from tests.probes._material import material, samples


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_uni_s_neighbours_are_scikit_learn_s_of_centred_unit_vectors() -> None:
    given = material(200, 3, spread=2.0)
    queries = samples(90, 3, 8, 2, 2.0).features
    centre = given.train.features.mean(0)
    reference = KNeighborsClassifier(20).fit(
        unit(given.train.features - centre), given.train.labels
    )
    head = Neighbours(
        ks=(20,), vote="majority", centres=True, distance="euclidean", criterion="accuracy"
    )
    fitted = head.fit(given, 0)
    assert fitted.chosen == {"k": 20}
    shares = fitted.predict(queries)
    assert (shares.argmax(1) == reference.predict(unit(queries - centre))).all()
    assert shares == pytest.approx(reference.predict_proba(unit(queries - centre)), abs=1e-6)


def test_thunder_s_choice_is_by_macro_f1_and_a_majority_whose_ties_go_to_the_first_class() -> None:
    given = material(120, 3, held_out=60, spread=4.0)
    judged = given.folds[0].held_out
    ks = (1, 3, 5, 10, 20, 30, 40, 50)
    order = np.argsort(-(unit(judged.features) @ unit(given.train.features).T), axis=1)
    scores = []
    for k in ks:
        near = given.train.labels[order[:, :k]]
        predicted = [int(np.bincount(row).argmax()) for row in near]
        scores.append(f1_score(judged.labels, predicted, average="macro"))
    fitted = Neighbours(ks=ks, vote="majority", criterion="macro_f1").fit(given, 0)
    assert fitted.chosen["k"] == ks[int(np.argmax(scores))]
    assert fitted.chosen["macro_f1"] == pytest.approx(max(scores))


def test_dinov2_s_vote() -> None:
    given = material(120, 3, held_out=60, spread=4.0)
    queries = samples(40, 3, 8, 2, 4.0).features
    fitted = Neighbours(ks=(10,), vote="exp", criterion="accuracy").fit(given, 0)
    cosines = unit(queries) @ unit(given.train.features).T
    order = np.argsort(-cosines, axis=1)[:, :10]
    weights = np.exp(np.take_along_axis(cosines, order, 1) / 0.07)
    one_hot = np.eye(3)[given.train.labels[order]]
    expected = (weights[..., None] * one_hot).sum(1) / weights.sum(1, keepdims=True)
    assert fitted.predict(queries) == pytest.approx(expected, abs=1e-4)


def test_votes_by_euclidean_distance() -> None:
    given = material(120, 3, spread=4.0)
    queries = samples(40, 3, 8, 2, 4.0).features
    head = Neighbours(
        ks=(7,), vote="exp", temperature=0.3, distance="euclidean", criterion="accuracy"
    )
    reference = KNeighborsClassifier(7, weights=lambda distances: np.exp(-distances / 0.3))
    reference.fit(unit(given.train.features), given.train.labels)
    expected = reference.predict_proba(unit(queries))
    assert head.fit(given, 0).predict(queries) == pytest.approx(expected, abs=1e-4)
