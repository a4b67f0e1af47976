import re
import shutil
import struct
from html import unescape

import pytest

from eosin.errors import InputError, UsageError
from eosin.report.html import Config, write_report

ENCODERS = ("resnet18.barlow_twins", "<script>alert(1)</script>", "random/resnet18")
NOTE = "The images are synthetic & <b>drawn</b>."


@pytest.fixture(scope="module")
def report(results, curve_file, picture_file, tmp_path_factory):
    return write_report(
        Config(
            results=(results,),
            out=tmp_path_factory.mktemp("report"),
            title="Two <methods>",
            notes=(NOTE,),
            gallery=(("a <tile>", picture_file),),
            curves=(("run <one>", curve_file),),
        )
    )


@pytest.fixture(scope="module")
def page(report):
    return report.html.read_text()


def visible(html):
    """The text of a page, without markup, script and style."""
    body = re.sub(r"<(script|style).*?</\1>", " ", html, flags=re.DOTALL)
    return unescape(
        re.sub(r"\s+", " ", re.sub(r"<(?!/?wbr)[^>]*>", " ", body).replace("<wbr>", ""))
    )


def with_script(page, path, script):
    """Writes a copy that also runs a script of the test, which the page's own policy forbids."""
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page)
    path.write_text(page.replace("</body>", f"<script>{script}</script></body>"))
    return path


def test_both_files_are_written_and_nothing_else(report):
    assert sorted(file.name for file in report.html.parent.iterdir()) == ["index.html", "report.md"]
    assert (report.html.name, report.markdown.name) == ("index.html", "report.md")


def test_the_page_says_who_is_better_and_shows_every_interval(report, page):
    text = visible(page)
    comparison = report.comparison
    assert len(comparison.cells) == 16
    for cell in comparison.cells.values():
        metric = cell.metric
        assert f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]" in text
        for difference in cell.versus.values():
            assert f"{difference.value:+.3f} vs".replace("-", "−") in text
    assert "resnet18.barlow_twins has the highest balanced accuracy" in text
    assert "Its lead over colour_histogram" in text
    assert "is real" in text


def test_the_page_holds_where_its_figures_come_from(page):
    text = visible(page)
    for fact in ("aaaaaaaaaaaa", "bbbbbbbbbbbb", "strict v1", "1,234", "a CPU, 2 cores"):
        assert fact in text
    for fact in ("torch 2.14", "resize 64", "bf16", "split folds of train, C 0.3", "2026-01-01"):
        assert fact in text


def test_notes_are_shown_as_written(page):
    assert NOTE in visible(page)


def test_the_page_loads_nothing(page):
    sources = re.findall(r"""\b(?:src|href|srcset|action|data)\s*=\s*["']?([^"'\s>]*)""", page)
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    for loading in ("url(", "@import", "<link", "<iframe", "fetch(", "http:", "https:"):
        assert loading not in page
    assert "default-src 'none'" in page


def test_names_are_never_markup(page):
    assert page.count("<script>") == 1
    assert "<tile>" not in page and "<methods>" not in page and "<one>" not in page
    assert "&lt;script&gt;" in page


def test_markdown_holds_the_same_comparison(report):
    text = report.markdown.read_text()
    assert text.startswith("# Two &lt;methods&gt;\n")
    assert "> **Note:** The images are synthetic &amp; &lt;b&gt;drawn&lt;/b&gt;." in text
    assert "<script" not in text
    for cell in report.comparison.cells.values():
        assert f"{cell.metric.value:.3f} [{cell.metric.low:.3f}" in text
    assert "aaaaaaaaaaaa" in text


def test_a_browser_renders_the_page_without_complaint(report, browse):
    dom, complaints = browse(report.html, "--dump-dom")
    assert complaints == ""
    text = visible(dom)
    for encoder in ENCODERS:
        assert encoder in text
    # The headings become buttons by the page's script: its own policy lets it run.
    assert dom.count("<button") == 1 + len(report.comparison.columns)
    assert dom.count("<svg") >= 3 and dom.count("<img") == 1


