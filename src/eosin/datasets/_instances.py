"""Images whose nuclei are outlined one by one: what a dataset of them gives, and how it is loaded.

An instance map numbers nuclei from 1 to n without gaps, 0 is background; the type of nucleus k + 1
stands at place k.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import NO_GROUPS, Image, Options
from eosin.datasets._contents import hash_files
from eosin.datasets._files import IMAGE, groups_that_cross, usable_splits
from eosin.datasets._findings import Finding, stop_at_fatal
from eosin.datasets._groups import find_groups
from eosin.errors import InputError
from eosin.provenance import sha256_of

UNTYPED = ("nucleus",)
"""The only class where nuclei have no types."""

_LARGEST = 2**31  # an instance map is int32
_DENSE = 4  # numbers up to so many times the pixels are counted, not sorted


@dataclass(frozen=True, eq=False)
class Labelled:
    """An image and its nuclei.

    Attributes:
        image: uint8 RGB [H, W, 3].
        instances: int32 [H, W], 0 background, nuclei numbered from 1 to n without gaps.
        types: int64 [n], index into the classes of nucleus k + 1 at place k.
    """

    image: Image
    instances: NDArray[np.int32]
    types: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class InstanceImages:
    """One split of a dataset of outlined nuclei; read when asked for, by any number of threads.

    Attributes:
        dataset: name of the dataset.
        split: `train`, `valid` or `test`.
        ids: one name an image, unique in the dataset and the same on every machine.
        groups: patient of each image; its id where none is known.
        grouped_by: what the groups are, in words.
        classes: names of the nuclei's types.
        mpp: micrometres a pixel.
        reader: gives image number i and its nuclei.
        manifest_sha256: hash of the ids, the groups, the classes and the files' bytes.
        split_sha256: hash of how the whole dataset is divided; the same for all of its splits.
    """

    dataset: str
    split: str
    ids: tuple[str, ...]
    groups: NDArray[np.str_]
    grouped_by: str
    classes: tuple[str, ...]
    mpp: float
    reader: Callable[[int], Labelled]
    manifest_sha256: str
    split_sha256: str

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Labelled:
        """Reads one image and its nuclei.

        Raises:
            InputError: a file cannot be read or is not as it should be; the message names it.
        """
        return self.reader(index)


@dataclass(frozen=True, kw_only=True)
class Outlined:
    """Where an image and the outlines of its nuclei are.

    Attributes:
        id: its name.
        split: of the dataset.
        image: file that holds it.
        outlines: file that holds its nuclei.
        row: its place in files that hold many.
        group: patient; empty where none is known.
    """

    id: str
    split: str
    image: Path
    outlines: Path
    row: int = 0
    group: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What reading an image showed: it, and in sentences what is odd about its outlines."""

    labelled: Labelled
    oddities: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class InstanceSet:
    """All that the files of a dataset of outlined nuclei say of themselves.

    Attributes:
        dataset: its name in results.
        root: the folder that messages name.
        classes: names of the nuclei's types.
        mpp: micrometres a pixel.
        entries: the images, in order.
        groups: group of each [N].
        grouped_by: what the groups are, in words.
        read: reads one.
        rule: what the division follows; part of its hash.
        findings: what was seen to be wrong on the way.
    """

    dataset: str
    root: Path
    classes: tuple[str, ...]
    mpp: float
    entries: tuple[Outlined, ...]
    groups: NDArray[np.str_]
    grouped_by: str
    read: Callable[[Outlined], Seen]
    rule: Sequence[str | float]
    findings: tuple[Finding, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have images.

        Raises:
            InputError: there is nothing to train on or nothing to test on, or a finding stands in
                the way.
        """
        stop_at_fatal(self.findings)
        return usable_splits(self.root, {entry.split for entry in self.entries})

    def load(self, split: str) -> InstanceImages:
        """Loads one split; every file is read once, for its hash.

        Raises:
            InputError: there is no such split, or a finding stands in the way.
        """
        stop_at_fatal(self.findings)
        places = [n for n, entry in enumerate(self.entries) if entry.split == split]
        if not places:
            raise InputError(f"{self.root} has no split {split!r}.")
        entries = [self.entries[place] for place in places]
        ids = tuple(entry.id for entry in entries)
        groups = self.groups[places]
        files = dict.fromkeys(file for each in entries for file in (each.image, each.outlines))
        manifest = [list(ids), groups.tolist(), list(self.classes), hash_files(list(files))]
        division = {entry.id: entry.split for entry in self.entries}
        return InstanceImages(
            dataset=self.dataset,
            split=split,
            ids=ids,
            groups=groups,
            grouped_by=self.grouped_by,
            classes=self.classes,
            mpp=self.mpp,
            reader=partial(_read_one, self.read, entries),
            manifest_sha256=sha256_of(manifest),
            split_sha256=sha256_of([self.rule, division]),
        )


def make_instance_set(
    dataset: str,
    root: Path,
    classes: Sequence[str],
    mpp: float,
    entries: Sequence[Outlined],
    options: Options,
    *,
    read: Callable[[Outlined], Seen],
    rule: Sequence[str | float],
    grouped_by: str = IMAGE,
    findings: Iterable[Finding] = (),
) -> InstanceSet:
    """Brings entries together and groups them.

    A CSV or a column that `options` names goes before the groups of the entries; an entry without
    one is its own group.

    Raises:
        InputError: the CSV of groups is not as it should be.
    """
    ids = [entry.id for entry in entries]
    groups = np.array([entry.group or entry.id for entry in entries], dtype=np.str_)
    if options.group_column == NO_GROUPS:
        groups, grouped_by = np.array(ids, dtype=np.str_), IMAGE
    elif ids and (options.groups is not None or options.group_column is not None):
        groups, grouped_by = find_groups(root, ids, [""] * len(ids), options)
    division = [entry.split for entry in entries]
    crossing = groups_that_cross(root, ids, groups, division, is_fatal=True)
    return InstanceSet(
        dataset=dataset,
        root=root,
        classes=tuple(classes),
        mpp=mpp,
        entries=tuple(entries),
        groups=groups,
        grouped_by=grouped_by,
        read=read,
        rule=rule,
        findings=(*findings, *crossing),
    )


def renumber(numbers: NDArray[Any], where: Path) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbers the instances of a map from 1 to n, in the order of their numbers in it.

    Args:
        numbers: [H, W], whole numbers of any type, 0 background.
        where: the file that it is from, for messages.

    Returns:
        The map, int32 [H, W], and the number that instance k + 1 had, int64 [n].

    Raises:
        InputError: it is no map of whole numbers from 0 on.
    """
    if numbers.ndim != 2 or numbers.dtype.kind not in "biuf":
        raise InputError(
            f"{where}: an instance map is a matrix of numbers, not {numbers.dtype} {numbers.shape}."
        )
    if not numbers.size:
        return numbers.astype(np.int32), np.empty(0, dtype=np.int64)
    if numbers.dtype.kind == "f" and not (
        np.isfinite(numbers).all() and (np.rint(numbers) == numbers).all()
    ):
        raise InputError(f"{where}: the instance map has numbers that are not whole.")
    least, most = int(numbers.min()), int(numbers.max())
    if least < 0 or most >= _LARGEST:
        raise InputError(
            f"{where}: the instance map has the number {least if least < 0 else most}."
        )
    whole = numbers.astype(np.int64)
    if most > _DENSE * numbers.size:
        found, renumbered = np.unique(whole, return_inverse=True)
        has_background = int(found[0] == 0)
        renumbered = renumbered.reshape(numbers.shape) + (1 - has_background)
        return renumbered.astype(np.int32), found[has_background:]
    is_there = np.bincount(whole.ravel(), minlength=1) > 0
    is_there[0] = False
    return np.cumsum(is_there, dtype=np.int32)[whole], np.flatnonzero(is_there)


def check_size(instances: NDArray[np.int32], image: Image, entry: Outlined) -> None:
    """Goes on only if a map has the height and width of its image.

    Raises:
        InputError: it has not; the message names both files.
    """
    if instances.shape != image.shape[:2]:
        sizes = [f"{width} x {height}" for height, width in (instances.shape, image.shape[:2])]
        raise InputError(
            f"{entry.outlines} is for an image of {sizes[0]} pixels, and {entry.image} has "
            f"{sizes[1]}."
        )


def _read_one(
    read: Callable[[Outlined], Seen], entries: Sequence[Outlined], index: int
) -> Labelled:
    return read(entries[index]).labelled
