"""MoNuSeg 2018: nuclei of many organs at 40x, outlined one by one and without types."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from eosin.datasets._base import Info, Options, wrong_tree
from eosin.datasets._findings import Finding
from eosin.datasets._imagescope import rasterise, read_outlines
from eosin.datasets._instances import (
    UNTYPED,
    InstanceImages,
    InstanceSet,
    Labelled,
    Outlined,
    Seen,
    make_instance_set,
    renumber,
)
from eosin.datasets._verify_instances import verify_instances
from eosin.images.files import read_image

INFO = Info(
    title="MoNuSeg, Multi-organ Nucleus Segmentation Challenge 2018",
    licence="CC BY-NC-SA 4.0",
    licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
    citation="Kumar et al. 2020, A Multi-organ Nucleus Segmentation Challenge, IEEE Transactions "
    "on Medical Imaging 39(5); Kumar et al. 2017, 36(7)",
    source="https://monuseg.grand-challenge.org/Data/",
    expected_tree="""
MoNuSeg 2018 Training Data/
  Tissue Images/  TCGA-….tif   (37 images, 1000 x 1000 pixels)
  Annotations/    TCGA-….xml   (outlines of Aperio ImageScope, of the same names)
MoNuSegTestData/
  TCGA-….tif and TCGA-….xml    (14 images)
""",
    holds="instances",
    classes=UNTYPED,
    counts={"train": 37, "test": 14},
    groups="patient: the first twelve characters of the TCGA barcode in the name",
    division="official: training and test data of the challenge",
    image_px=(1000, 1000),
    mpp=0.25,
    how_to_get=(
        "Follow the links to the training and the testing data on "
        "https://monuseg.grand-challenge.org/Data/",
        "Unpack both archives into {root}, each in a folder whose name says Train or Test",
    ),
    remarks=(
        "The challenge began with 30 training images, and seven were added; with the 30, verify "
        "says that seven are missing.",
        "Where outlines overlap, the first keeps its pixels, as in the organisers' MATLAB code. A "
        "pixel belongs to an outline where its centre does, counted from the image's corner; that "
        "code counts as MATLAB does, where the corner is at 0.5, so that its masks lie half a "
        "pixel further up and left.",
    ),
)

# Folders that are looked into: those of the archives, and what copies are called.
_INSIDE = re.compile(r"monuseg|train|test|tissue|image|annotation|label", re.IGNORECASE)
_IMAGE_NAME = re.compile(r"(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(-[\w-]+)?")
_DEPTH = 4


def recognises(root: Path) -> bool:
    """Whether an image with its outlines lies in a folder for training or testing below `root`."""
    images, outlines = _find(root)
    return bool(images.keys() & outlines.keys())


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> InstanceImages:
    """Loads an official split.

    Raises:
        InputError: an image has no outlines, or outlines have no image.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the tree against what is published, and reads every image and its outlines."""
    return verify_instances(_scan(root, options), INFO)


_Files = dict[tuple[str, str], list[Path]]


def _find(root: Path) -> tuple[_Files, _Files]:
    """Finds images and outlines by their split and their stem."""
    found: dict[str, _Files] = {".tif": {}, ".xml": {}}
    for path in _walk(root, _DEPTH):
        split = _split_of(path.relative_to(root).parts[:-1])
        if split and _IMAGE_NAME.fullmatch(path.stem) and path.suffix in found:
            found[path.suffix].setdefault((split, path.stem), []).append(path)
    return found[".tif"], found[".xml"]


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """Yields the files of a folder and of those below it that are called as expected."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if not entry.is_dir():
            yield Path(entry.path)
        elif depth > 1 and _INSIDE.search(entry.name):
            yield from _walk(Path(entry.path), depth - 1)


def _split_of(folders: tuple[str, ...]) -> str:
    """Tells the split by the innermost folder that is called after one."""
    for name in reversed(folders):
        for split in ("train", "test"):
            if split in name.lower():
                return split
    return ""


def _scan(root: Path, options: Options) -> InstanceSet:
    images, outlines = _find(root)
    if not images or not outlines:
        raise wrong_tree(
            root, "no images with outlines for training or testing.", INFO.expected_tree
        )
    findings = [
        *_without(images, outlines, "outlines, a file of the same name in .xml"),
        *_without(outlines, images, "image, a file of the same name in .tif"),
        *_twice(images),
        *_twice(outlines),
    ]
    entries = [
        Outlined(
            id=f"{split}/{stem}",
            split=split,
            image=images[split, stem][0],
            outlines=outlines[split, stem][0],
            group=stem[: len("TCGA-00-0000")],
        )
        for split, stem in sorted(images.keys() & outlines.keys(), key=_training_first)
    ]
    return make_instance_set(
        "monuseg",
        root,
        INFO.classes,
        INFO.mpp or 0.25,
        entries,
        options,
        read=_read,
        grouped_by="patient",
        rule=("MoNuSeg 2018, official", 1),
        findings=findings,
    )


def _training_first(key: tuple[str, str]) -> tuple[bool, str]:
    return key[0] != "train", key[1]


def _without(files: _Files, others: _Files, what: str) -> Iterator[Finding]:
    for key, paths in files.items():
        if key not in others:
            sentence = f"{paths[0]} has no {what}."
            where = "/".join(key)
            yield Finding(kind="missing", where=where, sentence=sentence, is_fatal=True)


def _twice(files: _Files) -> Iterator[Finding]:
    for key, paths in files.items():
        for path in paths[1:]:
            sentence = f"{path} is there as {paths[0]} too; it is left out."
            yield Finding(kind="stray", where="/".join(key), sentence=sentence)


def _read(entry: Outlined) -> Seen:
    image, outlines = read_image(entry.image), read_outlines(entry.outlines)
    instances, kept = renumber(rasterise(outlines, *image.shape[:2]), entry.outlines)
    lost = len(outlines) - len(kept)
    oddities = (
        f"{entry.outlines}: {lost:,} of {len(outlines):,} outlines have no pixel of their own; "
        "they are left out.",
    )
    types = np.zeros(len(kept), dtype=np.int64)
    return Seen(labelled=Labelled(image, instances, types), oddities=oddities if lost else ())
