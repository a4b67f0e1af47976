import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.report import charts
from eosin.report.inputs import Curve
from eosin.results.comparison import compare_encoders
from eosin.results.files import read_results


@pytest.fixture(scope="module")
def comparison(results):
    return compare_encoders(read_results(results))


def percent(text):
    return float(text.removesuffix("%"))


def test_marks_lie_where_the_ticks_say(comparison):
    family = comparison.columns[0].family
    chart = ElementTree.fromstring(charts.intervals(family, comparison))
    ticks = {
        float(text.text): percent(text.get("x"))
        for text in chart.iter("text")
        if text.get("class") == "tick middle"
    }
    (low, x_low), (high, x_high) = min(ticks.items()), max(ticks.items())

    def place(value):
        return x_low + (value - low) / (high - low) * (x_high - x_low)

    marks = list(chart.iter("g"))
    columns = [column for column in comparison.columns if column.family == family]
    assert len(marks) == len(columns) * len(comparison.encoders)
    for mark in marks:
        value, left, right = map(float, re.findall(r"[\d.]+", mark[0].text.split(": ")[1]))
        assert percent(mark.find("circle").get("cx")) == pytest.approx(place(value), abs=0.1)
        assert percent(mark.find("line").get("x1")) == pytest.approx(place(left), abs=0.1)
        assert percent(mark.find("line").get("x2")) == pytest.approx(place(right), abs=0.1)


def test_the_chart_names_every_encoder_best_first(comparison):
    family = comparison.columns[0].family
    chart = ElementTree.fromstring(charts.intervals(family, comparison))
    names = [text.text for text in chart.iter("text") if "name" in text.get("class")]
    ranking = comparison.ranking(comparison.columns[0])
    assert names == [encoder for encoder, _ in ranking]
    assert "<script>alert(1)</script>" in names


def test_chance_is_drawn_for_balanced_accuracy_alone(results, comparison):
    family = comparison.columns[0].family
    assert 'class="chance"' in charts.intervals(family, comparison)
    by_f1 = compare_encoders(read_results(results), "macro_f1")
    assert 'class="chance"' not in charts.intervals(by_f1.columns[0].family, by_f1)


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6).map(lambda loss: round(loss, 6)), min_size=1, max_size=1500))
def test_a_curve_stays_inside_its_chart(losses):
    updates = tuple(range(10, 10 + len(losses)))
    chart = ElementTree.fromstring(
        charts.curve(Curve(name="a < b", updates=updates, losses=tuple(losses)))
    )
    (line,) = chart.iter("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.get("points").split()]
    assert len(points) <= 400
    assert all(0 <= x <= 1000 and 0 <= y <= 1000 for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


@pytest.mark.parametrize("loss", [0.0, 1e-12, 467295.0, -3.25, 1e12])
def test_a_loss_that_stands_still_is_drawn(loss):
    run = Curve(name="run", updates=(1, 2), losses=(loss, loss))
    (line,) = ElementTree.fromstring(charts.curve(run)).iter("polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points").split()]
    assert heights[0] == heights[1] and 0 <= heights[0] <= 1000


def test_a_falling_loss_falls_in_the_chart():
    run = Curve(name="run", updates=(1, 2, 3), losses=(3.0, 2.0, 1.0))
    chart = ElementTree.fromstring(charts.curve(run))
    (line,) = chart.iter("polyline")
    assert line.get("points") == "0.0,0.0 500.0,500.0 1000.0,1000.0"
    texts = [text.text for text in chart.iter("text")]
    assert "3" in texts and "1" in texts and "update 1" in texts
