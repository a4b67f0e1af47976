"""Labelled images in files of their own: what a tree holds, how it is divided, and loading it."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import (
    NO_GROUPS,
    Image,
    LabelledImages,
    Options,
    hash_manifest,
)
from eosin.datasets._contents import hash_files
from eosin.datasets._division import hold_out
from eosin.datasets._findings import Finding, stop_at_fatal
from eosin.datasets._groups import find_groups
from eosin.errors import InputError
from eosin.images.files import read_image
from eosin.provenance import sha256_of

SPLITS = ("train", "valid", "test")
IMAGE = "image"  # what groups are called where nothing is known of them

_NAMED_ALONE = 3  # of the strays of a folder
_OF_THE_SYSTEM = ("thumbs.db", "desktop.ini")


def usable_splits(root: Path, there: Collection[str]) -> tuple[str, ...]:
    """Puts the splits that have images in order.

    Raises:
        InputError: there is nothing to train on or nothing to test on.
    """
    for split in ("train", "test"):
        if split not in there:
            raise InputError(f"{root} has no images of the {split} split.")
    return tuple(split for split in SPLITS if split in there)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One labelled file: its path relative to the root, its class, and what else is known of it."""

    id: str
    of_class: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class FileSet:
    """All that a tree of image files says of itself.

    Attributes:
        dataset: its name in results.
        root: what ids are relative to.
        classes: names in the order of the labels.
        ids: paths of the images [N], in order.
        labels: class of each, int64 [N].
        groups: group of each [N].
        grouped_by: what the groups are, in words.
        division: split of each [N].
        rule: what the division follows; part of its hash.
        findings: what was seen to be wrong on the way.
    """

    dataset: str
    root: Path
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    grouped_by: str
    division: tuple[str, ...]
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
        return usable_splits(self.root, self.division)

    def load(self, split: str) -> LabelledImages:
        """Loads one split; every file is read once, for its hash.

        Raises:
            InputError: there is no such split, or a finding stands in the way.
        """
        stop_at_fatal(self.findings)
        index = np.flatnonzero(np.array(self.division, dtype=np.str_) == split)
        if not len(index):
            raise InputError(f"{self.root} has no split {split!r}.")
        ids = tuple(self.ids[number] for number in index)
        paths = [self.root / image for image in ids]
        labels, groups = self.labels[index], self.groups[index]
        contents = hash_files(paths)
        return LabelledImages(
            dataset=self.dataset,
            split=split,
            ids=ids,
            labels=labels,
            groups=groups,
            grouped_by=self.grouped_by,
            classes=self.classes,
            reader=partial(_read_one, paths),
            manifest_sha256=hash_manifest(ids, labels, groups, contents),
            split_sha256=sha256_of(
                [self.rule, dict(zip(self.ids, self.division, strict=True))],
            ),
        )


def make_file_set(
    dataset: str,
    root: Path,
    classes: Sequence[str],
    entries: Sequence[Entry],
    options: Options,
    *,
    grouped_by: str = IMAGE,
    rule: Sequence[str | float] = (),
    findings: Iterable[Finding] = (),
) -> FileSet:
    """Brings entries together, groups them, and divides them where they have no splits.

    A CSV or a column that `options` names goes before the groups of the entries; an entry without
    one is its own group.

    Args:
        dataset: its name in results.
        root: what ids are relative to.
        classes: names in the order of the labels.
        entries: the images, in the order in which they are loaded.
        options: how they are grouped and divided.
        grouped_by: what the entries' groups are, in words.
        rule: what the entries' splits follow; by default they are divided here.
        findings: what was seen to be wrong while the entries were found.

    Raises:
        InputError: the CSV of groups is not as it should be, or a class cannot be divided.
    """
    ids = [entry.id for entry in entries]
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([place[entry.of_class] for entry in entries], dtype=np.int64)
    groups = np.array([entry.group or entry.id for entry in entries], dtype=np.str_)
    if options.group_column == NO_GROUPS:
        groups, grouped_by = np.array(ids, dtype=np.str_), IMAGE
    elif options.groups is not None or options.group_column is not None:
        groups, grouped_by = find_groups(root, ids, [e.of_class for e in entries], options)
    division: Sequence[str] = [entry.split for entry in entries]
    if not rule:
        division = divide_here(root, labels, groups, classes, options)
        rule = ("grouped and stratified, 1", options.test_share, options.split_seed)
    crossing = groups_that_cross(root, ids, groups, division, is_fatal=True)
    return FileSet(
        dataset=dataset,
        root=root,
        classes=tuple(classes),
        ids=tuple(ids),
        labels=labels,
        groups=groups,
        grouped_by=grouped_by,
        division=tuple(division),
        rule=rule,
        findings=(*findings, *crossing),
    )


