import io

import pytest
from rich.console import Console

from eosin.results.comparison import compare_encoders
from eosin.results.files import read_results, write_job
from eosin.results.tables import escape_markdown, print_table, to_markdown, to_rich

HOSTILE = "<script>alert(1)</script>|*x*"


@pytest.fixture
def comparison(tmp_path, make_predictions, make_result):
    for name, quality in (("method", 3.0), (HOSTILE, 2.0), ("colour_histogram", 1.0)):
        for shift in ("none", "stain-shift-v1"):
            predictions = make_predictions(quality, seed=len(name))
            row = make_result(predictions, name=name, shift=shift)
            write_job(tmp_path, [(row, predictions)])
    return compare_encoders(read_results(tmp_path))


def printed(comparison, width, **options):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_table(comparison, console=console, **options)
    return console.file.getvalue()


def test_the_terminal_shows_values_intervals_and_verdicts(comparison):
    text = printed(comparison, 120)
    cell = comparison.cells["method", comparison.columns[0]]
    metric, difference = cell.metric, cell.versus["colour_histogram"]
    assert f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}] a best" in text
    assert f"colour {difference.value:+.3f} real" in text
    assert "linear, strict v1" in text and "stain-shift-v1" in text


def test_notes_come_first(comparison):
    text = printed(comparison, 100, notes=("The images are synthetic.",))
    assert text.startswith("Note: The images are synthetic.\n")


@pytest.mark.parametrize("width", [50, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(comparison, width):
    assert max(map(len, printed(comparison, width).splitlines())) <= width


def test_columns_that_do_not_fit_go_into_another_table(comparison):
    assert len(to_rich(comparison, 200)) == 1
    assert len(to_rich(comparison, 50)) == 2
    assert sum(len(table.columns) - 1 for table in to_rich(comparison, 50)) == 2


def test_markdown_makes_the_best_bold(comparison):
    rows = [line for line in to_markdown(comparison).splitlines() if line.startswith("| ")]
    metric = comparison.cells["method", comparison.columns[0]].metric
    assert f"| **{metric.value:.3f} [" in rows[1]
    assert "**" not in rows[2]


def test_markdown_has_as_many_cells_in_every_row(comparison):
    rows = [line for line in to_markdown(comparison).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {4}


def test_names_are_not_read_as_markdown_or_html(comparison):
    text = to_markdown(comparison)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&#124;\\*x\\*" in text


def test_escaped_text_stays_on_one_line():
    assert escape_markdown("a\n# b_c `d`") == "a # b\\_c \\`d\\`"
