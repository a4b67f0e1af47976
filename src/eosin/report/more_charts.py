"""Charts over several results: critical differences of ranks, and label efficiency."""

import math
from collections.abc import Iterable

from markupsafe import Markup

from eosin.report.svg import (
    AXIS_PX,
    GAP_PX,
    LABEL_PX,
    LANE_PX,
    fraction,
    line,
    percent,
    polyline,
    round_step,
    svg,
    text,
    ticks_between,
)
from eosin.results.label_curves import LabelCurve, LabelCurves
from eosin.results.rankings import Ranking
from eosin.results.wording import METRIC_NAMES, rank_text, ranking_title

COLOURS = 8
"""So many curves have a colour of their own; the next begin again, dashed."""
_PLOT_PX = 230
_LEFT = 9.0  # Percent of the chart's width.


def critical_difference(ranking: Ranking) -> Markup:
    """Draws mean ranks with their intervals, and bars over ranks that are not told apart.

    The first rank is on the left; the bar at the top is as long as the critical difference.
    """
    ticks = [float(rank) for rank in range(1, len(ranking.ranks) + 1)]
    shown = min(ranking.critical, ticks[-1] - ticks[0])
    more = "" if shown == ranking.critical else ", longer than the axis"
    top = LABEL_PX + 8
    parts = [
        text(percent(1, ticks), 12, f"critical difference {ranking.critical:.2f}{more}", "tick"),
        line("critical", (percent(1, ticks), percent(1 + shown, ticks)), (top, top)),
    ]
    top += 12
    for low, high in ranking.bars:
        parts.append(line("alike", (percent(low, ticks), percent(high, ticks)), (top, top)))
        top += 8
    row_px = LABEL_PX + LANE_PX + GAP_PX
    bottom = top + row_px * len(ranking.ranks)
    for tick in ticks:
        x = percent(tick, ticks)
        parts.append(line("grid", (x, x), (LABEL_PX, bottom)))
        parts.append(text(x, bottom + 17, f"{tick:g}", "tick middle"))
    for row, rank in enumerate(ranking.ranks):
        y = top + row * row_px + LABEL_PX + LANE_PX / 2
        parts.append(text(0, top + row * row_px + 13, rank.encoder, "name"))
        parts.append(text(100, top + row * row_px + 13, f"{rank.value:.2f}", "value end"))
        parts.append(
            Markup(
                '<g class="lane0"><title>{}: {}</title>{}<circle cx="{:.2f}%" cy="{}" r="4"/></g>'
            ).format(
                rank.encoder,
                rank_text(rank),
                line("interval", (percent(rank.low, ticks), percent(rank.high, ticks)), (y, y)),
                percent(rank.value, ticks),
                y,
            )
        )
    return svg(parts, bottom + AXIS_PX, ranking_title(ranking))


def label_efficiency(found: LabelCurves, metric: str) -> Markup:
    """Draws the metric against the part of the labels on a logarithmic axis, a line an encoder."""
    ends = [
        end
        for curve in found.curves
        for point in curve.points
        for end in (point.mean - point.spread, point.mean + point.spread)
    ]
    ticks = ticks_between(min(ends), max(ends), round_step(max(max(ends) - min(ends), 0.01)))
    parts: list[Markup] = []
    for tick in ticks:
        y = _height(tick, ticks)
        parts.append(line("grid", (0, 100), (y, y)))
        parts.append(text(0, y - 4, f"{tick:g}", "tick"))
    across = [math.log(each) for each in found.fractions]
    for place, (each, x) in enumerate(zip(found.fractions, across, strict=True)):
        at = "end" if place == len(across) - 1 else "middle"
        below = LABEL_PX + _PLOT_PX + 17
        parts.append(text(_across(x, across), below, f"{100 * each:.3g} %", f"tick {at}"))
    for number, curve in enumerate(found.curves):
        parts += _drawn(curve, curve_class(number), ticks, across)
    title = (
        f"{found.family.data}, {found.family.task}: {METRIC_NAMES[metric]} by part of the labels"
    )
    return svg(parts, LABEL_PX + _PLOT_PX + AXIS_PX, title)


def curve_class(number: int) -> str:
    """Names the look of the curve of this place: a colour, dashed from the ninth on."""
    return f"curve{number % COLOURS}" + (" dashed" if number >= COLOURS else "")


def _drawn(
    curve: LabelCurve, look: str, ticks: list[float], across: list[float]
) -> Iterable[Markup]:
    points = [(math.log(each.fraction), each) for each in curve.points]
    yield polyline(
        f"labels {look}",
        [(_across(x, across) / 100, fraction(each.mean, ticks)) for x, each in points],
        LABEL_PX,
        _PLOT_PX,
    )
    for x, each in points:
        at, y = _across(x, across), _height(each.mean, ticks)
        ends = [_height(each.mean + sign * each.spread, ticks) for sign in (1, -1)]
        yield Markup(
            '<g class="{}"><title>{}, {:.3g} % of the labels: {:.3f} ± {:.3f}</title>{}'
            '<circle cx="{:.2f}%" cy="{:.1f}" r="3.5"/></g>'
        ).format(
            look,
            curve.encoder,
            100 * each.fraction,
            each.mean,
            each.spread,
            line("spread", (at, at), (ends[0], ends[1])),
            at,
            y,
        )


def _across(value: float, across: list[float]) -> float:
    """Gives a horizontal position in percent, with room for figures on the left."""
    return _LEFT + (98.5 - _LEFT) * fraction(value, across)


def _height(value: float, ticks: list[float]) -> float:
    return LABEL_PX + _PLOT_PX * (1 - fraction(value, ticks))
