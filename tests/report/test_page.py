from dataclasses import replace

import pytest

from eosin.report.page import Page, render_html, render_markdown
from eosin.results.comparison import compare_encoders
from eosin.results.files import read_predictions, read_results, write_job


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


@pytest.fixture(scope="module")
def wide_page(results, tmp_path_factory):
    """A second data set, two parts of the labels, and one encoder that others published."""
    name = "vit_small_patch16.lunit_dino"
    rows = []
    folder = tmp_path_factory.mktemp("wide")
    for row in read_results(results):
        if row.task != "linear" or row.data.shift != "none":
            continue
        encoder = row.encoder
        if encoder.name == "resnet18.barlow_twins":
            encoder = replace(encoder, name=name)
        for data in ("bach", "crc"):
            for fraction in (0.1, 1.0):
                stamp = replace(row.data, name=data)
                protocol = replace(row.protocol, id="eva-2025-03")
                changes = {"data": stamp, "label_fraction": fraction, "protocol": protocol}
                changed = replace(row, encoder=encoder, row_id="", **changes)
                rows.append((changed, read_predictions(row)))
    write_job(folder, rows)
    read = read_results(folder)
    return Page(title="T", notes=(), results=read, comparison=compare_encoders(read))


def test_ranks_curves_and_published_values_have_sections_in_both_forms(wide_page):
    html, text = render_html(wide_page), render_markdown(wide_page)
    for heading in ("Ranks over data sets", "Label efficiency", "Published values"):
        assert heading in html
    assert "critical difference" in html
    assert html.count('<polyline class="labels') == 8
    assert "kaiko-ai/eva@73b61a79" in html and "kaiko-ai/eva@73b61a79" in text
    assert "eva val (132 img)" in html and "0.783" in html
    assert "mean rank over bach, crc" in text
    assert "by part of the labels" in text
    assert "<script>alert" not in html and "<script" not in text


def test_without_them_their_sections_are_left_out(page):
    html = render_html(page)
    for heading in ("Ranks over data sets", "Label efficiency", "Published values"):
        assert heading not in html


def test_letters_and_what_a_column_resolves_are_shown(page):
    html = render_html(page)
    assert '<span class="letters">a</span>' in html
    column = page.comparison.columns[0]
    resolved = page.comparison.resolutions[column].observed
    assert f"resolves {resolved:.3f}" in html
    assert "Holm" in html
