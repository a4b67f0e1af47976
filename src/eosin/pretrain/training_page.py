"""The page of a pre-training run: its curves, its settings and what is wrong with it, if anything.

One file that loads nothing, written again and again while the run goes on.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from eosin import atomic
from eosin.engine.checkpoint import list_checkpoints
from eosin.engine.log import read_log
from eosin.errors import InputError
from eosin.pretrain.diagnosis import Line, best_update, diagnose
from eosin.pretrain.training_charts import Chart, Series, draw, read_series

PAGE = "training.html"
_HIDDEN = {"update", "skipped"}


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """What is drawn together: metrics by name, or all whose names begin so."""

    title: str
    note: str
    names: tuple[str, ...]
    unit: str = ""
    factor: float = 1.0


_PANELS = (
    _Panel(title="Loss", note="Mean of the updates since the line before.", names=("loss",)),
    _Panel(
        title="Labelled images",
        note="Accuracy on held-out labelled images: 20 nearest neighbours, the same averaged over "
        "the classes, and a linear probe.",
        names=("knn", "knn_balanced", "linear"),
    ),
    _Panel(
        title="RankMe",
        note="Directions that the embeddings use; a fall to a few is a collapse of dimensions.",
        names=("rankme",),
    ),
    _Panel(
        title="Spread of embeddings",
        note="1: in all directions; 0: all tiles get the same embedding.",
        names=("embedding_std",),
    ),
    _Panel(
        title="Alignment",
        note="Squared distance of two views of a tile; lower is closer.",
        names=("alignment",),
    ),
    _Panel(
        title="Uniformity",
        note="Log potential of different tiles; lower is more evenly spread.",
        names=("uniformity",),
    ),
    _Panel(
        title="Teacher's outputs",
        note="Entropy at its maximum or at 0, or divergence at 0, is a collapse.",
        names=("teacher_entropy", "divergence"),
    ),
    _Panel(
        title="Loss as a share of a collapsed model's",
        note="1 is a model that tells no tiles apart.",
        names=("loss_share",),
    ),
    _Panel(title="Learning rate", note="Of each group of parameters.", names=("lr/",)),
    _Panel(title="Weight decay", note="Of each group of parameters.", names=("weight_decay/",)),
    _Panel(title="Tiles a second", note="Over all processes.", names=("tiles_per_s",)),
    _Panel(
        title="Waiting for data",
        note="Share of the time; more workers help where it is high.",
        names=("data_wait",),
        unit=" %",
        factor=100.0,
    ),
)


def write_training_page(folder: Path) -> Path:
    """Writes `training.html` into a run's folder, from its `run.json` and `log.jsonl`.

    `run.json` has the run's `config` and `provenance`, and under `plan`, where it is known,
    `updates`, `batch_size`, `chance_loss` and `directions` (see `eosin.pretrain.diagnosis`).

    Returns:
        The page.

    Raises:
        InputError: the folder holds no run.
    """
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        lines = read_log(folder / "log.jsonl")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no pre-training run that can be read ({error}); give the --out of "
            "eosin pretrain."
        ) from None
    page = folder / PAGE
    atomic.write_text(page, _render(folder, run, lines))
    return page


def _render(folder: Path, run: Mapping[str, Any], lines: Sequence[Line]) -> str:
    charts = _charts(lines)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = _packaged("training_page.js")
    # In a data block nothing ends it but its own end tag.
    data = json.dumps([chart.data() for chart in charts]).replace("<", "\\u003c")
    plan = run.get("plan", {})
    return environment.from_string(_packaged("training_page.html.j2")).render(
        name=folder.resolve().name,
        method=run.get("method_name", ""),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        diagnosis=_diagnosis(lines, plan),
        has_lines=bool(lines),
        facts=_facts(folder, lines, plan),
        charts=[(chart, draw(chart, number)) for number, chart in enumerate(charts)],
        tables=[
            (title, list(_flat(run.get(key, {})).items()))
            for title, key in (("Settings", "config"), ("Plan", "plan"), ("Made by", "provenance"))
            if run.get(key)
        ],
        style=Markup(_packaged("training_page.css")),
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(data),
    )


def _diagnosis(lines: Sequence[Line], plan: Mapping[str, Any]) -> str:
    if not lines:
        return ""
    return diagnose(
        lines,
        updates=plan.get("updates", lines[-1]["update"]),
        chance_loss=plan.get("chance_loss"),
        directions=plan.get("directions"),
    )


def _charts(lines: Sequence[Line]) -> list[Chart]:
    """The known panels that the log has values for, then one for each metric of a method's own."""
    left = {name: each for name, each in read_series(lines).items() if name not in _HIDDEN}
    last = lines[-1]["update"] if lines else 0
    charts: list[Chart] = []
    for panel in _PANELS:
        own = [left.pop(name) for name in list(left) if _belongs(name, panel)]
        is_dull = panel.title == "Weight decay" and all(len(set(s.values)) == 1 for s in own)
        if own and not is_dull:
            series = [_scaled(each, panel.factor) for each in own]
            charts.append(
                Chart(title=panel.title, note=panel.note, series=series, last=last, unit=panel.unit)
            )
    others = [Chart(title=each.name, note="", series=[each], last=last) for each in left.values()]
    return charts + others


def _belongs(name: str, panel: _Panel) -> bool:
    return any(
        name.startswith(each) if each.endswith("/") else name == each for each in panel.names
    )


def _scaled(series: Series, factor: float) -> Series:
    return replace(series, values=[value * factor for value in series.values])


def _facts(folder: Path, lines: Sequence[Line], plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What one wants to know first, as pairs of a name and a value."""
    if not lines:
        return []
    last, updates, batch_size = lines[-1], plan.get("updates"), plan.get("batch_size")
    done, facts = last["update"], list[tuple[str, str]]()
    of_all = f" of {updates:,} ({done / updates:.0%})" if updates else ""
    facts.append(("Updates", f"{done:,}{of_all}"))
    if batch_size:
        facts.append(("Tiles seen", f"{done * batch_size:,}"))
    if "loss" in last:
        facts.append(("Loss", f"{last['loss']:.4g}"))
    if rate := last.get("tiles_per_s"):
        facts.append(("Tiles a second", f"{rate:,.3g}" if rate < 100 else f"{rate:,.0f}"))
        if updates and batch_size and done < updates:
            facts.append(("Time left", _duration((updates - done) * batch_size / rate)))
    if last.get("skipped"):
        facts.append(("Skipped updates", f"{last['skipped']:,}"))
    checkpoints = {path.name: path for path in list_checkpoints(folder / "checkpoints")}
    if checkpoints:
        facts.append(("Last checkpoint", list(checkpoints)[-1]))
    best = best_update(lines)
    if best is not None:
        accuracy = next(line["knn"] for line in lines if line["update"] == best and "knn" in line)
        facts.append(("Best by kNN", f"update {best:,} ({accuracy:.1%})"))
    return facts


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def _flat(content: Any, name: str = "") -> dict[str, str]:
    """Turns nested settings into one level, with dots in the names."""
    if not isinstance(content, Mapping):
        return {name: ", ".join(map(str, content)) if isinstance(content, list) else str(content)}
    found: dict[str, str] = {}
    for key, value in content.items():
        found |= _flat(value, f"{name}.{key}" if name else str(key))
    return found


def _packaged(name: str) -> str:
    return (files("eosin.pretrain") / name).read_text(encoding="utf-8")
