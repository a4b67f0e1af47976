"""Curves of a training log as SVG text, without a plotting library.

Horizontal positions are percentages and type has a size in pixels, so a chart fills whatever width
it is given. Colours come from the page's style sheet through classes.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

MOST_POINTS = 500
"""Points of a curve; of a longer one the extremes of each stretch are kept."""
_ABOVE_PX, _CURVE_PX, _BELOW_PX = 8, 150, 22
_LABEL_PX = 6  # between a line of the grid and its number, which stands right of the chart


@dataclass(frozen=True, kw_only=True)
class Series:
    """One metric over the updates of a run, thinned, with its last value."""

    name: str
    updates: Sequence[int]
    values: Sequence[float]

    @property
    def latest(self) -> float:
        """The value of the last update."""
        return self.values[-1]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over one pair of axes.

    Attributes:
        title: heading.
        note: what to read from it, in one sentence.
        series: the curves, each with a point at least.
        last: update at the right end of the axis, which begins at 0.
        unit: behind every value.
    """

    title: str
    note: str
    series: Sequence[Series]
    last: int
    unit: str = ""

    @property
    def ticks(self) -> list[float]:
        """Numbers on the vertical axis, from below the least value to above the greatest."""
        values = [value for each in self.series for value in each.values]
        low, high = min(values), max(values)
        # A value that stands still gets an axis of a thousandth of its height.
        step = _round_step(max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-9))
        first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
        return [step * number for number in range(first, max(last, first + 1) + 1)]

    def data(self) -> Mapping[str, Any]:
        """What the page's script needs to show values under the pointer."""
        ticks = self.ticks
        return {
            "unit": self.unit,
            "last": self.last,
            "range": [ticks[0], ticks[-1]],
            "top": _ABOVE_PX,
            "height": _CURVE_PX,
            "series": [
                {
                    "name": each.name,
                    "updates": list(each.updates),
                    "values": [float(f"{value:.5g}") for value in each.values],
                }
                for each in self.series
            ],
        }


def read_series(lines: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    """Takes all metrics out of a log, by name in the order in which they come first.

    What is no finite number is passed over.
    """
    points: dict[str, tuple[list[int], list[float]]] = {}
    for line in lines:
        update = line["update"]
        for name, value in line.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                updates, values = points.setdefault(name, ([], []))
                updates.append(update)
                values.append(float(value))
    found: dict[str, Series] = {}
    for name, (updates, values) in points.items():
        kept = thinned(values)
        found[name] = Series(
            name=name,
            updates=[updates[index] for index in kept],
            values=[values[index] for index in kept],
        )
    return found


def thinned(values: Sequence[float], most: int = MOST_POINTS) -> list[int]:
    """Chooses at most `most` points, 4 or more: both ends, and the extremes of equal stretches.

    Returns:
        Numbers of the points, rising.
    """
    last = len(values) - 1
    if len(values) <= most:
        return list(range(len(values)))
    array = np.asarray(values)
    stretches = most // 2 - 1
    kept = {0, last}
    for number in range(stretches):
        start, stop = (1 + (last - 1) * each // stretches for each in (number, number + 1))
        stretch = array[start:stop]
        kept |= {start + int(stretch.argmin()), start + int(stretch.argmax())}
    return sorted(kept)


def draw(chart: Chart, number: int) -> Markup:
    """Draws a chart; `number` joins it to the data for the page's script."""
    ticks, bottom = chart.ticks, _ABOVE_PX + _CURVE_PX
    parts: list[Markup] = []
    for tick, label in zip(ticks, _labels(ticks), strict=True):
        y = bottom - _CURVE_PX * _share(tick, ticks)
        parts.append(Markup('<line class="rule" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>').format(y))
        parts.append(_text("100%", y + 4, f"{label}{chart.unit}", "tick", dx=_LABEL_PX))
    parts.append(
        Markup(
            '<svg y="{}" width="100%" height="{}" viewBox="0 0 1000 1000" '
            'preserveAspectRatio="none" class="curves">{}</svg>'
        ).format(_ABOVE_PX, _CURVE_PX, Markup("").join(_curves(chart, ticks)))
    )
    parts.append(_text("0", bottom + 16, "update 0", "tick"))
    parts.append(_text("100%", bottom + 16, f"{chart.last:,}", "tick end"))
    described = "; ".join(f"{each.name} is {each.latest:.4g}{chart.unit}" for each in chart.series)
    return Markup(
        '<svg class="chart" data-chart="{}" width="100%" height="{}" role="img" tabindex="0" '
        'aria-label="{}: {}">{}</svg>'
    ).format(number, bottom + _BELOW_PX, chart.title, described, Markup("\n").join(parts))


def _curves(chart: Chart, ticks: Sequence[float]) -> list[Markup]:
    drawn: list[Markup] = []
    for number, each in enumerate(chart.series):
        points = [
            (1000 * update / chart.last, 1000 * (1 - _share(value, ticks)))
            for update, value in zip(each.updates, each.values, strict=True)
        ]
        if len(points) == 1:  # a dot: a short line with round ends
            points.append((points[0][0] - 0.1, points[0][1]))
        drawn.append(
            Markup('<polyline class="series{}{}" points="{}"/>').format(
                number,
                " dot" if len(each.updates) == 1 else "",
                " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
            )
        )
    return drawn


def _round_step(span: float) -> float:
    """Returns 1, 2 or 5 times a power of ten, so that a span has two to four steps."""
    rough = span / 3
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def _labels(ticks: Sequence[float]) -> list[str]:
    """Writes numbers with the digits that tell them apart, small and large ones with powers."""
    step, greatest = ticks[1] - ticks[0], max(map(abs, ticks))
    if greatest >= 1e6 or greatest < 1e-3:
        digits = max(0, math.floor(math.log10(greatest)) - math.floor(math.log10(step) + 1e-9))
        return ["0" if abs(tick) < step / 2 else f"{tick:.{digits}e}" for tick in ticks]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{0.0 if abs(tick) < step / 2 else tick:,.{decimals}f}" for tick in ticks]


def _share(value: float, ticks: Sequence[float]) -> float:
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def _text(x: str, y: float, text: str, classes: str, dx: int = 0) -> Markup:
    return Markup('<text x="{}" dx="{}" y="{:.1f}" class="{}">{}</text>').format(
        x, dx, y, classes, text
    )
