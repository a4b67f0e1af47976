import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosin.datasets._fractions import labelled_part

FRACTIONS = (0.01, 0.05, 0.1, 0.3, 0.5, 1.0)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(3, 60))
    labels = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    groups = draw(st.lists(st.integers(0, 12), min_size=count, max_size=count))
    return np.array(labels), np.array([f"patient {each}" for each in groups])


@given(labelled(), st.integers(0, 3))
def test_parts_are_nested_whole_groups_with_every_class(
    images: tuple[np.ndarray, np.ndarray], draw: int
) -> None:
    labels, groups = images
    before: set[int] = set()
    for fraction in FRACTIONS:
        part = labelled_part(labels, groups, fraction, draw)
        assert before <= set(part.tolist())
        before = set(part.tolist())
        assert set(labels[part]) == set(labels)
        rest = np.setdiff1d(np.arange(len(labels)), part)
        assert not set(groups[part]) & set(groups[rest])
    assert len(before) == len(labels)


def test_images_of_their_own_are_taken_in_exact_proportion() -> None:
    labels = np.repeat([0, 1, 2], (1000, 300, 100))
    groups = np.array([f"{number}.png" for number in range(len(labels))])
    for fraction in FRACTIONS:
        part = labelled_part(labels, groups, fraction, draw=0)
        assert np.bincount(labels[part]).tolist() == [
            round(fraction * each) for each in (1000, 300, 100)
        ]


def test_mixed_groups_come_near_the_fraction() -> None:
    generator = np.random.default_rng(0)
    groups = np.array([f"slide {each}" for each in generator.integers(0, 200, 4000)])
    labels = generator.integers(0, 2, 4000)
    shares = [len(labelled_part(labels, groups, 0.3, draw)) / 4000 for draw in range(5)]
    assert np.allclose(shares, 0.3, atol=0.03)


def test_draws_differ_and_names_alone_decide() -> None:
    labels = np.arange(400) % 2
    groups = np.array([f"{number}.png" for number in range(400)])
    first, second = (labelled_part(labels, groups, 0.1, draw) for draw in (0, 1))
    assert set(first) != set(second)
    order = np.random.default_rng(0).permutation(400)
    again = labelled_part(labels[order], groups[order], 0.1, 0)
    assert set(groups[order][again]) == set(groups[first])


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_no_such_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match="at most 1"):
        labelled_part(np.array([0, 1]), np.array(["a", "b"]), fraction, 0)
