"""Whether results are what their stored predictions say."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eosin.errors import InputError
from eosin.progress import Bar
from eosin.results.files import created, job_path, lines_of, read_predictions, row_files
from eosin.results.schema import ROW_ID_DIGITS, Result
from eosin.results.statistics import measure

TOLERANCE = 1e-9

_PREDICTIONS = re.compile(rf"[0-9a-f]{{{ROW_ID_DIGITS}}}\.parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which results to verify."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Results folder, with all folders below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What was verified: how many rows, and a sentence for each deviation."""

    rows: int
    deviations: tuple[str, ...]


def verify(config: Config) -> Verified:
    """Recomputes every metric of every row from its predictions, and looks for missing files.

    Of a measurement that was repeated the newest row is recomputed, whose predictions are there.

    Raises:
        InputError: the folder does not exist or holds no results.
    """
    files = row_files(config.folder)
    if not files:
        raise InputError(f"There are no results in {config.folder}; run eosin evaluate first.")
    deviations: list[str] = []
    rows: dict[str, tuple[Path, Result]] = {}
    for file in files:
        read, wrong = _read(file)
        deviations += wrong
        for row in read:
            kept = rows.get(row.row_id)
            if kept is None or created(row) >= created(kept[1]):
                rows[row.row_id] = file, row
    with Bar("verifying", len(rows), "rows", is_hidden=len(rows) < 3) as bar:
        for file, row in rows.values():
            deviations += _recomputed(file, row)
            bar.advance(1)
    deviations += _orphans(files, [row for _, row in rows.values()])
    return Verified(rows=len(rows), deviations=tuple(deviations))


def _read(file: Path) -> tuple[list[Result], list[str]]:
    """Reads the rows of a file, and says which lines are none and whether its name fits."""
    rows: list[Result] = []
    wrong: list[str] = []
    try:
        lines = lines_of(file)
    except InputError as error:
        return [], [str(error)]
    for number, line in enumerate(lines, start=1):
        try:
            rows += [Result.from_json_line(line, file, number)] if line.strip() else []
        except InputError as error:
            wrong.append(str(error))
    expected = job_path(file.parent, [row.row_id for row in rows])
    if not wrong and not rows:
        wrong.append(f"{file} holds no row; delete it.")
    elif not wrong and file != expected:
        wrong.append(
            f"{file} does not hold the rows that its name stands for (these would be in "
            f"{expected.name}): rows were added or taken away; evaluate again."
        )
    return rows, wrong


def _recomputed(file: Path, row: Result) -> Iterator[str]:
    where = f"{file}, row {row.row_id}"
    try:
        measured = measure(read_predictions(row))
    except InputError as error:
        yield f"{where}: {error}"
        return
    for name in sorted(row.metrics.keys() ^ measured.keys()):
        has, lacks = ("row", "predictions") if name in row.metrics else ("predictions", "row")
        yield f"{where}: the {has} gives {name} and the {lacks} does not."
    for name in sorted(row.metrics.keys() & measured.keys()):
        for part in ("value", "low", "high"):
            stored, again = (getattr(each[name], part) for each in (row.metrics, measured))
            # Written so that NaN deviates from everything.
            if not abs(stored - again) <= TOLERANCE:
                yield (
                    f"{where}: {name} {part} is {stored:.10g} and the predictions give "
                    f"{again:.10g}."
                )


def _orphans(files: Sequence[Path], rows: Sequence[Result]) -> Iterator[str]:
    """Finds predictions that no row stands for, in the folders that hold rows."""
    expected = {row.folder / row.predictions for row in rows if row.folder is not None}
    for folder in dict.fromkeys(file.parent for file in files):
        for path in sorted(folder.iterdir()):
            if _PREDICTIONS.fullmatch(path.name) and path not in expected:
                yield f"{path} belongs to no row; delete it, or copy its row file beside it."