def divide_here(
    root: Path,
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    classes: Sequence[str],
    options: Options,
) -> list[str]:
    """Holds a test part out, whole groups at a time, with the same share of every class.

    Raises:
        InputError: a class has too few groups to be on both sides.
    """
    if not len(labels):
        return []
    held_out = hold_out(labels, groups, options.test_share, options.split_seed)
    for number, name in enumerate(classes):
        if len(set(held_out[labels == number].tolist())) == 1:
            raise InputError(
                f"{root}: class {name} cannot be in training and test: its "
                f"{int((labels == number).sum()):,} images are of too few groups. Add images, "
                f"give a train and a test folder, or ignore groups with --group-column {NO_GROUPS}."
            )
    return ["test" if out else "train" for out in held_out.tolist()]


def groups_that_cross(
    root: Path,
    ids: Sequence[str],
    groups: NDArray[np.str_],
    division: Sequence[str],
    *,
    is_fatal: bool,
) -> list[Finding]:
    """Finds the groups that have images in several splits, one finding a group."""
    first: dict[str, str] = {}
    crossing: dict[str, Finding] = {}
    for image, group, split in zip(ids, groups.tolist(), division, strict=True):
        if first.setdefault(group, split) != split and group not in crossing:
            crossing[group] = Finding(
                kind="group",
                where=group,
                sentence=f"{root}: group {group} has images in {first[group]} and in {split}, "
                f"such as {image}, so the test would be no test. Move them, or ignore groups with "
                f"--group-column {NO_GROUPS}.",
                is_fatal=is_fatal,
            )
    return list(crossing.values())


def walk_files(base: Path) -> list[str]:
    """Lists the files at any depth, sorted, relative to `base` and with forward slashes.

    What is hidden and what systems leave behind (Thumbs.db) is passed over; links are followed, but
    none twice.
    """
    found: list[str] = []
    seen: set[str] = set()
    for folder, below, names in os.walk(base, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if not name.startswith("."))
        inside = Path(folder).relative_to(base).as_posix()
        found += [
            name if inside == "." else f"{inside}/{name}"
            for name in names
            if not name.startswith(".") and name.lower() not in _OF_THE_SYSTEM
        ]
    return sorted(found)


def strays(base: Path, files: Iterable[str], why: str) -> list[Finding]:
    """Makes a finding for each file that is left out, or one for its whole folder.

    Args:
        base: what the files are relative to.
        files: the files.
        why: what is wrong with one, such as `is in no class's folder`.
    """
    by_folder: dict[str, list[str]] = {}
    for file in files:
        by_folder.setdefault(file.rpartition("/")[0], []).append(file)
    found: list[Finding] = []
    for folder, members in by_folder.items():
        if len(members) > _NAMED_ALONE:
            name = members[0].rpartition("/")[2]
            sentence = f"{base / folder} holds {len(members):,} files like {name}, which {why}"
            found.append(_stray(folder, f"{sentence}; they are left out."))
        else:
            found += [_stray(each, f"{base / each} {why}; it is left out.") for each in members]
    return found


def _stray(where: str, sentence: str) -> Finding:
    return Finding(kind="stray", where=where, sentence=sentence)


def absent(base: Path, names: Mapping[str, str]) -> list[Finding]:
    """Makes a finding for each file that should be there, with what it is."""
    return [
        Finding(kind="missing", where=name, sentence=f"{base / name} is missing: {what}.")
        for name, what in names.items()
    ]


def _read_one(paths: Sequence[Path], index: int) -> Image:
    return read_image(paths[index])
