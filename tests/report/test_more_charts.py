import math
import re
from xml.etree import ElementTree

import pytest

from eosin.report import more_charts
from eosin.results.columns import Family
from eosin.results.label_curves import LabelCurve, LabelCurves, Point
from eosin.results.rankings import MeanRank, Ranking

FAMILY = Family(
    data="bach",
    task="linear",
    protocol="strict v1",
    label_fraction=1.0,
    manifest_sha256="m",
    split_sha256="s",
    metric="balanced_accuracy",
)


def ranking(critical=1.5, bars=((1.0, 2.2),)):
    return Ranking(
        task="linear",
        protocol="strict v1",
        label_fraction=1.0,
        shift="none",
        data=("bach", "crc"),
        ranks=(
            MeanRank(encoder="<a>", value=1.0, low=1.0, high=1.5),
            MeanRank(encoder="b", value=2.2, low=1.7, high=2.6),
            MeanRank(encoder="c", value=2.8, low=2.5, high=3.0),
        ),
        friedman=0.2,
        critical=critical,
        bars=bars,
    )


def percent(text):
    return float(text.removesuffix("%"))


def scale(chart):
    """Turns a rank into a position, read off the ticks."""
    ticks = {
        float(text.text): percent(text.get("x"))
        for text in chart.iter("text")
        if text.get("class") == "tick middle"
    }
    return lambda rank: ticks[1] + (rank - 1) * (ticks[2] - ticks[1])


def test_ranks_intervals_and_bars_lie_where_the_ticks_say():
    chart = ElementTree.fromstring(more_charts.critical_difference(ranking()))
    place = scale(chart)
    marks = [mark for mark in chart.iter("g")]
    for mark, rank in zip(marks, ranking().ranks, strict=True):
        assert percent(mark.find("circle").get("cx")) == pytest.approx(place(rank.value), abs=0.1)
        line = mark.find("line")
        ends = [percent(line.get(name)) for name in ("x1", "x2")]
        assert ends == pytest.approx([place(rank.low), place(rank.high)], abs=0.1)
    lines = {each.get("class"): each for each in chart.iter("line")}
    for kind, ends in (("critical", (1.0, 2.5)), ("alike", (1.0, 2.2))):
        drawn = [percent(lines[kind].get(name)) for name in ("x1", "x2")]
        assert drawn == pytest.approx([place(end) for end in ends], abs=0.1)
    assert "<a>" in [text.text for text in chart.iter("text")]


def test_a_critical_difference_longer_than_the_axis_is_cut_and_said_so():
    chart = ElementTree.fromstring(more_charts.critical_difference(ranking(critical=9.0)))
    (line,) = [each for each in chart.iter("line") if each.get("class") == "critical"]
    assert percent(line.get("x2")) <= 100
    said = "critical difference 9.00, longer than the axis"
    assert said in [text.text for text in chart.iter("text")]


def curves(count=2):
    points = (
        Point(fraction=0.01, mean=0.4, spread=0.05, runs=5),
        Point(fraction=0.1, mean=0.6, spread=0.02, runs=5),
        Point(fraction=1.0, mean=0.7, spread=0.0, runs=1),
    )
    return LabelCurves(
        family=FAMILY,
        shift="none",
        fractions=(0.01, 0.1, 1.0),
        curves=tuple(
            LabelCurve(encoder=f"e<{number}>", points=points, area=0.6) for number in range(count)
        ),
    )


def test_the_axis_of_labels_is_logarithmic():
    chart = ElementTree.fromstring(more_charts.label_efficiency(curves(), "auroc"))
    line = next(chart.iter("polyline"))
    x, y = zip(*(map(float, p.split(",")) for p in line.get("points").split()), strict=True)
    # From 1 % to 10 % is as far as from 10 % to all.
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert y[0] > y[1] > y[2] and all(0 <= each <= 1000 for each in (*x, *y))
    percents = [text.text for text in chart.iter("text") if text.text.endswith("%")]
    assert percents == ["1 %", "10 %", "100 %"]


def test_points_show_their_spread_and_say_it():
    chart = ElementTree.fromstring(more_charts.label_efficiency(curves(1), "auroc"))
    marks = list(chart.iter("g"))
    assert marks[0].find("title").text == "e<0>, 1 % of the labels: 0.400 ± 0.050"
    lengths = []
    for mark in marks:
        line = mark.find("line")
        lengths.append(abs(float(line.get("y1")) - float(line.get("y2"))))
    assert lengths[0] == pytest.approx(2.5 * lengths[1], rel=0.05)
    assert lengths[2] == 0.0


def test_every_curve_has_a_look_of_its_own():
    looks = [more_charts.curve_class(number) for number in range(2 * more_charts.COLOURS)]
    assert len(set(looks)) == len(looks)
    svg = more_charts.label_efficiency(curves(10), "auroc")
    assert len(re.findall(r'class="labels curve', svg)) == 10


def test_curves_that_do_not_rise_are_drawn():
    points = tuple(Point(fraction=f, mean=0.5, spread=0.0, runs=1) for f in (0.1, 1.0))
    flat = LabelCurves(
        family=FAMILY,
        shift="none",
        fractions=(0.1, 1.0),
        curves=(LabelCurve(encoder="flat", points=points, area=0.5),),
    )
    chart = ElementTree.fromstring(more_charts.label_efficiency(flat, "auroc"))
    heights = [float(p.split(",")[1]) for p in next(chart.iter("polyline")).get("points").split()]
    assert heights[0] == heights[1] and math.isfinite(heights[0])
