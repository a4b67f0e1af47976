import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.results.multiplicity import holm, letters


def test_a_case_worked_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, then 0.5 x 1; 0.06 twice since it may not fall.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == []
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_rejections_are_those_of_holms_steps(p_values, level):
    count = len(p_values)
    rejected = set()
    for rank, number in enumerate(sorted(range(count), key=lambda each: p_values[each])):
        if p_values[number] * (count - rank) > level:
            break
        rejected.add(number)
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected


@st.composite
def any_differences(draw):
    count = draw(st.integers(1, 9))
    generator = np.random.default_rng(draw(st.integers(0, 10**6)))
    upper = np.triu(generator.random((count, count)) < draw(st.floats(0, 1)), 1)
    return upper | upper.T


@settings(deadline=None)
@given(any_differences())
def test_two_share_a_letter_exactly_if_they_were_not_told_apart(differs):
    found = letters(differs)
    for i, ours in enumerate(found):
        for j, theirs in enumerate(found):
            assert bool(set(ours) & set(theirs)) == (i == j or not differs[i, j])
    assert found[0].startswith("a")


@settings(deadline=None)
@given(any_differences())
def test_no_letter_could_be_left_out(differs):
    found = letters(differs)
    for letter in set("".join(found)):
        left = [each.replace(letter, "") for each in found]
        pairs = [(i, j) for i in range(len(found)) for j in range(i + 1) if not differs[i, j]]
        assert not all(set(left[i]) & set(left[j]) for i, j in pairs)


def test_the_usual_case_reads_as_in_papers():
    # 0 and 1 alike, 1 and 2 alike, 3 alone.
    differs = np.ones((4, 4), dtype=bool)
    for i, j in ((0, 1), (1, 2)):
        differs[i, j] = differs[j, i] = False
    assert letters(differs) == ["a", "ab", "b", "c"]
    assert letters(np.zeros((3, 3), dtype=bool)) == ["a", "a", "a"]


def test_more_than_26_letters_are_set_apart():
    differs = ~np.eye(28, dtype=bool)
    assert letters(differs)[24:] == ["y", "z", "aa", "ab"]


def test_many_encoders_in_order_do_not_take_long():
    place = np.arange(40)
    differs = abs(place[:, None] - place) > 6
    assert len(letters(differs)) == 40