def test_a_browser_would_have_complained(page, browse, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace('"use strict";', '"use strict"; // changed'))
    dom, complaints = browse(broken, "--dump-dom")
    assert "Content Security Policy" in complaints
    assert "<button" not in dom


def test_a_click_on_a_heading_sorts_by_it(report, page, browse, tmp_path):
    script = """
    const heading = document.querySelectorAll("table.sortable thead button")[2];
    const order = () => [...document.querySelectorAll("table.sortable tbody tr")]
      .map((row) => row.cells[2].dataset.value).join(" ");
    heading.click(); const down = order(); heading.click();
    document.title = down + "|" + order();
    """
    dom, _ = browse(with_script(page, tmp_path / "sorted.html", script), "--dump-dom")
    match = re.search(r"<title>([^<]*)</title>", dom)
    assert match is not None
    down, up = ([float(value) for value in half.split()] for half in match[1].split("|"))
    values = [
        cell.metric.value for _, cell in report.comparison.ranking(report.comparison.columns[1])
    ]
    assert down == values
    assert up == values[::-1]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_the_width_of_a_phone_and_of_a_desk(page, browse, tmp_path, width):
    # A frame, since the browser's window is never as narrow as a phone.
    script = "parent.postMessage(`${document.documentElement.scrollWidth} ${innerWidth}`, '*')"
    with_script(page, tmp_path / "copy.html", script)
    frame = tmp_path / "frame.html"
    frame.write_text(
        "<title></title><script>onmessage = (message) => { document.title = message.data }</script>"
        f'<iframe src="copy.html" style="border: 0; width: {width}px; height: 900px"></iframe>'
    )
    dom, _ = browse(frame, "--virtual-time-budget=2000", "--dump-dom", width=1400)
    match = re.search(r"<title>(\d+) (\d+)</title>", dom)
    assert match is not None
    assert int(match[1]) <= int(match[2]) == width


def test_a_screenshot_shows_more_than_an_empty_page(report, browse, tmp_path):
    shot = tmp_path / "shot.png"
    browse(report.html, f"--screenshot={shot}", "--hide-scrollbars", width=390, height=1200)
    content = shot.read_bytes()
    assert struct.unpack(">II", content[16:24]) == (390, 1200)
    # An empty page of this size compresses to a few kilobytes.
    assert len(content) > 40_000


def test_another_metric_can_be_reported(results, tmp_path):
    report = write_report(Config(results=(results,), out=tmp_path, metric="auroc"))
    assert "Comparison by AUROC" in report.html.read_text()


def test_a_report_is_written_over_an_older_one(results, tmp_path):
    for title in ("first", "second"):
        report = write_report(Config(results=(results,), out=tmp_path, title=title))
    assert "<h1>second</h1>" in report.html.read_text()


def test_without_curves_and_pictures_their_sections_are_left_out(results, tmp_path):
    report = write_report(Config(results=(results,), out=tmp_path))
    assert "Pictures" not in visible(report.html.read_text())
    assert "Pre-training" not in visible(report.html.read_text())


def test_nothing_is_written_when_an_input_is_bad(results, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=r"absent\.jsonl does not exist"):
        write_report(
            Config(results=(results,), out=out, curves=(("run", tmp_path / "absent.jsonl"),))
        )
    copy = shutil.copytree(results, tmp_path / "copy")
    next(copy.glob("*.parquet")).unlink()
    with pytest.raises(InputError, match="is missing"):
        write_report(Config(results=(copy,), out=out))
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"results": ()}, "No results"), ({"metric": "f2"}, "no metric 'f2'")],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, words):
    with pytest.raises(UsageError, match=words):
        Config(**{"results": (tmp_path,), "out": tmp_path, **options})
