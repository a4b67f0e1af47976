"""What a comparison says, in sentences."""

from collections.abc import Iterable, Sequence

from eosin.results.columns import Column, Family
from eosin.results.comparison import Cell, Comparison
from eosin.results.names import COLOUR_BASELINE, RANDOM_PREFIX, is_baseline
from eosin.results.permutation import smallest_p_value
from eosin.results.statistics import LEVEL
from eosin.results.wording import (
    METRIC_NAMES,
    difference_text,
    interval_text,
    rank_text,
    ranking_setting,
)

_FEW_GROUPS = 20


def summarise(comparison: Comparison) -> list[str]:
    """Says for each encoder where it stands and which baselines it beats, a protocol at a time."""
    candidates = [each for each in comparison.encoders if not is_baseline(each)]
    if not comparison.encoders:
        return [f"No row gives the {METRIC_NAMES[comparison.metric]}."]
    if not candidates:
        return ["Only baselines were measured."]
    protocols = list(dict.fromkeys(column.family.protocol for column in comparison.columns))
    said: list[str] = []
    for protocol in protocols:
        columns = [each for each in comparison.columns if each.family.protocol == protocol]
        start = f"By {protocol}, " if len(protocols) > 1 else ""
        for encoder in candidates:
            cells = [
                comparison.cells[encoder, column]
                for column in columns
                if (encoder, column) in comparison.cells
            ]
            said += [start + _over_columns(encoder, cells)] if cells else []
    return said


def describe_rankings(comparison: Comparison) -> list[str]:
    """Says which encoders have the best mean rank over several data sets."""
    said: list[str] = []
    for ranking in comparison.rankings:
        best = ranking.ranks[0]
        first = [each.encoder for each in ranking.ranks if each.value == best.value]
        comes = "has" if len(first) == 1 else "have"
        said.append(
            f"By {ranking_setting(ranking)}, {_listed(first, 'and')} {comes} the best mean rank "
            f"over {len(ranking.data)} data sets, {rank_text(best)} of {len(ranking.ranks)}."
        )
    return said


def describe(family: Family, comparison: Comparison) -> list[str]:
    """Says for one data set, task and protocol which encoder is best and what is resolved."""
    sentences: list[str] = []
    columns = [column for column in comparison.columns if column.family == family]
    for column in columns:
        ranking = comparison.ranking(column)
        sentences.append(" ".join(_leader(column, ranking, family.metric)))
        sentences.extend(_not_beaten(ranking))
        sentences.extend(_cost_of_shift(column, ranking))
        sentences.extend(_resolved(column, ranking, comparison))
    if columns[0].n_groups == columns[0].n_test:
        sentences.append(
            "Each test image is a group of its own here: if several come from one patient, the "
            "intervals are too narrow."
        )
    elif columns[0].n_groups < _FEW_GROUPS:
        sentences.append(
            f"There are only {columns[0].n_groups} test groups (patients, slides, source images): "
            "intervals from so few are rough."
        )
    return sentences


def _over_columns(encoder: str, cells: Sequence[Cell]) -> str:
    top = sum(cell.behind is None or not cell.behind.is_real for cell in cells)
    said = [f"{encoder} is best or tied with the best in {top} of {_counted(len(cells), 'column')}"]
    for words, is_colour in (
        ("random weights of its architecture", False),
        ("the colour histogram", True),
    ):
        differences = [
            difference
            for cell in cells
            for name, difference in cell.versus.items()
            if (name == COLOUR_BASELINE) == is_colour
        ]
        better = sum(each.is_real and each.value > 0 for each in differences)
        worse = sum(each.is_real and each.value < 0 for each in differences)
        if differences:
            said.append(
                f"really better than {words} in {better} of {len(differences)}"
                + (f" and really worse in {worse}" if worse else "")
            )
    return "; ".join(said) + "."


def _leader(column: Column, ranking: list[tuple[str, Cell]], metric: str) -> Iterable[str]:
    where = "images as they are" if column.shift == "none" else f"{column.shift} images"
    best, cell = ranking[0]
    yield (
        f"On {where}, {best} has the highest {METRIC_NAMES[metric]}: {interval_text(cell.metric)}."
    )
    if len(ranking) == 1:
        return
    second, behind = ranking[1][0], ranking[1][1].behind
    if behind is not None:
        yield f"Its lead over {second}, {difference_text(behind)}, is {behind.verdict}."
    tied = [name for name, each in ranking[2:] if each.behind and not each.behind.is_real]
    if tied:
        yield f"Nor is its lead over {_listed(tied, 'or')}."


def _not_beaten(ranking: list[tuple[str, Cell]]) -> Iterable[str]:
    for words, is_colour in (
        ("the colour histogram", True),
        ("random weights of the same architecture", False),
    ):
        names = [
            encoder
            for encoder, cell in ranking
            if not is_baseline(encoder)
            and any(
                not (difference.is_real and difference.value > 0)
                for name, difference in cell.versus.items()
                if (name == COLOUR_BASELINE) == is_colour
            )
        ]
        if names:
            yield f"Not shown to be better than {words}: {_listed(names, 'and')}."


def _cost_of_shift(column: Column, ranking: list[tuple[str, Cell]]) -> Iterable[str]:
    changes = [
        f"{encoder} {difference_text(cell.versus_clean)}"
        + ("" if cell.versus_clean.is_real else " (not resolved)")
        for encoder, cell in ranking
        if cell.versus_clean is not None and not encoder.startswith(RANDOM_PREFIX)
    ]
    if changes:
        yield f"What {column.shift} changes: {', '.join(changes)}."


def _resolved(
    column: Column, ranking: list[tuple[str, Cell]], comparison: Comparison
) -> Iterable[str]:
    """Says which differences the test set shows at all, where there is something to compare."""
    found = comparison.resolutions.get(column)
    if found is None or found.observed is None:
        return
    pairs = len(ranking) * (len(ranking) - 1) // 2
    if pairs * smallest_p_value(column.n_groups) >= 1 - LEVEL:
        yield (
            f"With {_counted(column.n_groups, 'test group')} and {_counted(pairs, 'pair')} of "
            "encoders no difference can be called real, however large it is."
        )
    elif column.shift == "none":
        planned = ""
        if found.before is not None:
            planned = f"; from their number alone, {found.before:.3f} was to be expected"
        yield (
            f"One test on {column.n_test:,} images in {column.n_groups:,} groups shows a "
            f"difference of {found.observed:.3f} in four of five cases{planned}."
        )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _listed(names: list[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"
