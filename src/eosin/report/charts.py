"""Charts of scores with their intervals, and of training losses."""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from eosin.report.inputs import Curve
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
from eosin.results.columns import Column, Family
from eosin.results.comparison import Comparison
from eosin.results.names import is_baseline
from eosin.results.wording import METRIC_NAMES, interval_text, shift_text

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
    chance = _chance_level(columns[0], family.metric)
    ends = [
        end
        for encoder in order
        for column in columns
        if (cell := comparison.cells.get((encoder, column)))
        for end in (cell.metric.low, cell.metric.high)
    ]
    ticks = ticks_between(min([*ends, *chance]), max(ends), 0.1)
    row_px = LABEL_PX + LANE_PX * len(columns) + GAP_PX
    bottom = row_px * len(order)
    parts = [*_axis(ticks, bottom)]
    for row, encoder in enumerate(order):
        lanes = (row * row_px + LABEL_PX, (row + 1) * row_px - GAP_PX)
        for x in [percent(level, ticks) for level in chance]:
            parts.append(line("chance", (x, x), lanes))
        parts += _row(encoder, columns, comparison, ticks, row * row_px)
    name = METRIC_NAMES[family.metric]
    return svg(parts, bottom + AXIS_PX, f"{family.data}, {family.task}: {name} of each encoder")


def curve(run: Curve) -> Markup:
    """Draws a training loss; long runs are averaged into a few hundred points."""
    updates, losses = _thinned(run)
    # A loss that stands still gets an axis of a thousandth of its height.
    span = max(max(losses) - min(losses), 1e-3 * max(map(abs, losses)), 1e-6)
    ticks = ticks_between(min(losses), max(losses), round_step(span))
    first, last = updates[0], max(updates[-1], updates[0] + 1)
    points = [
        ((update - first) / (last - first), fraction(loss, ticks))
        for update, loss in zip(updates, losses, strict=True)
    ]
    parts: list[Markup] = []
    for tick in ticks:
        y = LABEL_PX + _CURVE_PX * (1 - fraction(tick, ticks))
        parts.append(line("grid", (0, 100), (y, y)))
        parts.append(text(100, y - 4, f"{tick:g}", "tick end"))
    parts.append(polyline("loss", points, LABEL_PX, _CURVE_PX))
    below = LABEL_PX + _CURVE_PX + 18
    parts.append(text(0, below, f"update {run.updates[0]:,}", "tick"))
    parts.append(text(100, below, f"{run.updates[-1]:,}", "tick end"))
    return svg(parts, below + 8, f"Training loss of {run.name}")


def _row(
    encoder: str,
    columns: Sequence[Column],
    comparison: Comparison,
    ticks: Sequence[float],
    top: float,
) -> Iterable[Markup]:
    yield text(0, top + 13, encoder, "name baseline" if is_baseline(encoder) else "name")
    values: list[str] = []
    for lane, column in enumerate(columns):
        cell = comparison.cells.get((encoder, column))
        values.append("–" if cell is None else f"{cell.metric.value:.3f}")
        if cell is None:
            continue
        metric = cell.metric
        y = top + LABEL_PX + LANE_PX * (lane + 0.5)
        yield Markup(
            '<g class="lane{}"><title>{}, {}: {}</title>{}<circle cx="{:.2f}%" cy="{}" r="4"/></g>'
        ).format(
            min(lane, 1),
            encoder,
            shift_text(column.shift),
            interval_text(metric),
            line("interval", (percent(metric.low, ticks), percent(metric.high, ticks)), (y, y)),
            percent(metric.value, ticks),
            y,
        )
    yield text(100, top + 13, " / ".join(values), "value end")


def _axis(ticks: Sequence[float], bottom: float) -> Iterable[Markup]:
    for tick in ticks:
        x = percent(tick, ticks)
        yield line("grid", (x, x), (0, bottom))
        yield text(x, bottom + 17, f"{tick:.1f}", "tick middle")


def _chance_level(column: Column, metric: str) -> list[float]:
    levels = {"balanced_accuracy": 1 / len(column.classes), "auroc": 0.5}
    return [levels[metric]] if metric in levels else []


def _thinned(run: Curve) -> tuple[list[float], list[float]]:
    size = math.ceil(len(run.updates) / _CURVE_POINTS)
    starts = range(0, len(run.updates), size)

    def means(values: Sequence[float]) -> list[float]:
        chunks = [values[start : start + size] for start in starts]
        return [sum(chunk) / len(chunk) for chunk in chunks]

    return means(run.updates), means(run.losses)
