"""Turns what a report holds into HTML and Markdown."""

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files

import jinja2
from markupsafe import Markup, escape

from eosin.report import charts, more_charts
from eosin.report.inputs import Curve, Picture
from eosin.report.records import list_records
from eosin.results.columns import Family
from eosin.results.comparison import Comparison
from eosin.results.findings import describe, describe_rankings, summarise
from eosin.results.more_tables import TextTable, published_table
from eosin.results.names import is_baseline
from eosin.results.schema import Result
from eosin.results.tables import escape_markdown, legend, markdown_table, to_markdown
from eosin.results.wording import (
    METRIC_NAMES,
    baseline_word,
    column_lines,
    rank_text,
    ranking_title,
    resolution_text,
    shift_text,
    standing,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What a report shows."""

    title: str
    notes: Sequence[str]
    results: Sequence[Result]
    comparison: Comparison
    curves: Sequence[Curve] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[TextTable] = ()


def render_html(page: Page) -> str:
    """Renders one page that holds all it shows: styles, script, charts and pictures.

    Its content security policy lets it load nothing and run its own script alone.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["signed"] = _with_minus_signs
    environment.filters["said"] = functools.partial(_with_names, page.comparison.encoders)
    environment.filters["breakable"] = _with_places_to_break
    script = _packaged("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.from_string(_packaged("page.html.j2")).render(
        page=page,
        comparison=page.comparison,
        metric=METRIC_NAMES[page.comparison.metric],
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        summary=[*summarise(page.comparison), *describe_rankings(page.comparison)],
        families=[
            (family, describe(family, page.comparison), charts.intervals(family, page.comparison))
            for family in _families(page.comparison)
        ],
        rankings=[
            (ranking, more_charts.critical_difference(ranking))
            for ranking in page.comparison.rankings
        ],
        label_curves=[
            (found, more_charts.label_efficiency(found, found.family.metric))
            for found in page.comparison.curves
        ],
        tables=[*published_table(page.comparison), *page.tables],
        curves=[(run.name, charts.curve(run)) for run in page.curves],
        records=list_records(page.results),
        legend=legend(page.comparison),
        style=Markup(_packaged("page.css")),
        script=Markup(script),
        script_sha256=digest,
        metric_names=METRIC_NAMES,
        column_lines=column_lines,
        baseline_word=baseline_word,
        is_baseline=is_baseline,
        standing=standing,
        resolution_text=resolution_text,
        ranking_title=ranking_title,
        rank_text=rank_text,
        shift_text=shift_text,
        curve_class=more_charts.curve_class,
    )


def render_markdown(page: Page) -> str:
    """Renders the same report as Markdown, without charts and pictures."""
    comparison = page.comparison
    parts = [f"# {escape_markdown(page.title)}"]
    parts += [f"> **Note:** {escape_markdown(note)}" for note in page.notes]
    summary = [*summarise(comparison), *describe_rankings(comparison)]
    parts.append("\n".join(f"- {escape_markdown(each)}" for each in summary))
    parts.append(to_markdown(comparison))
    for family in _families(comparison):
        parts.append(f"## {escape_markdown(f'{family.data}: {family.task}, {family.protocol}')}")
        parts.append("\n".join(f"- {escape_markdown(e)}" for e in describe(family, comparison)))
    parts += [markdown_table(table) for table in page.tables]
    parts += [markdown_table(record) for record in list_records(page.results)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _families(comparison: Comparison) -> list[Family]:
    return list(dict.fromkeys(column.family for column in comparison.columns))


def _with_minus_signs(text: str) -> str:
    """Sets a minus sign for the hyphen of a negative number; hyphens in names stay."""
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


def _with_names(encoders: Sequence[str], sentence: str) -> Markup:
    """Escapes a sentence, sets its minus signs and makes the names of encoders bold."""
    names = sorted(map(str, map(escape, encoders)), key=len, reverse=True)
    alone = rf"(?<![\w./-])({'|'.join(map(re.escape, names))})(?![\w/-])"
    return Markup(re.sub(alone, r"<b>\1</b>", str(escape(_with_minus_signs(sentence)))))


def _with_places_to_break(name: str) -> Markup:
    """Lets a long encoder name break after its punctuation."""
    return Markup(re.sub(r"([._/:]|-)", r"\1<wbr>", str(escape(name))))


def _packaged(name: str) -> str:
    return (files("eosin.report") / name).read_text(encoding="utf-8")
