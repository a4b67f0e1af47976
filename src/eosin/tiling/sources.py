"""Which files are slides, and what the user says about their resolution."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from eosin.errors import InputError
from eosin.slides import dicom_series
from eosin.slides.reader import SUFFIXES
from eosin.slides.resolution import is_plausible_mpp
from eosin.store.records import slide_id_of


@dataclass(frozen=True, slots=True)
class Source:
    """One slide of the input."""

    path: Path
    relative_path: Path
    """Below the input folder, so that its name in a store outlives a move of that folder."""

    @property
    def slide_id(self) -> str:
        """The slide's name in a store."""
        return slide_id_of(self.relative_path)


def find_slides(inputs: Iterable[Path]) -> list[Source]:
    """Lists the slides among files and folders, each once.

    DICOM files of one folder and one series are one slide; the first of them in order stands for
    it, and gives it its name.

    Raises:
        InputError: an input is missing or holds no slide, or two slides have the same name.
    """
    sources: dict[str, Source] = {}
    seen: set[Path] = set()
    for root in inputs:
        for path in _slides_of(root):
            identity = _identity_of(path)
            if identity in seen:
                continue
            seen.add(identity)
            source = Source(path, path.relative_to(root if root.is_dir() else root.parent))
            twin = sources.setdefault(source.slide_id, source)
            if twin is not source:
                raise InputError(
                    f"{twin.path} and {path} would have the same name in the store; give the"
                    " folder that holds both instead."
                )
    return list(sources.values())


def _identity_of(path: Path) -> Path:
    """The file itself or, if it is one of several of a DICOM slide, their folder and series."""
    is_dicom = path.suffix.lower() == dicom_series.SUFFIX
    series = dicom_series.series_uid(path) if is_dicom else None
    return path.resolve() if series is None else path.parent.resolve() / series


def _slides_of(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(f"There is no slide and no folder at {root}.")
    files = (path for path in root.rglob("*") if path.name[0] != "." and path.is_file())
    found = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    if not found:
        known = " ".join(sorted(SUFFIXES))
        raise InputError(f"{root} holds no slides; Eosin looks for files named {known}.")
    return found


def read_mpp_csv(path: Path, sources: Iterable[Source]) -> dict[str, float]:
    """Reads a CSV file with columns `slide` and `mpp`, as `{slide_id: mpp}`.

    A slide is named by its path below the input folder, or by its file's name with or without the
    suffix. Lines that name no slide of the input are passed over, so that one file serves a cohort.

    Raises:
        InputError: the file is no such CSV, contradicts itself, or names none of the slides.
    """
    by_name = _read_pairs(path)
    found: dict[str, float] = {}
    for source in sources:
        for name in (source.relative_path.as_posix(), source.path.name, source.path.stem):
            if name in by_name:
                found[source.slide_id] = by_name[name]
                break
    if not found:
        raise InputError(
            f"{path} names none of the slides; its column `slide` must hold file names, with or"
            " without the suffix, or paths below the input folder."
        )
    return found


def _read_pairs(path: Path) -> dict[str, float]:
    pairs: dict[str, float] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            if not {"slide", "mpp"} <= set(table.fieldnames or ()):
                raise InputError(f"{path} must have a first line that names columns slide and mpp.")
            for row in table:
                name, mpp = row["slide"], _as_mpp(row["mpp"])
                if not name or mpp is None or pairs.get(name, mpp) != mpp:
                    raise InputError(
                        f"{path}, line {table.line_num}: slide {name!r} with mpp {row['mpp']!r};"
                        " give each slide one number of micrometres per pixel."
                    )
                pairs[name] = mpp
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a CSV file: {error}") from error
    return pairs


def _as_mpp(text: str | None) -> float | None:
    try:
        mpp = float(text or "nan")
    except ValueError:
        return None
    return mpp if is_plausible_mpp(mpp) else None
