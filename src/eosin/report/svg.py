"""Pieces of charts as SVG text, without a plotting library.

Horizontal positions are percentages and type has a size in pixels, so a chart fills whatever width
it is given and stays readable on a phone. Colours come from the page's style sheet through classes.
"""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

LABEL_PX, LANE_PX, GAP_PX, AXIS_PX = 18, 13, 12, 26

_LEFT, _WIDTH = 1.5, 97.0  # Percent of the chart's width.


def ticks_between(low: float, high: float, step: float) -> list[float]:
    """Gives the multiples of a step that hold a range between them, at least two."""
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * tick, 10) for tick in range(first, max(last, first + 1) + 1)]


def round_step(span: float) -> float:
    """Returns 1, 2 or 5 times a power of ten, so that a span has three to seven steps."""
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def fraction(value: float, ticks: Sequence[float]) -> float:
    """Says how far a value lies from the first tick (0) to the last (1)."""
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def percent(value: float, ticks: Sequence[float]) -> float:
    """Gives the horizontal position of a value in percent of the chart's width."""
    return _LEFT + _WIDTH * fraction(value, ticks)


def line(kind: str, x_percent: tuple[float, float], y: tuple[float, float]) -> Markup:
    """Draws a line of a class from one point to another."""
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
        kind, *x_percent, *y
    )


def text(x_percent: float, y: float, content: str, classes: str) -> Markup:
    """Writes text at a point."""
    return Markup('<text x="{:.2f}%" y="{:.1f}" class="{}">{}</text>').format(
        x_percent, y, classes, content
    )


def polyline(kind: str, points: Iterable[tuple[float, float]], top: float, height: float) -> Markup:
    """Draws a line through points given as shares of its box, from 0 to 1, `y` upwards."""
    drawn = " ".join(f"{1000 * x:.1f},{1000 * (1 - y):.1f}" for x, y in points)
    return Markup(
        '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 1000 1000" '
        'preserveAspectRatio="none"><polyline class="{}" points="{}"/></svg>'
    ).format(top, height, kind, drawn)


def svg(parts: Iterable[Markup], height: float, title: str) -> Markup:
    """Puts parts together to a chart."""
    return Markup(
        '<svg class="chart" width="100%" height="{:.0f}" role="img"><title>{}</title>{}</svg>'
    ).format(height, title, Markup("\n").join(parts))
