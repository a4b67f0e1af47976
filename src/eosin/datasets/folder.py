"""Any tree of folders in which an image's class is the folder that directly holds it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from eosin.datasets._base import Info, LabelledImages, Options, wrong_tree
from eosin.datasets._files import Entry, FileSet, make_file_set
from eosin.datasets._findings import Finding
from eosin.datasets._groups import find_groups
from eosin.datasets._verify import verify_files
from eosin.errors import InputError
from eosin.images.files import SUFFIXES

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
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads one split.

    Folders `train` and `test` (and `valid` or `val`) at the top are taken as they are; with `train`
    and `val` alone, the latter is the test split. Otherwise `options.test_share` of each class is
    held out, whole groups at a time.

    Raises:
        InputError: the tree has no two classes, a class cannot be divided, a group lies in several
            given splits, or an image cannot be read.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Decodes every image, and looks for copies and for groups that cross given splits.

    Raises:
        InputError: the tree is none of classes, or cannot be divided.
    """
    return verify_files(_scan(root, options), INFO)


def _scan(root: Path, options: Options) -> FileSet:
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
    if given is not None:
        _check_classes(root, given, class_of)
    entries = [
        Entry(
            id=image,
            of_class=class_of[image],
            split="" if given is None else given[image],
            group=group,
        )
        for image, group in zip(ids, groups.tolist(), strict=True)
    ]
    return make_file_set(
        root.resolve().name,
        root,
        classes,
        entries,
        replace(options, groups=None, group_column=None),
        grouped_by=grouped_by,
        rule=() if given is None else ("given folders",),
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


def _check_classes(root: Path, division: Mapping[str, str], class_of: Mapping[str, str]) -> None:
    trained = {class_of[image] for image, split in division.items() if split == "train"}
    unknown = sorted(set(class_of.values()) - trained)
    if unknown:
        raise InputError(f"{root}: class {unknown[0]} has no images in the training folder.")
