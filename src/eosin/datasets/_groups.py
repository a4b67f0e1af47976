"""Groups of images (patient, slide, source image) from a CSV file."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import NO_GROUPS, Options
from eosin.errors import InputError

# From the coarsest to the finest: images of one patient are alike whatever slide they are of.
GROUP_COLUMNS = (
    "patient",
    "patient_id",
    "case",
    "case_id",
    "slide",
    "slide_id",
    "wsi",
    "source_image",
    "source",
    "group",
)
FILE_COLUMNS = ("file", "filename", "file_name", "path", "image", "image_path", "image_name")
CLASS_COLUMNS = ("class", "label", "category")


def find_groups(
    root: Path, ids: Sequence[str], classes: Sequence[str], options: Options
) -> tuple[NDArray[np.str_], str]:
    """Finds the group of every image.

    Args:
        root: where a CSV is looked for when `options` names none.
        ids: of the images: paths relative to `root`, with forward slashes.
        classes: class name of each image.
        options: which file and which column, where the user said so.

    Returns:
        The group of each image, and what the groups are in words. Without a CSV every image is
        its own group.

    Raises:
        InputError: the CSV lacks a column or an image, or does not say clearly which is meant.
    """
    table = _table(root, options)
    if table is None:
        return np.array(ids), "image"
    path, rows, column = table
    file_column = first_of(FILE_COLUMNS, rows[0])
    if file_column is None:
        raise InputError(
            f"{path} has the columns {_list(rows[0])} and none that names the file; call it "
            f"{FILE_COLUMNS[0]!r}."
        )
    group_of = _groups_by_key(path, rows, file_column, column)
    keys = [
        _key_of(image, of_class, group_of) for image, of_class in zip(ids, classes, strict=True)
    ]
    missing = [image for image, key in zip(ids, keys, strict=True) if key is None]
    if missing:
        raise InputError(
            f"{path} does not say the {column} of {len(missing):,} of {len(ids):,} images, such "
            f"as {missing[0]}. Add them, or ignore the file with --group-column {NO_GROUPS}."
        )
    found = [key for key in keys if key is not None]
    key, times = Counter(found).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{path}: {key!r} stands for {times} images of this name; write paths relative to "
            f"{root} in the column {file_column}."
        )
    groups = np.array([group_of[key] for key in found])
    return groups, f"{column} in {path.name}"


def _table(root: Path, options: Options) -> tuple[Path, list[dict[str, str]], str] | None:
    """Reads the CSV and chooses its group column; None where no groups are asked for or found."""
    if options.group_column == NO_GROUPS:
        return None
    if options.groups is not None:
        rows = read_table(options.groups)
        return options.groups, rows, _group_column(options.groups, rows[0], options.group_column)
    candidates = sorted(root.glob("*.csv"))
    if options.group_column is not None and not candidates:
        raise InputError(
            f"{root} holds no CSV with the column {options.group_column!r}; name it with --groups."
        )
    tables = [(path, read_table(path)) for path in candidates]
    wanted = (options.group_column,) if options.group_column is not None else GROUP_COLUMNS
    usable = [(path, rows) for path, rows in tables if first_of(wanted, rows[0])]
    if len(usable) > 1:
        names = ", ".join(path.name for path, _ in usable)
        raise InputError(
            f"{root} holds several CSVs that may name groups ({names}); choose one with --groups, "
            f"or none with --group-column {NO_GROUPS}."
        )
    if not usable and options.group_column is None:
        return None
    path, rows = usable[0] if usable else tables[0]
    return path, rows, _group_column(path, rows[0], options.group_column)


def _group_column(path: Path, row: Mapping[str, str], asked: str | None) -> str:
    column = first_of((asked,) if asked is not None else GROUP_COLUMNS, row)
    if column is None:
        what = f"no column {asked!r}" if asked is not None else "no column known to name groups"
        raise InputError(f"{path} has {what}; --group-column must be one of {_list(row)}.")
    return column


def read_table(path: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file, whose delimiter is a comma, a semicolon or a tab.

    Raises:
        InputError: it cannot be read, is no CSV in UTF-8, or has no rows.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            header = handle.readline()
            handle.seek(0)
            delimiter = max(",;\t", key=header.count)
            rows = list(csv.DictReader(handle, delimiter=delimiter, restval="", restkey=""))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV in UTF-8: {error}.") from None
    if not rows:
        raise InputError(f"{path} has no rows below its header.")
    return [{name: cell for name, cell in row.items() if name} for row in rows]


def _groups_by_key(
    path: Path, rows: Sequence[Mapping[str, str]], file_column: str, column: str
) -> dict[str, str]:
    """Maps what a row calls its file, and that below its class, to the row's group."""
    class_column = first_of(CLASS_COLUMNS, rows[0])
    group_of: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        file = str(PurePosixPath(row[file_column].strip().replace("\\", "/")))
        group = row[column].strip()
        if not group:
            raise InputError(f"{path}, line {number}: the {column} of {file} is empty.")
        if class_column is not None and "/" not in file:
            file = f"{row[class_column].strip()}/{file}"
        if group_of.setdefault(file, group) != group:
            raise InputError(
                f"{path}, line {number}: {file} is of {group} here and of {group_of[file]} above; "
                "write paths where names repeat."
            )
    return group_of


def _key_of(image: str, of_class: str, group_of: Mapping[str, str]) -> str | None:
    """Finds what the CSV calls an image: its path, the end of its path, or its name."""
    parts = PurePosixPath(image).parts
    ends = ["/".join(parts[start:]) for start in range(len(parts))]
    name, stem = parts[-1], PurePosixPath(image).stem
    for key in (*ends, f"{of_class}/{name}", f"{of_class}/{stem}", stem):
        if key in group_of:
            return key
    return None


def first_of(wanted: Sequence[str], row: Mapping[str, str]) -> str | None:
    """Gives the first wanted column that a row has, whatever its case; `None` if it has none."""
    by_lower = {name.strip().lower(): name for name in row}
    return next((by_lower[name.lower()] for name in wanted if name.lower() in by_lower), None)


def _list(row: Mapping[str, str]) -> str:
    return ", ".join(row)
