"""The tables that follow a comparison: ranks over data sets, areas of curves, published values."""

from collections.abc import Iterator
from dataclasses import dataclass

from eosin.results.comparison import Comparison
from eosin.results.label_curves import LabelCurve
from eosin.results.wording import (
    METRIC_NAMES,
    rank_text,
    ranking_lines,
    ranking_title,
    shift_text,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextTable:
    """A titled table of text; each row has one cell for each heading."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def more_tables(comparison: Comparison) -> list[TextTable]:
    """Gives the tables that a comparison has beside its own, none where there is nothing to say."""
    return [*_rankings(comparison), *_label_efficiency(comparison), *published_table(comparison)]


def published_table(comparison: Comparison) -> list[TextTable]:
    """Gives the table of published values beside ours, if there are any."""
    sources = list(dict.fromkeys(each.published.source for each in comparison.published))
    rows = tuple(
        (
            each.encoder,
            each.published.dataset,
            f"{each.published.task}, {each.published.protocol}",
            METRIC_NAMES.get(each.published.metric, each.published.metric),
            f"{each.value:.3f}",
            f"{each.published.value:.3f}",
            each.published.split,
            f"[{sources.index(each.published.source) + 1}]",
        )
        for each in comparison.published
    )
    if not rows:
        return []
    return [
        TextTable(
            title="Published values of the same encoder, data set and protocol",
            headings=(
                *("encoder", "data", "task, protocol", "metric", "ours", "published"),
                *("published on", "source"),
            ),
            rows=rows,
            notes=(
                "Published values are shown, never ranked: other code embedded the images, at its "
                "own size and pooling, and no interval or test can be had without predictions.",
                *(f"[{number}] {source}." for number, source in enumerate(sources, start=1)),
            ),
        )
    ]


def _rankings(comparison: Comparison) -> Iterator[TextTable]:
    for ranking in comparison.rankings:
        yield TextTable(
            title=ranking_title(ranking),
            headings=("encoder", "mean rank"),
            rows=tuple((each.encoder, rank_text(each)) for each in ranking.ranks),
            notes=(
                *ranking_lines(ranking),
                "Intervals are 95 %, resampling the test groups of each data set.",
            ),
        )


def _label_efficiency(comparison: Comparison) -> Iterator[TextTable]:
    for found in comparison.curves:
        family = found.family
        yield TextTable(
            title=f"{family.data}, {family.task}, {family.protocol}, {shift_text(found.shift)}: "
            f"{METRIC_NAMES[family.metric]} by part of the labels",
            headings=("encoder", *(f"{each:.3g}" for each in found.fractions), "area"),
            rows=tuple(_curve_row(each, found.fractions) for each in found.curves),
            notes=(
                "Mean ± standard deviation over draws of the labels and seeds; area: mean height "
                "of the curve over the logarithm of the part.",
            ),
        )


def _curve_row(curve: LabelCurve, fractions: tuple[float, ...]) -> tuple[str, ...]:
    points = {each.fraction: each for each in curve.points}
    cells = ["–"] * len(fractions)
    for place, fraction in enumerate(fractions):
        if point := points.get(fraction):
            spread = f" ± {point.spread:.3f}" if point.runs > 1 else ""
            cells[place] = f"{point.mean:.3f}{spread}"
    return curve.encoder, *cells, "–" if curve.area is None else f"{curve.area:.3f}"
