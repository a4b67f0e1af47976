"""Whether a dataset on the disk is the published one, whole and without leaks."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from eosin.datasets._base import ALL, Image, Info
from eosin.datasets._files import FileSet
from eosin.datasets._findings import KINDS, Finding
from eosin.errors import InputError
from eosin.images.files import read_image
from eosin.progress import Bar
from eosin.provenance import available_cores

_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class Look:
    """What decoding an image tells: a hash of its pixels, its width and height, and its mode."""

    digest: bytes
    size_px: tuple[int, int]
    mode: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Checked:
    """The images of all splits, as they are to be checked.

    Attributes:
        root: the folder that places are relative to.
        places: file, or file and row, of each image [N].
        labels: class of each [N].
        division: split of each [N].
        classes: names in the order of the labels.
        look: decodes image number i, by any number of threads; InputError where it cannot.
    """

    root: Path
    places: Sequence[str]
    labels: NDArray[np.int64]
    division: Sequence[str]
    classes: Sequence[str]
    look: Callable[[int], Look]


def verify_files(files: FileSet, info: Info) -> list[Finding]:
    """Checks images in files of their own against what is published of them.

    Every image is decoded. The findings come in the order of `KINDS`.
    """
    paths = [files.root / image for image in files.ids]
    checked = Checked(
        root=files.root,
        places=files.ids,
        labels=files.labels,
        division=files.division,
        classes=files.classes,
        look=lambda index: look_at_file(paths[index]),
    )
    return in_order([*files.findings, *verify_images(checked, info)])


def verify_images(checked: Checked, info: Info) -> list[Finding]:
    """Counts, decodes and compares the images of all splits."""
    return [*_counts(checked, info), *_pixels(checked, info)]


def in_order(findings: Sequence[Finding]) -> list[Finding]:
    """Sorts findings by their kinds; otherwise they stay in their order."""
    return sorted(findings, key=lambda finding: list(KINDS).index(finding.kind))


def look_at_file(path: Path) -> Look:
    """Decodes a file.

    Raises:
        InputError: it cannot be read.
    """
    pixels = read_image(path)
    with PillowImage.open(path) as image:
        mode = image.mode
    return look_at_pixels(pixels, mode)


def look_at_pixels(pixels: Image, mode: str = "RGB") -> Look:
    """Hashes pixels [H, W, 3]."""
    height, width = pixels.shape[:2]
    digest = blake2b(np.ascontiguousarray(pixels).data, digest_size=16)
    digest.update(f"{width} x {height}".encode())
    return Look(digest=digest.digest(), size_px=(width, height), mode=mode)


def _counts(checked: Checked, info: Info) -> Iterator[Finding]:
    """Yields where there are more or fewer images than were published."""
    found = Counter(zip(checked.division, checked.labels.tolist(), strict=True))
    for split, published in info.counts.items():
        count = sum(found[split, label] for label in range(len(checked.classes)))
        if not count:
            sentence = f"{checked.root}: the {split} split is missing; it has {published:,} images."
            yield Finding(kind="missing", where=split, sentence=sentence)
        elif count != published and split not in info.class_counts:
            yield _count(checked, f"the {split} split", count, published)
    for split, classes in info.class_counts.items():
        splits = set(checked.division) if split == ALL else {split} & set(checked.division)
        for name, published in classes.items() if splits else ():
            label = checked.classes.index(name) if name in checked.classes else -1
            count = sum(found[each, label] for each in splits)
            what = f"class {name}" if split == ALL else f"class {name} of the {split} split"
            if count != published:
                yield _count(checked, what, count, published)


def _count(checked: Checked, what: str, count: int, published: int) -> Finding:
    sentence = f"{checked.root}: of {what}, {published:,} images are published, {count:,} here."
    return Finding(kind="count", where=what, sentence=sentence)


def _pixels(checked: Checked, info: Info) -> Iterator[Finding]:
    """Yields what decoding shows: images that cannot be read, odd ones, and copies."""
    seen: dict[bytes, int] = {}
    for index, look in enumerate(_looks(checked)):
        if isinstance(look, str):
            where = checked.places[index]
            yield Finding(kind="unreadable", where=where, sentence=look)
            continue
        yield from _odd(checked, index, look, info)
        first = seen.setdefault(look.digest, index)
        if first != index:
            yield _copy(checked, first, index)


def _looks(checked: Checked) -> Iterator[Look | str]:
    """Decodes all images; of one that cannot be read it yields why."""

    def look(index: int) -> Look | str:
        try:
            return checked.look(index)
        except (InputError, OSError) as error:
            return str(error)

    count = len(checked.places)
    with (
        Bar("verifying", count, "images") as bar,
        ThreadPoolExecutor(min(available_cores(), 16)) as pool,
    ):
        for start in range(0, count, _AT_ONCE):
            some = range(start, min(start + _AT_ONCE, count))
            yield from pool.map(look, some)
            bar.advance(len(some))


def _odd(checked: Checked, index: int, look: Look, info: Info) -> Iterator[Finding]:
    place = checked.places[index]
    if info.image_px is not None and look.size_px != info.image_px:
        (width, height), (wide, high) = look.size_px, info.image_px
        sentence = (
            f"{checked.root / place} has {width} x {height} pixels; published are {wide} x {high}."
        )
        yield Finding(kind="size", where=place, sentence=sentence)
    if info.image_px is not None and look.mode != "RGB":
        sentence = f"{checked.root / place} is of mode {look.mode}; published are RGB images."
        yield Finding(kind="size", where=place, sentence=sentence)


def _copy(checked: Checked, first: int, second: int) -> Finding:
    sides = [f"{checked.places[each]} ({checked.division[each]})" for each in (first, second)]
    labels = [checked.classes[checked.labels[each]] for each in (first, second)]
    clash = "" if labels[0] == labels[1] else f", and have the labels {labels[0]} and {labels[1]}"
    splits = {checked.division[first], checked.division[second]}
    leak = ", so the test is no test of it" if len(splits) > 1 and "test" in splits else ""
    return Finding(
        kind="duplicate",
        where=checked.places[second],
        sentence=f"{checked.root}: {sides[0]} and {sides[1]} have the same pixels{clash}{leak}.",
    )


def by_kind(findings: Sequence[Finding]) -> Mapping[str, list[Finding]]:
    """Sorts findings into their kinds, in the order of `KINDS`; kinds without any are left out."""
    grouped = {kind: [each for each in findings if each.kind == kind] for kind in KINDS}
    return {kind: some for kind, some in grouped.items() if some}
