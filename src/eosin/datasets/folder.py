"""Any tree of folders in which an image's class is the folder that directly holds it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import (
    NO_GROUPS,
    Image,
    Info,
    LabelledImages,
    Options,
    hash_manifest,
    wrong_tree,
)
from eosin.datasets._division import hold_out
from eosin.datasets._groups import find_groups
from eosin.errors import InputError
from eosin.images.files import SUFFIXES, read_image
from eosin.provenance import sha256_of, sha256_of_file

INFO = Info(
    title="Folder of images, one folder a class",
    licence="that of your images",
    citation="",
    source="your own disk",
    expected_tree="""
[train/ and test/ (and valid/), if the division is given]
  [any folders between]
    CLASS_A/  *.jpg *.jpeg *.png *.tif *.tiff *.bmp
    CLASS_B/  …
[groups.csv: the columns file and patient, slide, source_image or group]
""",
)

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "valid",
    "valid": "valid",
    "validation": "valid",
    "test": "test",
    "testing": "test",
}


def recognises(root: Path) -> bool:
    """Whether any image lies below `root`."""
    return any(
        Path(name).suffix.lower() in SUFFIXES for _, _, names in os.walk(root) for name in names
    )


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    division = _scan(root, options).division.values()
    return tuple(split for split in ("train", "valid", "test") if split in division)


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads one split.

    Folders `train` and `test` (and `valid` or `val`) at the top are taken as they are; with `train`
    and `val` alone, the latter is the test split. Otherwise `options.test_share` of each class is
    held out, whole groups at a time.

    Raises:
        InputError: the tree has no two classes, a class cannot be divided, a group lies in several
            given splits, or an image cannot be read.
    """
    tree = _scan(root, options)
    chosen = [image for image in tree.ids if tree.division[image] == split]
    if not chosen:
        raise InputError(f"{root} has no split {split!r}.")
    labels = np.array(
        [tree.classes.index(tree.class_of[image]) for image in chosen], dtype=np.int64
    )
    groups = np.array([tree.group_of[image] for image in chosen])
    paths = [root / image for image in chosen]
    contents = [sha256_of_file(path) for path in paths]
    return LabelledImages(
        dataset=root.resolve().name,
        split=split,
        ids=tuple(chosen),
        labels=labels,
        groups=groups,
        grouped_by=tree.grouped_by,
        classes=tree.classes,
        reader=partial(_read_one, paths),
        manifest_sha256=hash_manifest(chosen, labels, groups, contents),
        split_sha256=sha256_of([tree.rule, tree.division]),
    )


@dataclass(frozen=True, kw_only=True)
class _Tree:
    ids: Sequence[str]
    class_of: Mapping[str, str]
    classes: tuple[str, ...]
    group_of: Mapping[str, str]
    grouped_by: str
    division: Mapping[str, str]
    rule: Sequence[str | float]


def _scan(root: Path, options: Options) -> _Tree:
    ids = _image_ids(root)
    class_of = {image: Path(image).parent.name for image in ids}
    given = _given_division(root, ids)
    classes = tuple(sorted(set(class_of.values())))
    if len(classes) < 2:
        problem = (
            f"{len(classes)} class{'' if classes else 'es'} of images found, and 2 are needed."
        )
        raise wrong_tree(root, problem, INFO.expected_tree)
    groups, grouped_by = find_groups(root, ids, list(class_of.values()), options)
    group_of = dict(zip(ids, groups.tolist(), strict=True))
    if given is None:
        labels = np.array([classes.index(class_of[image]) for image in ids], dtype=np.int64)
        division = _own_division(root, ids, labels, groups, classes, options)
        rule = ("grouped and stratified, 1", options.test_share, options.split_seed)
    else:
        division, rule = given, ("given folders",)
        _check_given(root, division, class_of, group_of)
    return _Tree(
        ids=ids,
        class_of=class_of,
        classes=classes,
        group_of=group_of,
        grouped_by=grouped_by,
        division=division,
        rule=rule,
    )


def _image_ids(root: Path) -> list[str]:
    ids: list[str] = []
    for folder, inner, names in os.walk(root, followlinks=True):
        inner[:] = [name for name in inner if not name.startswith(".")]
        images = [
            name
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
        if images and Path(folder) == root:
            problem = f"{len(images):,} images lie beside the class folders, such as {images[0]}."
            raise wrong_tree(root, problem, INFO.expected_tree)
        ids += [(Path(folder) / name).relative_to(root).as_posix() for name in images]
    return sorted(ids)


def _given_division(root: Path, ids: Sequence[str]) -> dict[str, str] | None:
    """Reads the splits from the top folders, where they are named so."""
    tops = {image.partition("/")[0] for image in ids}
    named = {top: _SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in _SPLIT_FOLDERS}
    if "train" not in named.values() or len(named) < 2:
        return None
    if named.keys() != tops:
        other = ", ".join(sorted(tops - named.keys()))
        raise wrong_tree(root, f"{other} lies beside the split folders.", INFO.expected_tree)
    if len(set(named.values())) < len(named):
        problem = f"two folders for one split among {', '.join(sorted(tops))}."
        raise wrong_tree(root, problem, INFO.expected_tree)
    if "test" not in named.values():
        named = {top: "test" if split == "valid" else split for top, split in named.items()}
    loose = [image for image in ids if image.count("/") == 1]
    if loose:
        raise wrong_tree(root, f"{loose[0]} lies in no class folder.", INFO.expected_tree)
    return {image: named[image.partition("/")[0]] for image in ids}


def _own_division(
    root: Path,
    ids: Sequence[str],
    labels: NDArray[np.int64],
    groups: NDArray[np.str_],
    classes: Sequence[str],
    options: Options,
) -> dict[str, str]:
    held_out = hold_out(labels, groups, options.test_share, options.split_seed)
    for number, name in enumerate(classes):
        if len(set(held_out[labels == number].tolist())) < 2:
            raise InputError(
                f"{root}: class {name} cannot be in training and test: its "
                f"{int((labels == number).sum()):,} images are of too few groups. Add images, "
                f"give a train and a test folder, or ignore groups with --group-column {NO_GROUPS}."
            )
    return {image: "test" if out else "train" for image, out in zip(ids, held_out, strict=True)}


def _check_given(
    root: Path,
    division: Mapping[str, str],
    class_of: Mapping[str, str],
    group_of: Mapping[str, str],
) -> None:
    trained = {class_of[image] for image, split in division.items() if split == "train"}
    unknown = sorted(set(class_of.values()) - trained)
    if unknown:
        raise InputError(f"{root}: class {unknown[0]} has no images in the training folder.")
    split_of: dict[str, str] = {}
    for image, split in division.items():
        first = split_of.setdefault(group_of[image], split)
        if first != split:
            raise InputError(
                f"{root}: group {group_of[image]} has images in {first} and in {split}, such as "
                f"{image}, so the test would be no test. Move them, or ignore groups with "
                f"--group-column {NO_GROUPS}."
            )


def _read_one(paths: Sequence[Path], index: int) -> Image:
    return read_image(paths[index])
