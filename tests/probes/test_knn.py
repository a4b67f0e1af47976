import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from eosin.probes import knn
from eosin.probes.knn import KnnProbe, find_neighbours, vote


def blobs(count: int, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    centres = np.random.default_rng(99).normal(size=(3, dim))
    return (centres[labels] + generator.normal(size=(count, dim))).astype(np.float32), labels


@pytest.mark.parametrize("tile_values", [1, 500, 2**24])
def test_neighbours_are_those_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, tile_values: int
) -> None:
    monkeypatch.setattr(knn, "_TILE_VALUES", tile_values)
    keys, _ = blobs(200)
    queries, _ = blobs(60, seed=1)
    cosines, indices = find_neighbours(queries, keys, 7)
    reference = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(keys)
    distances, expected = reference.kneighbors(queries)
    assert (indices == expected).all()
    assert cosines == pytest.approx(1 - distances, abs=1e-5)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_probe_agrees_with_scikit_learn_with_the_same_weights(k: int) -> None:
    features, labels = blobs(300)
    queries, _ = blobs(100, seed=1)
    reference = KNeighborsClassifier(
        k, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07)
    ).fit(features, labels)
    probe = KnnProbe(features=features, labels=labels, n_classes=3, k=k, temperature=0.07)
    assert probe.predict(queries) == pytest.approx(reference.predict_proba(queries), abs=1e-4)


def test_of_equal_cosines_the_first_key_counts() -> None:
    keys = np.array([[0, 1], [1, 0], [2, 0], [3, 0], [1, 1], [5, 0]], dtype=np.float32)
    for k, expected in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 3, 5, 4])):
        _, indices = find_neighbours(np.array([[1, 0]], dtype=np.float32), keys, k)
        assert indices.tolist() == [expected]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=20),
    st.integers(1, 25),
)
def test_ties_and_zero_vectors_never_disturb_the_order(rows: list[tuple[int, int]], k: int) -> None:
    keys = np.array(rows, dtype=np.float32)
    queries = np.array([[1, 0], [1, 1], [0, 0]], dtype=np.float32)
    cosines, indices = find_neighbours(queries, keys, k)
    assert indices.shape == (3, min(k, len(keys)))
    for row_cosines, row in zip(cosines.tolist(), indices.tolist(), strict=True):
        ranked = [(-cosine, index) for cosine, index in zip(row_cosines, row, strict=True)]
        assert ranked == sorted(ranked)
        assert len(set(row)) == len(row)
    # Nothing matches a query without direction: the lowest indices are taken.
    assert indices[2].tolist() == list(range(min(k, len(keys))))


def test_votes_are_shares_that_fall_with_distance() -> None:
    cosines = np.array([[1.0, 0.9, 0.5]], dtype=np.float32)
    shares = vote(cosines, np.array([[2, 0, 0]]), n_classes=4, temperature=0.1)
    weights = np.exp(cosines[0] / 0.1)
    expected = np.array([weights[1] + weights[2], 0, weights[0], 0]) / weights.sum()
    assert shares[0] == pytest.approx(expected, rel=1e-5)


def test_cosines_far_below_zero_do_not_vanish() -> None:
    shares = vote(np.array([[-0.99, -1.0]], dtype=np.float32), np.array([[0, 1]]), 2, 0.001)
    assert shares.sum() == pytest.approx(1)
    assert shares[0, 0] > shares[0, 1] > 0
