"""Curves keep their extremes, and axes their numbers, whatever the values are."""

import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.pretrain.training_charts import Chart, Series, draw, read_series, thinned

FINITE = st.floats(-1e30, 1e30, allow_nan=False)


def chart(*values: float) -> Chart:
    series = Series(name="loss", updates=range(1, len(values) + 1), values=values)
    return Chart(title="Loss", note="", series=[series], last=len(values))


@settings(max_examples=60, deadline=None)
@given(values=st.lists(FINITE, min_size=1, max_size=300), most=st.integers(4, 60))
def test_thinning_keeps_the_ends_and_the_extremes(values: list[float], most: int) -> None:
    kept = thinned(values, most)
    assert kept == sorted(set(kept)) and len(kept) <= max(most, 1)
    assert kept[0] == 0 and kept[-1] == len(values) - 1
    chosen = [values[index] for index in kept]
    assert min(chosen) == min(values) and max(chosen) == max(values)
    if len(values) <= most:
        assert chosen == values


@settings(max_examples=100, deadline=None)
@given(values=st.lists(FINITE, min_size=1, max_size=5))
def test_every_value_lies_on_the_axis_and_numbers_differ(values: list[float]) -> None:
    drawn = chart(*values)
    ticks = drawn.ticks
    slack = 1e-5 * (ticks[-1] - ticks[0])
    assert ticks[0] - slack <= min(values) <= max(values) <= ticks[-1] + slack
    assert 2 <= len(ticks) <= 6
    numbers = re.findall(r'dx="6"[^>]*>([^<]*)<', draw(drawn, 0))
    assert len(set(numbers)) == len(numbers) == len(ticks)


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ((0.0, 1.0), ["0.0", "0.5", "1.0"]),
        ((2.0, 2.0), ["2.000", "2.001"]),
        ((0.0, 0.0002), ["0", "1e-04", "2e-04"]),
        ((1000.0, 3000.0), ["1,000", "2,000", "3,000"]),
        ((-3.2, 0.0), ["-4", "-2", "0"]),
    ],
)
def test_axes_have_round_numbers(values: tuple[float, ...], numbers: list[str]) -> None:
    assert re.findall(r'dx="6"[^>]*>([^<]*)<', draw(chart(*values), 0)) == numbers


def test_a_log_gives_its_finite_numbers() -> None:
    lines = [
        {"update": 1, "loss": 2.0, "diagnosis": "text"},
        {"update": 2, "loss": math.nan, "knn": 1},
        {"update": 3, "loss": 1.5, "knn": None},
    ]
    found = read_series(lines)
    assert list(found) == ["update", "loss", "knn"]
    assert (found["loss"].updates, found["loss"].values) == ([1, 3], [2.0, 1.5])
    assert (found["knn"].updates, found["knn"].latest) == ([2], 1.0)


def test_a_single_point_is_drawn_as_a_dot() -> None:
    assert 'class="series0 dot"' in draw(chart(2.5), 0)
    assert "dot" not in draw(chart(2.5, 2.0), 0)
