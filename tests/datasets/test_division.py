import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosin.datasets._division import divide, hold_out

LABELLED_GROUPS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=120
)


def as_arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.array([label for label, _ in pairs])
    return labels, np.array([f"patient {group}" for _, group in pairs])


@given(LABELLED_GROUPS, st.integers(2, 5), st.integers(0, 3))
def test_no_group_is_ever_separated(pairs: list[tuple[int, int]], parts: int, seed: int) -> None:
    labels, groups = as_arrays(pairs)
    part = divide(labels, groups, [1 / parts] * parts, seed)
    for group in np.unique(groups):
        assert len(np.unique(part[groups == group])) == 1
    assert set(part.tolist()) <= set(range(parts))


@given(LABELLED_GROUPS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_division_does_not_depend_on_the_order_of_images(
    pairs: list[tuple[int, int]], seed: int, random
) -> None:
    labels, groups = as_arrays(pairs)
    order = np.array(random.sample(range(len(pairs)), len(pairs)))
    out = hold_out(labels, groups, 0.3, seed)
    assert (hold_out(labels[order], groups[order], 0.3, seed) == out[order]).all()


def test_each_class_is_held_out_in_its_share() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    groups = np.array([f"image {number}" for number in range(len(labels))])
    out = hold_out(labels, groups, 0.3, seed=0)
    assert [out[labels == each].sum() for each in range(3)] == [30, 15, 3]


def test_shares_hold_approximately_for_groups_of_mixed_classes() -> None:
    generator = np.random.default_rng(0)
    groups = np.array([f"patient {number}" for number in generator.integers(0, 60, 1200)])
    labels = generator.integers(0, 4, 1200)
    out = hold_out(labels, groups, 0.25, seed=1)
    shares = [out[labels == each].mean() for each in range(4)]
    assert shares == pytest.approx([0.25] * 4, abs=0.04)


def test_small_classes_are_present_in_every_part() -> None:
    labels = np.array([0] * 40 + [1, 1])
    groups = np.array([f"image {number}" for number in range(42)])
    for seed in range(10):
        out = hold_out(labels, groups, 0.1, seed)
        assert out[labels == 1].sum() == 1


def test_another_seed_gives_another_division_and_the_same_seed_the_same() -> None:
    labels = np.zeros(50, dtype=np.int64)
    groups = np.array([f"image {number}" for number in range(50)])
    first = hold_out(labels, groups, 0.3, seed=0)
    assert (first == hold_out(labels, groups, 0.3, seed=0)).all()
    assert (first != hold_out(labels, groups, 0.3, seed=1)).any()
