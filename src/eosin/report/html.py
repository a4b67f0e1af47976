"""Writes the report of result folders: one self-contained page, and the same as Markdown."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eosin.atomic import write_text
from eosin.errors import UsageError
from eosin.report.inputs import read_curve, read_picture
from eosin.report.nuclei import nuclei_pictures, nuclei_tables
from eosin.report.page import Page, render_html, render_markdown
from eosin.results.comparison import DEFAULT_METRIC, Comparison, compare_encoders
from eosin.results.files import read_results
from eosin.results.statistics import METRICS


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What to report and where to put it."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Result folders (with all folders below) or row files; rows are merged."""
    out: Path
    """Folder that `index.html` and `report.md` are written to."""
    title: str = "Comparison of encoders"
    """Heading of the page."""
    notes: tuple[str, ...] = ()
    """What a reader must know first, such as that the images are synthetic; shown as a banner."""
    metric: str = DEFAULT_METRIC
    """What to compare by: accuracy, balanced_accuracy, macro_f1 or auroc; instances by pq, or by
    dice, aji, aji_plus, dq, sq, mpq, mpq_plus, f_detection or f_type."""
    gallery: tuple[tuple[str, Path], ...] = ()
    """Pictures to show: title and PNG or JPEG file."""
    curves: tuple[tuple[str, Path], ...] = ()
    """Training curves to show: name of the run and its log of JSON lines."""

    def __post_init__(self) -> None:
        if not self.results:
            raise UsageError("No results to report; give the folder that eosin evaluate wrote.")
        if self.metric not in METRICS:
            raise UsageError(
                f"There is no metric {self.metric!r}; choose one of {', '.join(METRICS)}."
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Where a report lies, and what it compares."""

    html: Path
    markdown: Path
    comparison: Comparison


def write_report(config: Config) -> Report:
    """Writes `index.html`, one page that loads nothing, and `report.md`.

    Raises:
        InputError: results, predictions, a picture or a curve cannot be read.
    """
    results = read_results(config.results)
    comparison = compare_encoders(results, config.metric)
    page = Page(
        title=config.title,
        notes=config.notes,
        results=results,
        comparison=comparison,
        curves=[read_curve(name, path) for name, path in config.curves],
        pictures=[
            *nuclei_pictures(results),
            *(read_picture(title, path) for title, path in config.gallery),
        ],
        tables=nuclei_tables(results),
    )
    report = Report(
        html=config.out / "index.html",
        markdown=config.out / "report.md",
        comparison=comparison,
    )
    write_text(report.html, render_html(page))
    write_text(report.markdown, render_markdown(page))
    return report
