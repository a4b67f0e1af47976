import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from eosin.errors import InputError
from eosin.probes import knn
from eosin.probes.knn import KnnProbe, find_neighbours, vote


def blobs(count: int, dim: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, count)
    centres = np.random.default_rng(99).normal(size=(3, dim))
    return (centres[labels] + generator.normal(size=(count, dim))).astype(np.float32), labels


@pytest.mark.parametrize("rows", [1, 7, 4096])
def test_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(knn, "_QUERY_ROWS", rows)
    monkeypatch.setattr(knn, "_KEY_ROWS", rows)
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


def exact(queries: np.ndarray, keys: np.ndarray, k: int) -> np.ndarray:
    """Neighbours by cosines of float64 rounded to float32, of equals the first."""
    queries, keys = queries.astype(np.float64), keys.astype(np.float64)
    cosines = queries @ keys.T
    cosines /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(keys, axis=1)
    return np.argsort(-cosines.astype(np.float32), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("decay", [0.0, 0.7, 2.0])
@pytest.mark.parametrize("offset", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("pairs_worth_turning", [0, 2**60])
def test_neighbours_are_those_of_float64_whatever_is_known_of_the_vectors(
    monkeypatch: pytest.MonkeyPatch, decay: float, offset: float, pairs_worth_turning: int
) -> None:
    monkeypatch.setattr(knn, "_PAIRS_WORTH_TURNING", pairs_worth_turning)
    monkeypatch.setattr(knn, "_KEY_ROWS", 256)
    generator = np.random.default_rng(0)
    scale = np.arange(1, 97) ** -decay
    vectors = (offset * scale[0] + generator.normal(size=(3400, 96)) * scale).astype(np.float32)
    queries, keys = vectors[:400], vectors[400:]
    keys[1500:1600] = keys[:100]
    _, indices = find_neighbours(queries, keys, 10)
    expected = exact(queries, keys, 10)
    # Rounding to float32 may fall to the other side where float64 sums in another order.
    assert (indices == expected).mean() > 0.999


def test_turned_searches_rule_keys_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn, "_PAIRS_WORTH_TURNING", 0)
    calls = []
    keep_near = knn.keep_near
    monkeypatch.setattr(knn, "keep_near", lambda *given: calls.append(keep_near(*given)))
    generator = np.random.default_rng(0)
    vectors = (generator.normal(size=(8000, 96)) * np.arange(1, 97) ** -1.0).astype(np.float32)
    _, indices = find_neighbours(vectors[:400], vectors[400:], 3)
    assert (indices == exact(vectors[:400], vectors[400:], 3)).mean() > 0.999
    assert len(calls) > 3


def test_no_keys_but_a_few_and_no_queries() -> None:
    keys = np.eye(3, dtype=np.float32)
    cosines, indices = find_neighbours(np.empty((0, 3), dtype=np.float32), keys, 2)
    assert cosines.shape == indices.shape == (0, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value: float) -> None:
    good, bad = np.ones((4, 3), dtype=np.float32), np.ones((4, 3), dtype=np.float32)
    bad[2, 1] = value
    with pytest.raises(InputError, match="Row 2 of the keys"):
        find_neighbours(good, bad, 2)
    with pytest.raises(InputError, match="Row 2 of the queries"):
        find_neighbours(bad, good, 2)
