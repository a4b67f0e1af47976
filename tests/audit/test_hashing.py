import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.audit import hashing
from eosin.audit.thumbnails import shrink

from .conftest import Draw


def orientations(image: np.ndarray) -> list[np.ndarray]:
    turned = (image, image.transpose(1, 0, 2))
    return [each[::up, ::along] for each in turned for up in (1, -1) for along in (1, -1)]


def test_a_copy_in_any_orientation_has_one_of_the_eight_hashes(draw: Draw) -> None:
    image = draw(0)
    hashes = hashing.hash_orientations(np.stack([shrink(image)]))[0]
    for each in orientations(image):
        turned = hashing.hash_orientations(np.stack([shrink(each)]))[0, 0]
        assert min((int(own) ^ int(turned)).bit_count() for own in hashes) <= 2


def test_other_images_differ_in_many_bits(draw: Draw) -> None:
    grey = np.stack([shrink(draw(seed)) for seed in range(12)])
    hashes = hashing.hash_orientations(grey)
    for first in range(12):
        for second in range(first):
            differing = [(int(a) ^ int(hashes[second, 0])).bit_count() for a in hashes[first]]
            assert min(differing) > 10


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), most=st.integers(0, 40), count=st.integers(1, 5))
def test_the_search_is_exact(seed: int, most: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.integers(0, 2**63, size=(4, 8), dtype=np.uint64)
    references = rng.integers(0, 2**63, size=30, dtype=np.uint64)
    references[:3] = queries[1, 4] ^ np.uint64(7)
    found, distances = hashing.nearest_hashes(queries, references, most, count)
    for row, own in enumerate(queries.tolist()):
        all_distances = [min((h ^ r).bit_count() for h in own) for r in references.tolist()]
        expected = sorted(d for d in all_distances if d <= most)[:count]
        kept = found[row] >= 0
        assert distances[row][kept].tolist() == expected
        assert [all_distances[number] for number in found[row][kept]] == expected


@pytest.mark.parametrize("count", [0, 1])
def test_few_or_no_references_leave_places_empty(count: int) -> None:
    queries = np.zeros((1, 8), np.uint64)
    found, _ = hashing.nearest_hashes(queries, np.zeros(count, np.uint64), 5, 3)
    assert found[0].tolist() == [0, -1, -1] if count else [-1, -1, -1]
