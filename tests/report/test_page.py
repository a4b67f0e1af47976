import pytest

from eosin.report.page import Page, render_html, render_markdown
from eosin.results.comparison import compare_encoders
from eosin.results.files import read_results


@pytest.fixture(scope="module")
def page(results):
    rows = read_results(results)
    return Page(title="T", notes=(), results=rows, comparison=compare_encoders(rows))


def test_names_are_bold_in_sentences_and_minus_signs_are_set(page):
    html = render_html(page)
    assert "<b>resnet18.barlow_twins</b>" in html
    assert "<b>&lt;script&gt;alert(1)&lt;/script&gt;</b>" in html
    assert "stain-shift-v1" in html and "stain−shift" not in html
    assert "[−0." in html and "[-0." not in html


def test_every_family_has_a_section_in_both_forms(page):
    html, text = render_html(page), render_markdown(page)
    assert html.count('<section class="family">') == 2
    for task in ("linear", "knn"):
        assert f"<small>{task}, strict v1</small>" in html
        assert f"## tissue: {task}, strict v1" in text


def test_markdown_tables_have_as_many_cells_in_every_row(page):
    tables = [
        block.splitlines() for block in render_markdown(page).split("\n\n") if block[0] == "|"
    ]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
