"""Patients, slides and groups that lie on both sides of a line, told by their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from eosin.datasets._base import LabelledImages

_BARCODE = re.compile(r"(?<![A-Z0-9])TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}(?![A-Z0-9])")
_CUTS = re.compile(r"[-_. ]")
# A shorter name, or one without a digit, may well mean different slides in different places.
_LEAST_LETTERS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Slide:
    """What names a slide of a tile store."""

    slide_id: str
    path: str
    patient: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """Something that both sides are of.

    Attributes:
        name: of the patient, slide or group.
        first: an example of it on the one side.
        second: an example of it on the other side.
    """

    name: str
    first: str
    second: str


def patient_of(text: str) -> str | None:
    """Finds the patient of a TCGA barcode, `TCGA-XX-XXXX`, in an id or a path, in any case.

    Names whose parts are joined by `_` or `.` are no barcodes.
    """
    found = _BARCODE.search(text.upper())
    return found.group() if found else None


def shared_patients(first: Iterable[str], second: Iterable[str]) -> list[Shared]:
    """Finds the TCGA patients that occur in the names on both sides."""
    return _shared(_by_patient(first), _by_patient(second))


def shared_groups(first: LabelledImages, second: LabelledImages) -> list[Shared]:
    """Finds the groups that have images in both splits."""
    return _shared(
        dict(zip(first.groups.tolist(), first.ids, strict=True)),
        dict(zip(second.groups.tolist(), second.ids, strict=True)),
    )


def names_of(images: LabelledImages) -> list[str]:
    """All that may name the patient or slide of a split's images: their ids and their groups."""
    return [*images.ids, *dict.fromkeys(images.groups.tolist())]


def names_of_slides(slides: Iterable[Slide]) -> list[str]:
    """All that may name the patient of a store's slides."""
    return [text for slide in slides for text in (slide.path, slide.patient or "") if text]


def slides_in(slides: Sequence[Slide], images: LabelledImages) -> list[Shared]:
    """Finds the slides and patients of a store that a split's images are of, by equal names.

    A slide's file name without its suffix, its `slide_id` or its patient counts when it is a group,
    a folder in an id, or the beginning of a file name up to one of `-`, `_`, `.` or a space.
    """
    of_store: dict[str, str] = {}
    for slide in slides:
        named = (PurePosixPath(slide.path).stem, slide.slide_id, slide.patient or "")
        of_store.update({name.lower(): slide.path for name in named if _is_telling(name)})
    of_images: dict[str, str] = {}
    for image, group in zip(images.ids, images.groups.tolist(), strict=True):
        for name in (group, *_beginnings(image)):
            if name.lower() in of_store:
                of_images.setdefault(name.lower(), image)
    return _shared(of_store, of_images)


def _shared(first: Mapping[str, str], second: Mapping[str, str]) -> list[Shared]:
    both = sorted(first.keys() & second.keys())
    return [Shared(name=name, first=first[name], second=second[name]) for name in both]


def _by_patient(names: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in names:
        patient = patient_of(name)
        if patient is not None:
            found.setdefault(patient, name)
    return found


def _is_telling(name: str) -> bool:
    return len(name) >= _LEAST_LETTERS and any(letter.isdigit() for letter in name)


def _beginnings(image: str) -> list[str]:
    path = PurePosixPath(image)
    cuts = [match.start() for match in _CUTS.finditer(path.name)]
    return [*path.parts[:-1], path.name, *(path.name[:cut] for cut in cuts)]
