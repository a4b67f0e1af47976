"""Charts as SVG text, without a plotting library.

Horizontal positions are percentages and type has a size in pixels, so a chart fills whatever width
it is given and stays readable on a phone. Colours come from the page's style sheet through classes.
"""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from eosin.report.inputs import Curve
from eosin.results.comparison import Column, Comparison, Family, is_baseline
from eosin.results.wording import METRIC_NAMES, interval_text

_LEFT, _WIDTH = 1.5, 97.0  # Percent of the chart's width.
_LABEL_PX, _LANE_PX, _GAP_PX, _AXIS_PX = 18, 13, 12, 26
_CURVE_PX, _CURVE_POINTS = 170, 400


def intervals(family: Family, comparison: Comparison) -> Markup:
    """Draws every encoder's value and interval, one lane for each state of the test images."""
    columns = [column for column in comparison.columns if column.family == family]
    order = [encoder for encoder, _ in comparison.ranking(columns[0])]
    order += [
        encoder
        for encoder in comparison.encoders
        if encoder not in order and any((encoder, column) in comparison.cells for column in columns)
    ]
    chance = _chance_level(columns[0], comparison.metric)
    ends = [
        end
        for encoder in order
        for column in columns
        if (cell := comparison.cells.get((encoder, column)))
        for end in (cell.metric.low, cell.metric.high)
    ]
    ticks = _ticks(min([*ends, *chance]), max(ends), 0.1)
    row_px = _LABEL_PX + _LANE_PX * len(columns) + _GAP_PX
    bottom = row_px * len(order)
    parts = [*_axis(ticks, bottom)]
    for row, encoder in enumerate(order):
        lanes = (row * row_px + _LABEL_PX, (row + 1) * row_px - _GAP_PX)
        for x in [_percent(level, ticks) for level in chance]:
            parts.append(_line("chance", (x, x), lanes))
        parts += _row(encoder, columns, comparison, ticks, row * row_px)
    name = METRIC_NAMES[comparison.metric]
    return _svg(parts, bottom + _AXIS_PX, f"{family.data}, {family.task}: {name} of each encoder")


def curve(run: Curve) -> Markup:
    """Draws a training loss; long runs are averaged into a few hundred points."""
    updates, losses = _thinned(run)
    # A loss that stands still gets an axis of a thousandth of its height.
    span = max(max(losses) - min(losses), 1e-3 * max(map(abs, losses)), 1e-6)
    ticks = _ticks(min(losses), max(losses), _round_step(span))
    first, last = updates[0], max(updates[-1], updates[0] + 1)
    points = " ".join(
        f"{1000 * (update - first) / (last - first):.1f},{1000 * (1 - _fraction(loss, ticks)):.1f}"
        for update, loss in zip(updates, losses, strict=True)
    )
    parts: list[Markup] = []
    for tick in ticks:
        y = _LABEL_PX + _CURVE_PX * (1 - _fraction(tick, ticks))
        parts.append(_line("grid", (0, 100), (y, y)))
        parts.append(_text(100, y - 4, f"{tick:g}", "tick end"))
    parts.append(
        Markup(
            '<svg x="0" y="{}" width="100%" height="{}" viewBox="0 0 1000 1000" '
            'preserveAspectRatio="none"><polyline class="loss" points="{}"/></svg>'
        ).format(_LABEL_PX, _CURVE_PX, points)
    )
    below = _LABEL_PX + _CURVE_PX + 18
    parts.append(_text(0, below, f"update {run.updates[0]:,}", "tick"))
    parts.append(_text(100, below, f"{run.updates[-1]:,}", "tick end"))
    return _svg(parts, below + 8, f"Training loss of {run.name}")


def _row(
    encoder: str,
    columns: Sequence[Column],
    comparison: Comparison,
    ticks: Sequence[float],
    top: float,
) -> Iterable[Markup]:
    yield _text(0, top + 13, encoder, "name baseline" if is_baseline(encoder) else "name")
    values: list[str] = []
    for lane, column in enumerate(columns):
        cell = comparison.cells.get((encoder, column))
        values.append("–" if cell is None else f"{cell.metric.value:.3f}")
        if cell is None:
            continue
        metric = cell.metric
        y = top + _LABEL_PX + _LANE_PX * (lane + 0.5)
        shift = "images as they are" if column.shift == "none" else column.shift
        yield Markup(
            '<g class="lane{}"><title>{}, {}: {}</title>{}<circle cx="{:.2f}%" cy="{}" r="4"/></g>'
        ).format(
            min(lane, 1),
            encoder,
            shift,
            interval_text(metric),
            _line("interval", (_percent(metric.low, ticks), _percent(metric.high, ticks)), (y, y)),
            _percent(metric.value, ticks),
            y,
        )
    yield _text(100, top + 13, " / ".join(values), "value end")


def _axis(ticks: Sequence[float], bottom: float) -> Iterable[Markup]:
    for tick in ticks:
        x = _percent(tick, ticks)
        yield _line("grid", (x, x), (0, bottom))
        yield _text(x, bottom + 17, f"{tick:.1f}", "tick middle")


def _chance_level(column: Column, metric: str) -> list[float]:
    levels = {"balanced_accuracy": 1 / len(column.classes), "auroc": 0.5}
    return [levels[metric]] if metric in levels else []


def _ticks(low: float, high: float, step: float) -> list[float]:
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * tick, 10) for tick in range(first, max(last, first + 1) + 1)]


def _round_step(span: float) -> float:
    """Returns 1, 2 or 5 times a power of ten, so that a span has three to seven steps."""
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * 0.999)


def _fraction(value: float, ticks: Sequence[float]) -> float:
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def _percent(value: float, ticks: Sequence[float]) -> float:
    return _LEFT + _WIDTH * _fraction(value, ticks)


def _thinned(run: Curve) -> tuple[list[float], list[float]]:
    size = math.ceil(len(run.updates) / _CURVE_POINTS)
    starts = range(0, len(run.updates), size)

    def means(values: Sequence[float]) -> list[float]:
        chunks = [values[start : start + size] for start in starts]
        return [sum(chunk) / len(chunk) for chunk in chunks]

    return means(run.updates), means(run.losses)


def _line(kind: str, x_percent: tuple[float, float], y: tuple[float, float]) -> Markup:
    return Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>').format(
        kind, *x_percent, *y
    )


def _text(x_percent: float, y: float, text: str, classes: str) -> Markup:
    return Markup('<text x="{:.2f}%" y="{:.1f}" class="{}">{}</text>').format(
        x_percent, y, classes, text
    )


def _svg(parts: Iterable[Markup], height: float, title: str) -> Markup:
    return Markup(
        '<svg class="chart" width="100%" height="{:.0f}" role="img"><title>{}</title>{}</svg>'
    ).format(height, title, Markup("\n").join(parts))
