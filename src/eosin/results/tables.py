"""A comparison as text: for the terminal and as Markdown."""

import re
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from eosin.results.columns import Column
from eosin.results.comparison import Cell, Comparison
from eosin.results.findings import summarise
from eosin.results.more_tables import TextTable, more_tables
from eosin.results.wording import (
    METRIC_NAMES,
    baseline_word,
    column_lines,
    interval_text,
    resolution_text,
    standing,
)

_NAME_WIDTH = 18
_CELL_WIDTH = 29


def print_table(
    comparison: Comparison, notes: tuple[str, ...] = (), console: Console | None = None
) -> None:
    """Prints notes, the table and what it says, as wide as the terminal."""
    console = console or Console()
    for note in notes:
        console.print(Text(f"Note: {note}", style="bold"))
    for table in to_rich(comparison, console.width):
        console.print(table)
    for sentence in summarise(comparison):
        console.print(Text(sentence))
    console.print(Text(legend(comparison), style="dim"))
    for table in more_tables(comparison):
        console.print(_rich_text_table(table))
        console.print(Text(" ".join(table.notes), style="dim"))


def to_rich(comparison: Comparison, width: int = 100) -> list[Table]:
    """Returns tables for the terminal: as many columns side by side as `width` characters hold."""
    side_by_side = max(1, (width - _NAME_WIDTH) // _CELL_WIDTH)
    starts = range(0, len(comparison.columns), side_by_side)
    return [
        _rich_table(comparison, comparison.columns[start : start + side_by_side])
        for start in starts
    ]


def to_markdown(comparison: Comparison) -> str:
    """Returns the comparison as a Markdown table with its legend, and the tables that follow it."""
    titles = [
        "<br>".join(escape_markdown(line) for line in _title_lines(column, comparison))
        for column in comparison.columns
    ]
    lines = [
        f"| encoder | {' | '.join(titles)} |",
        f"|---|{'---|' * len(titles)}",
    ]
    for encoder in comparison.encoders:
        cells = [
            _markdown_cell(comparison.cells.get((encoder, column))) for column in comparison.columns
        ]
        lines.append(f"| {escape_markdown(encoder)} | {' | '.join(cells)} |")
    more = [f"\n{markdown_table(table)}" for table in more_tables(comparison)]
    return "\n".join([*lines, "", legend(comparison), *more]) + "\n"


def markdown_table(content: TextTable) -> str:
    """Returns a table of text as Markdown, below its title as a heading."""
    lines = [content.headings, ("---",) * len(content.headings)]
    lines += [tuple(escape_markdown(cell) for cell in row) for row in content.rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = " ".join(escape_markdown(note) for note in content.notes)
    return f"## {escape_markdown(content.title)}\n\n{table}\n\n{notes}".strip()


def legend(comparison: Comparison) -> str:
    """Says in one paragraph how to read the table."""
    name = METRIC_NAMES[comparison.metric]
    return (
        f"{name[0].upper()}{name[1:]} with its 95 % interval. Encoders of a column that share a "
        "letter were not told apart; 'tied': not told apart from the best. 'random' and 'colour': "
        "the difference to random weights of the same architecture and to a colour histogram. A "
        "difference is real when its p-value is below 0.05: by a paired permutation test that "
        "exchanges whole test groups, after Holm's correction over all pairs of the column. "
        "'resolves': the difference that one such test shows in four of five cases. Intervals "
        "resample the test groups (patients, slides, source images), without a correction; they do "
        "not cover another training run. Columns of other protocols are other quantities."
    )


def _rich_table(comparison: Comparison, columns: tuple[Column, ...]) -> Table:
    table = Table(title=METRIC_NAMES[comparison.metric], show_lines=True, title_justify="left")
    table.add_column(Text("encoder"), overflow="fold", max_width=_NAME_WIDTH)
    for column in columns:
        table.add_column(Text("\n".join(_title_lines(column, comparison))), no_wrap=False)
    for encoder in comparison.encoders:
        cells = [comparison.cells.get((encoder, column)) for column in columns]
        table.add_row(Text(_broken(encoder)), *(_rich_cell(cell) for cell in cells))
    return table


def _rich_text_table(content: TextTable) -> Table:
    table = Table(title=Text(content.title), title_justify="left")
    for heading in content.headings:
        table.add_column(Text(heading), overflow="fold")
    for row in content.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _title_lines(column: Column, comparison: Comparison) -> list[str]:
    lines = [*column_lines(column, comparison), resolution_text(column, comparison)]
    return [line for line in lines if line]


def _broken(name: str) -> str:
    """Breaks a long name into lines after its punctuation."""
    lines = [""]
    for part in re.split(r"(?<=[._/-])", name):
        if lines[-1] and len(lines[-1]) + len(part) > _NAME_WIDTH:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _rich_cell(cell: Cell | None) -> Text:
    if cell is None:
        return Text("not measured", style="dim")
    first, *rest = _cell_lines(cell)
    text = Text(first, style="bold" if cell.behind is None else "")
    for line in rest:
        text.append(f"\n{line}", style="not bold dim")
    return text


def _markdown_cell(cell: Cell | None) -> str:
    if cell is None:
        return "not measured"
    first, *rest = _cell_lines(cell)
    return "<br>".join([f"**{first}**" if cell.behind is None else first, *rest])


def _cell_lines(cell: Cell) -> Iterator[str]:
    runs = f"({cell.runs} runs)" if cell.runs > 1 else ""
    parts = [interval_text(cell.metric), runs, cell.letters, standing(cell)]
    yield " ".join(part for part in parts if part)
    for name, difference in cell.versus.items():
        yield f"{baseline_word(name)} {difference.value:+.3f} {difference.verdict}"


def escape_markdown(text: str) -> str:
    """Keeps a name from being read as Markdown or HTML."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
        text = text.replace(character, entity)
    for character in "\\`*_[]":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
