"""Schedules at their first, last and boundary updates."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosin.engine.schedules import constant, cosine, linear_then_constant, warmup_cosine


def test_warmup_through_the_peak_is_dinos_linspace() -> None:
    schedule = warmup_cosine(1.0, 0.0, total=110, warmup=10, through_peak=True)
    assert schedule(0) == 0.0
    assert schedule(9) == 1.0
    assert schedule(10) == 1.0  # the cosine starts at the peak once more
    assert schedule(60) == pytest.approx(0.5)
    assert 0 < schedule(109) < 0.001


def test_warmup_short_of_the_peak_is_barlow_twins() -> None:
    schedule = warmup_cosine(2.0, 0.002, total=110, warmup=10, through_peak=False)
    assert schedule(0) == 0.0
    assert schedule(9) == pytest.approx(1.8)
    assert schedule(10) == 2.0
    assert schedule(60) == pytest.approx((2 + 0.002) / 2)


def test_no_warmup_starts_at_the_peak() -> None:
    assert warmup_cosine(3.0, 0.0, total=10, warmup=0, through_peak=True)(0) == 3.0
    assert warmup_cosine(3.0, 0.0, total=10, warmup=0, through_peak=False)(0) == 3.0


def test_linear_then_constant_includes_both_ends() -> None:
    schedule = linear_then_constant(0.04, 0.07, warmup=4)
    assert [round(schedule(step), 12) for step in range(6)] == [0.04, 0.05, 0.06, 0.07, 0.07, 0.07]
    assert linear_then_constant(0.04, 0.07, warmup=0)(0) == 0.07
    assert linear_then_constant(0.04, 0.07, warmup=1)(0) == 0.04


@given(
    st.floats(1e-6, 10),
    st.floats(0, 1),
    st.integers(1, 2000),
    st.floats(0, 1),
    st.booleans(),
)
def test_values_stay_between_the_ends(
    peak: float, share: float, total: int, warm: float, through_peak: bool
) -> None:
    schedule = warmup_cosine(
        peak, peak * share, total, round(warm * total), through_peak=through_peak
    )
    assert all(0 <= schedule(update) <= peak * (1 + 1e-12) for update in range(total))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 1000))
def test_a_cosine_goes_one_way(start: float, end: float, total: int) -> None:
    values = [cosine(start, end, total)(update) for update in range(total)]
    steps = [after - before for before, after in itertools.pairwise(values)]
    assert values[0] == pytest.approx(start)
    assert all(step * (end - start) >= -1e-12 for step in steps)


def test_constant() -> None:
    assert [constant(0.3)(update) for update in (0, 7)] == [0.3, 0.3]
