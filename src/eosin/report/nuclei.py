"""What `eosin evaluate --task nuclei` leaves beside its rows, for a page: pictures and sizes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from eosin.errors import InputError
from eosin.report.inputs import Picture, read_picture
from eosin.results.columns import family_of
from eosin.results.more_tables import TextTable
from eosin.results.schema import Result

_KEPT = "models"


def nuclei_pictures(results: Sequence[Result]) -> list[Picture]:
    """Reads the best and the worst image of each encoder's first run on images as they are.

    Raises:
        InputError: a file is damaged.
    """
    return [picture for row, folder in _first_runs(results) for picture in _pictures(row, folder)]


def nuclei_tables(results: Sequence[Result]) -> list[TextTable]:
    """Tells how many nuclei of each size were found, and how many predictions were false.

    Raises:
        InputError: a file is damaged.
    """
    found = [
        (row, _read(folder / "by_size.json"))
        for row, folder in _first_runs(results)
        if (folder / "by_size.json").is_file()
    ]
    if not found:
        return []
    classes = [_size(entry) for entry in found[0][1]]
    rows = tuple(
        (_title(row), *(_cell(entry) for entry in entries))
        for row, entries in found
        if [_size(entry) for entry in entries] == classes
    )
    return [
        TextTable(
            title="Nuclei by size",
            headings=("encoder", *classes),
            rows=rows,
            notes=(
                "Of the true nuclei of a size, by the diameter of the circle of the same area, the "
                "share that a prediction covers with an IoU above 0.5; of the predictions of that "
                "size the share that covers no nucleus so; and how many true nuclei there are.",
            ),
        )
    ]


def _first_runs(results: Sequence[Result]) -> Iterator[tuple[Result, Path]]:
    """Yields, for each encoder and column, the row of the lowest seed and draw with its folder."""
    first: dict[Any, Result] = {}
    for row in sorted(results, key=lambda each: (each.seed, each.draw)):
        if row.folder is not None and row.data.shift == "none":
            key = (family_of(row), row.encoder.name, row.encoder.weights_sha256)
            if (row.folder / _KEPT / row.row_id).is_dir():
                first.setdefault(key, row)
    for row in first.values():
        assert row.folder is not None
        yield row, row.folder / _KEPT / row.row_id


def _pictures(row: Result, folder: Path) -> Iterator[Picture]:
    facts = folder / "pictures.json"
    if not facts.is_file():
        return
    said = _read(facts)
    for name in ("best", "worst"):
        if name in said:
            title = (
                f"{_title(row)}: {name} image, {said[name]['image']}, PQ {said[name]['pq']:.3f}; "
                "truth on the left, prediction on the right, outlined by type"
            )
            yield read_picture(title, folder / f"{name}.jpg")


def _title(row: Result) -> str:
    part = "" if row.label_fraction == 1 else f", {row.label_fraction:.3g} of the labels"
    return f"{row.encoder.name} on {row.data.name} ({row.task}, {row.protocol.id}{part})"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); evaluate again with --again.") from None


def _size(entry: dict[str, float]) -> str:
    if "to_um" not in entry:
        return f"from {entry['from_um']:g} µm"
    return f"{entry['from_um']:g} to {entry['to_um']:g} µm"


def _cell(entry: dict[str, float]) -> str:
    if not entry["true"] and not entry["predicted"]:
        return "–"
    found = f"{entry['found'] / entry['true']:.2f} found" if entry["true"] else "none there"
    false = (
        f"{entry['false'] / entry['predicted']:.2f} false"
        if entry["predicted"]
        else "no predictions"
    )
    return f"{found}, {false} ({entry['true']:,})"
