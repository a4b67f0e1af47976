"""MHIST: colorectal polyps, hyperplastic or sessile serrated, as seven pathologists saw them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eosin.datasets._base import Info, LabelledImages, Options, wrong_tree
from eosin.datasets._files import Entry, FileSet, make_file_set, strays, walk_files
from eosin.datasets._findings import Finding
from eosin.datasets._groups import read_table
from eosin.datasets._verify import verify_files
from eosin.errors import InputError

INFO = Info(
    title="MHIST, Minimalist Histopathology Image Analysis",
    licence="research use agreement, signed with a form",
    licence_url="https://bmirds.github.io/MHIST/",
    citation="Wei et al. 2021, A Petri Dish for Histopathology Image Analysis, AIME, "
    "arXiv:2101.12355",
    source="https://bmirds.github.io/MHIST/",
    expected_tree="""
images/          MHIST_aaa.png MHIST_aab.png …   (3,152 images, 224 x 224 pixels)
annotations.csv  (columns Image Name, Majority Vote Label, Number of Annotators who Selected SSA
                 (Out of 7), Partition)
""",
    classes=("HP", "SSA"),
    counts={"train": 2_175, "test": 977},
    class_counts={"train": {"HP": 1_545, "SSA": 630}, "test": {"HP": 617, "SSA": 360}},
    groups="not published: the images are of 328 slides, and no file says which, so intervals are "
    "too narrow",
    division="official: column Partition of annotations.csv",
    image_px=(224, 224),
    mpp=2.0,
    download_bytes=354_000_000,
    installed_bytes=354_000_000,
    how_to_get=(
        "Fill in the form at https://bmirds.github.io/MHIST/#accessing-dataset and accept the "
        "research use agreement; links come by e-mail within minutes.",
        "Download annotations.csv and images.zip, and unpack the latter: unzip images.zip",
        "Put images/ and annotations.csv into {root}",
    ),
    remarks=(
        "eva counts SSA as 0 and HP as 1, THUNDER and Eosin the other way round: F1 and average "
        "precision of one class differ, accuracy and balanced accuracy do not.",
        "Published as 5x (2 micrometres a pixel), scaled down from 40x; eva's page says 40x.",
    ),
)

_NAME, _LABEL, _PARTITION = "Image Name", "Majority Vote Label", "Partition"
_VOTES = "Number of Annotators who Selected SSA (Out of 7)"
_MAJORITY = 4


def recognises(root: Path) -> bool:
    """Whether `images/` and an `annotations.csv` with MHIST's columns lie in `root`."""
    return _base(root) is not None


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads an official split, in the order of `annotations.csv`.

    Raises:
        InputError: a file is missing, or a row is not as it should be.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the tree and every row against what is published, and decodes every image."""
    return verify_files(_scan(root, options), INFO)


def _base(root: Path) -> Path | None:
    for inner in (root, root / "mhist"):
        table = inner / "annotations.csv"
        if (inner / "images").is_dir() and table.is_file():
            with open(table, encoding="utf-8-sig", errors="replace") as handle:
                header = handle.readline()
            return inner if _NAME in header and _PARTITION in header else None
    return None


def _scan(root: Path, options: Options) -> FileSet:
    base = _base(root)
    if base is None:
        problem = "no images/ and annotations.csv with MHIST's columns."
        raise wrong_tree(root, problem, INFO.expected_tree)
    table = base / "annotations.csv"
    rows = read_table(table)
    lacking = [name for name in (_NAME, _LABEL, _PARTITION) if name not in rows[0]]
    if lacking:
        raise InputError(f"{table} has no column {lacking[0]!r}.")
    images = walk_files(base / "images")
    read = _Rows(table, set(images))
    entries = [entry for line, row in enumerate(rows, start=2) for entry in read.take(line, row)]
    unlabelled = [name for name in images if name not in read.named]
    return make_file_set(
        "mhist",
        base / "images",
        INFO.classes,
        entries,
        options,
        rule=("annotations.csv",),
        findings=[
            *read.findings,
            *strays(base / "images", unlabelled, "has no row in annotations.csv"),
        ],
    )


@dataclass
class _Rows:
    """Reads the rows of the annotations, and keeps what is wrong with them."""

    table: Path
    images: set[str]

    def __post_init__(self) -> None:
        self.named: set[str] = set()
        self.findings: list[Finding] = []

    def take(self, line: int, row: Mapping[str, str]) -> Iterator[Entry]:
        """Yields the image of a row, if it can be used."""
        name, label = row[_NAME].strip(), row[_LABEL].strip()
        partition = row[_PARTITION].strip()
        if name in self.named:
            return self._find("label", line, name, "stands in a row above already")
        self.named.add(name)
        if label not in INFO.classes:
            return self._find("label", line, name, f"has the label {label!r}, not HP or SSA")
        if partition not in INFO.counts:
            what = f"is in the partition {partition!r}, not train or test"
            return self._find("label", line, name, what)
        if name not in self.images:
            return self._find("missing", line, name, "is not in images/")
        votes = row.get(_VOTES, "").strip()
        if votes and (
            not votes.isdigit() or int(votes) > 7 or (int(votes) >= _MAJORITY) != (label == "SSA")
        ):
            what = f"is labelled {label}, but {votes} of 7 selected SSA"
            self._find("label", line, name, what, is_fatal=False)
        yield Entry(id=name, of_class=label, split=partition)

    def _find(self, kind: str, line: int, name: str, what: str, *, is_fatal: bool = True) -> None:
        self.findings.append(
            Finding(
                kind=kind,
                where=f"{self.table.name}, line {line}",
                sentence=f"{self.table}, line {line}: {name} {what}.",
                is_fatal=is_fatal,
            )
        )
