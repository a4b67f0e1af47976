"""Result files: one JSONL per job with its predictions as Parquet beside it, merged on read."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eosin.atomic import replacing, write_text
from eosin.errors import InputError
from eosin.provenance import sha256_of
from eosin.results import instance_counts
from eosin.results.instance_counts import InstanceCounts
from eosin.results.schema import ROW_ID_DIGITS, Measurable, Predictions, Result

_SCORE = "score_"
_Columns = dict[str, pa.Array]


def write_job(folder: Path, rows: Sequence[tuple[Result, Measurable]]) -> Path:
    """Writes what one job measured: `job-<hash of its row ids>.jsonl` and `<row id>.parquet`.

    The row file is written last, so a row that can be read always has its predictions. The same
    job run again replaces its own files.

    Returns:
        The row file.
    """
    if not rows:
        raise ValueError("a job without rows")
    written: list[Result] = []
    for result, predictions in rows:
        name = f"{result.row_id}.parquet"
        _write_predictions(folder / name, predictions)
        written.append(replace(result, predictions=name, folder=folder))
    path = job_path(folder, [result.row_id for result in written])
    write_text(path, "".join(result.to_json_line() + "\n" for result in written))
    return path


def job_path(folder: Path, row_ids: Iterable[str]) -> Path:
    """Names the row file of the job that measures these rows."""
    return folder / f"job-{sha256_of(sorted(row_ids))[:ROW_ID_DIGITS]}.jsonl"


def read_results(sources: Path | Iterable[Path]) -> list[Result]:
    """Reads and merges the rows of result folders (with all folders below) and row files.

    Of rows with the same `row_id` (the same measurement, repeated) the newest is kept.

    Raises:
        InputError: a source does not exist, holds no row, or a line is not a row of this version.
    """
    paths = [sources] if isinstance(sources, Path) else list(sources)
    merged: dict[str, Result] = {}
    for file in [file for path in paths for file in row_files(path)]:
        for number, line in enumerate(lines_of(file), start=1):
            if line.strip():
                row = Result.from_json_line(line, file, number)
                kept = merged.get(row.row_id)
                if kept is None or created(row) >= created(kept):
                    merged[row.row_id] = row
    if not merged:
        names = ", ".join(str(path) for path in paths) or "nothing given"
        raise InputError(f"There are no results in {names}; run eosin evaluate first.")
    return list(merged.values())


def read_predictions(result: Result) -> Measurable:
    """Reads the predictions of a row that was read from a file, or its counts of instances.

    Raises:
        InputError: the file is missing, damaged, or does not fit its row.
    """
    if result.folder is None:
        raise ValueError(f"row {result.row_id} was not read from a file")
    path = result.folder / result.predictions
    if Path(result.predictions).name != result.predictions:
        raise InputError(f"{result.folder}: predictions {result.predictions!r} leave the folder.")
    if not path.is_file():
        raise InputError(f"{path} is missing: copy it beside its row file, or evaluate again.")
    try:
        table = pq.read_table(path)
        is_counted = "label" not in table.column_names
        predictions = (_read_counts if is_counted else _read_labels)(table, result)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); evaluate again.") from None
    if len(predictions.sample) != result.data.n_test:
        raise InputError(
            f"{path} holds {len(predictions.sample)} predictions and its row says "
            f"{result.data.n_test}; evaluate again."
        )
    return predictions


def _read_labels(table: pa.Table, result: Result) -> Predictions:
    scores = [table[f"{_SCORE}{column}"].to_numpy() for column in range(len(result.data.classes))]
    return Predictions(
        sample=_texts(table["sample"]),
        group=_texts(table["group"]),
        label=table["label"].to_numpy().astype(np.int64),
        predicted=table["predicted"].to_numpy().astype(np.int64),
        scores=np.stack(scores, axis=1).astype(np.float32),
        is_share=result.episodes > 0,
    )


def _read_counts(table: pa.Table, result: Result) -> InstanceCounts:
    types = result.data.classes

    def read(prefix: str, names: Sequence[str]) -> np.ndarray:
        columns = [table[f"{prefix}.{name}"].to_numpy().astype(np.float64) for name in names]
        return np.stack(columns, axis=1)

    def read_types(prefix: str, names: Sequence[str]) -> np.ndarray:
        return np.stack([read(f"{prefix}.{place}", names) for place in range(len(types))], axis=1)

    shared = {name: read(name, parts) for name, parts in instance_counts.SHARED.items()}
    typed = {name: read_types(name, parts) for name, parts in instance_counts.OF_TYPES.items()}
    names = {"sample": _texts(table["sample"]), "group": _texts(table["group"])}
    return InstanceCounts(types=types, **names, **shared, **typed)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.to_pylist(), dtype=np.str_)


def _write_predictions(path: Path, predictions: Measurable) -> None:
    columns: _Columns = {
        "sample": pa.array(predictions.sample.tolist(), pa.string()),
        "group": pa.array(predictions.group.tolist(), pa.string()),
    }
    if isinstance(predictions, InstanceCounts):
        columns |= _count_columns(predictions)
    else:
        columns |= _label_columns(predictions)
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


def _label_columns(predictions: Predictions) -> _Columns:
    columns: _Columns = {
        "label": pa.array(predictions.label, pa.int32()),
        "predicted": pa.array(predictions.predicted, pa.int32()),
    }
    for column, scores in enumerate(predictions.scores.T):
        columns[f"{_SCORE}{column}"] = pa.array(scores.astype(np.float32), pa.float32())
    return columns


def _count_columns(counts: InstanceCounts) -> _Columns:
    columns: _Columns = {}
    for name, parts in instance_counts.SHARED.items():
        for part, values in zip(parts, getattr(counts, name).T, strict=True):
            columns[f"{name}.{part}"] = pa.array(values, pa.float64())
    for name, parts in instance_counts.OF_TYPES.items():
        for place in range(len(counts.types)):
            for part, values in zip(parts, getattr(counts, name)[:, place].T, strict=True):
                columns[f"{name}.{place}.{part}"] = pa.array(values, pa.float64())
    return columns


def row_files(path: Path) -> list[Path]:
    """Lists the row files of a folder with all folders below, or the one that is given.

    Raises:
        InputError: the path does not exist.
    """
    if path.is_dir():
        return sorted(path.rglob("job-*.jsonl"))
    if path.is_file():
        return [path]
    raise InputError(f"{path} does not exist; give a results folder or a .jsonl file of one.")


def lines_of(file: Path) -> list[str]:
    """Splits at line ends alone: a name may hold what `splitlines` also takes for one.

    Raises:
        InputError: the file is no text.
    """
    try:
        return file.read_text(encoding="utf-8").split("\n")
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file} cannot be read as result rows ({error}).") from None


def created(result: Result) -> str:
    """Says when a row was written; of equal rows the last counts."""
    return str(result.provenance.get("created", ""))
