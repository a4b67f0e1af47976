"""Any images that a CSV file names, with their labels and, if it has them, splits and groups."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from eosin.datasets._base import Info, LabelledImages, Options, wrong_tree
from eosin.datasets._files import Entry, FileSet, make_file_set
from eosin.datasets._findings import Finding
from eosin.datasets._groups import CLASS_COLUMNS, FILE_COLUMNS, GROUP_COLUMNS, first_of, read_table
from eosin.datasets._verify import verify_files
from eosin.errors import InputError

INFO = Info(
    title="Images that a CSV file names",
    licence="that of your images",
    citation="",
    source="your own disk",
    expected_tree="""
labels.csv  (columns file, label; perhaps split: train, valid or test; perhaps patient, case, slide,
            source_image or group)
the images, anywhere below, at the paths that the column file has
""",
    groups="the column patient, case, slide, source_image or group, where there is one",
    division="the column split, where there is one; otherwise ours, --test-share of each class",
)

TABLE = "labels.csv"
_SPLIT_COLUMNS = ("split", "partition", "subset")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}


def recognises(root: Path) -> bool:
    """Whether a `labels.csv` with files and labels lies in `root`.

    A CSV of another name needs `--dataset csv_table`.
    """
    if not (root / TABLE).is_file():
        return False
    try:
        return all(_columns(read_table(root / TABLE)[0]))
    except InputError:
        return False


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads one split, in the order of the rows.

    Raises:
        InputError: the table lacks a column or a value, names a file that is not there, or an
            image cannot be read.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the table's rows, decodes every image, and looks for copies and crossing groups."""
    return verify_files(_scan(root, options), INFO)


def _scan(root: Path, options: Options) -> FileSet:
    table, rows = _table(root)
    file_column, label_column = _columns(rows[0])
    if file_column is None or label_column is None:
        lacking = f"none that names the {'label' if file_column else 'file'}"
        raise InputError(f"{table} has the columns {', '.join(rows[0])} and {lacking}.")
    split_column = first_of(_SPLIT_COLUMNS, rows[0])
    wanted = GROUP_COLUMNS if options.group_column is None else (options.group_column,)
    group_column = first_of(wanted, rows[0]) if options.groups is None else None
    entries: list[Entry] = []
    findings: list[Finding] = []
    seen: set[str] = set()
    for line, row in enumerate(rows, start=2):
        file = str(PurePosixPath(row[file_column].strip().replace("\\", "/")))
        split = row[split_column].strip().lower() if split_column else ""
        entry = Entry(
            id=file,
            of_class=row[label_column].strip(),
            split=_SPLIT_NAMES.get(split, split),
            group=row[group_column].strip() if group_column else "",
        )
        wrong = _wrong(root, entry, has_splits=bool(split_column), has_groups=bool(group_column))
        if entry.id in seen:
            wrong = wrong or ("label", "stands in a row above already")
        seen.add(entry.id)
        if wrong is None:
            entries.append(entry)
        else:
            findings.append(_finding(table, line, file, *wrong))
    if not entries and findings:
        raise InputError(f"{findings[0].sentence} None of its {len(rows):,} rows can be used.")
    return _file_set(root, table, entries, findings, group_column, split_column, options)


def _file_set(
    root: Path,
    table: Path,
    entries: Sequence[Entry],
    findings: Sequence[Finding],
    group_column: str | None,
    split_column: str | None,
    options: Options,
) -> FileSet:
    classes = sorted({entry.of_class for entry in entries})
    if len(classes) < 2:
        raise InputError(f"{table} has {len(classes)} label; 2 are needed.")
    if split_column is not None:
        for split in ("train", "test"):
            if split not in {entry.split for entry in entries}:
                raise InputError(f"{table}: the column {split_column} has no row with {split}.")
    is_own = group_column is not None
    return make_file_set(
        root.resolve().name,
        root,
        classes,
        entries,
        Options(
            groups=options.groups,
            group_column=None if is_own else options.group_column,
            test_share=options.test_share,
            split_seed=options.split_seed,
        ),
        grouped_by=f"{group_column} in {table.name}" if is_own else "image",
        rule=() if split_column is None else (f"column {split_column}",),
        findings=findings,
    )


def _table(root: Path) -> tuple[Path, list[dict[str, str]]]:
    if (root / TABLE).is_file():
        return root / TABLE, read_table(root / TABLE)
    found = [(path, read_table(path)) for path in sorted(root.glob("*.csv"))]
    usable = [(path, rows) for path, rows in found if all(_columns(rows[0]))]
    if len(usable) != 1:
        what = f"{len(usable)} CSV files with the columns file and label."
        raise wrong_tree(root, what, INFO.expected_tree)
    return usable[0]


def _columns(row: Mapping[str, str]) -> tuple[str | None, str | None]:
    return first_of((*FILE_COLUMNS, "Image Name"), row), first_of(CLASS_COLUMNS, row)


def _wrong(
    root: Path, entry: Entry, *, has_splits: bool, has_groups: bool
) -> tuple[str, str] | None:
    """Says what is wrong with a row; paths stay in the folder, so that results can be compared."""
    path = PurePosixPath(entry.id)
    if path.is_absolute() or ".." in path.parts:
        return "label", f"is no path below {root}"
    if not entry.of_class:
        return "label", "has no label"
    if has_splits and entry.split not in _SPLIT_NAMES.values():
        return "label", f"has the split {entry.split!r}, not train, valid or test"
    if has_groups and not entry.group:
        return "label", "has no group"
    if not (root / entry.id).is_file():
        return "missing", "is not there"
    return None


def _finding(table: Path, line: int, file: str, kind: str, what: str) -> Finding:
    return Finding(
        kind=kind,
        where=f"{table.name}, line {line}",
        sentence=f"{table}, line {line}: {file} {what}.",
        is_fatal=True,
    )
