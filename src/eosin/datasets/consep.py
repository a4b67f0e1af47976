"""CoNSeP: colorectal adenocarcinoma at 40x, every nucleus outlined and typed."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import Info, Options, wrong_tree
from eosin.datasets._files import strays
from eosin.datasets._findings import Finding
from eosin.datasets._instances import (
    InstanceImages,
    InstanceSet,
    Labelled,
    Outlined,
    Seen,
    check_size,
    make_instance_set,
    renumber,
)
from eosin.datasets._mat_files import read_mat
from eosin.datasets._verify_instances import verify_instances
from eosin.errors import InputError, UsageError
from eosin.images.files import read_image

INFO = Info(
    title="CoNSeP, Colorectal Nuclear Segmentation and Phenotypes",
    licence="research use",
    citation="Graham et al. 2019, HoVer-Net: Simultaneous segmentation and classification of "
    "nuclei in multi-tissue histology images, Medical Image Analysis 58",
    source="https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet/",
    expected_tree="""
[CoNSeP/]
  Train/
    Images/  train_1.png … train_27.png   (1000 x 1000 pixels)
    Labels/  train_1.mat … train_27.mat   (inst_map, type_map or inst_type)
  Test/
    Images/  test_1.png … test_14.png
    Labels/  test_1.mat … test_14.mat
""",
    holds="instances",
    classes=("miscellaneous", "inflammatory", "epithelial", "spindle"),
    counts={"train": 27, "test": 14},
    groups="not published: the images are of 16 patients, and no file says which, so intervals are "
    "too narrow",
    division="official: folders Train and Test",
    image_px=(1000, 1000),
    mpp=0.25,
    how_to_get=(
        "Get consep_dataset.zip from https://warwick.ac.uk/fac/cross_fac/tia/data/hovernet/; where "
        "that link is dead, ask its authors, or use a copy with the same tree",
        "Unpack it, and put its folders Train and Test into {root}",
    ),
    remarks=(
        "Seven types are published: 1 other, 2 inflammatory, 3 healthy and 4 dysplastic or "
        "malignant epithelial, 5 fibroblast, 6 muscle, 7 endothelial. As in the paper, 3 and 4 are "
        "merged into epithelial and 5 to 7 into spindle; --nucleus-types original keeps the seven. "
        "Copies with four types are taken as they are: which it is tells the largest type of all.",
        "Its README asks for the citation and names no licence.",
        "The README and the paper count 24,319 nuclei; a copy of the label files has 24,332, of "
        "which 15,555 are for training.",
    ),
)

ORIGINAL = (
    "other",
    "inflammatory",
    "healthy epithelial",
    "dysplastic or malignant epithelial",
    "fibroblast",
    "muscle",
    "endothelial",
)
_MERGED = np.array([0, 1, 2, 3, 3, 4, 4, 4])
_FOLDERS = {"train": "Train", "test": "Test"}
_MAPS = ("inst_map", "type_map", "inst_type")

_Known = tuple[str, int, int]
_largest_types: dict[_Known, int] = {}
_lock = threading.Lock()


def recognises(root: Path) -> bool:
    """Whether `Train` or `Test` with CoNSeP's label files lies in `root` or in its `CoNSeP`."""
    return _base(root) is not None


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits that `load` takes here."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> InstanceImages:
    """Loads an official split, with the types that `options.nucleus_types` names.

    Raises:
        InputError: an image has no labels, labels have no image, or a type is unknown.
        UsageError: the seven original types are asked for, and this copy has them merged.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the tree against what is published, and reads every image and its labels."""
    return verify_instances(_scan(root, options), INFO)


def _base(root: Path) -> Path | None:
    for inner in (root, root / "CoNSeP", root / "consep"):
        for split, folder in _FOLDERS.items():
            if any((inner / folder / "Labels").glob(f"{split}_*.mat")):
                return inner
    return None


def _scan(root: Path, options: Options) -> InstanceSet:
    base = _base(root)
    if base is None:
        raise wrong_tree(root, "no label files of CoNSeP.", INFO.expected_tree)
    entries: list[Outlined] = []
    findings: list[Finding] = []
    largest: list[int] = []
    for split, folder in _FOLDERS.items():
        paired, wrong = _pairs(base, split, folder)
        findings += wrong
        for entry in paired:
            try:
                largest.append(_largest_type(entry.outlines))
                entries.append(entry)
            except InputError as error:
                findings.append(_unusable(entry, error))
    is_original = max(largest, default=0) > len(INFO.classes)
    if options.nucleus_types == "original" and not is_original:
        raise UsageError(
            f"{base} has its types merged into four already; --nucleus-types original needs the "
            "published label files, which have seven."
        )
    keeps_all = options.nucleus_types == "original"
    type_of = _MERGED if is_original and not keeps_all else np.arange(len(_MERGED))
    return make_instance_set(
        "consep",
        base,
        ORIGINAL if keeps_all else INFO.classes,
        INFO.mpp or 0.25,
        entries,
        options,
        read=lambda entry: _read(entry, type_of),
        rule=("CoNSeP, official", 1),
        findings=findings,
    )


def _pairs(base: Path, split: str, folder: str) -> tuple[list[Outlined], list[Finding]]:
    """Pairs the images of a split with their labels; either without the other is fatal."""
    images, odd_images = _by_stem(base, f"{folder}/Images", ".png")
    labels, odd_labels = _by_stem(base, f"{folder}/Labels", ".mat")
    findings = strays(base, [*odd_images, *odd_labels], "is no image and no label file of CoNSeP")
    for stem in sorted(images.keys() ^ labels.keys(), key=_in_order):
        image, label = f"{folder}/Images/{stem}.png", f"{folder}/Labels/{stem}.mat"
        there, what, absent = (
            (image, "labels", label) if stem in images else (label, "image", image)
        )
        sentence = f"{base / there} has no {what}: {base / absent} is missing."
        findings.append(Finding(kind="missing", where=absent, sentence=sentence, is_fatal=True))
    entries = [
        Outlined(
            id=f"{folder}/Images/{stem}.png", split=split, image=images[stem], outlines=labels[stem]
        )
        for stem in sorted(images.keys() & labels.keys(), key=_in_order)
    ]
    return entries, findings


def _by_stem(base: Path, folder: str, suffix: str) -> tuple[dict[str, Path], list[str]]:
    """Gives the files of a folder by their stems, and the names of those that are others."""
    found: dict[str, Path] = {}
    others: list[str] = []
    for path in sorted((base / folder).glob("*")):
        if path.name.startswith(".") or path.name.lower() == "thumbs.db":
            continue
        if path.suffix == suffix and path.is_file():
            found[path.stem] = path
        else:
            others.append(f"{folder}/{path.name}")
    return found, others


def _in_order(stem: str) -> tuple[str, int, str]:
    """Sorts train_2 before train_10."""
    text = stem.rstrip("0123456789")
    return text, int(stem[len(text) :] or 0), stem


def _largest_type(path: Path) -> int:
    """Gives the largest type of a label file; within a process each is read once.

    Raises:
        InputError: it has no types, or others than CoNSeP's.
    """
    facts = path.stat()
    key = (str(path.absolute()), facts.st_size, facts.st_mtime_ns)
    with _lock:
        known = _largest_types.get(key)
    if known is None:
        content = read_mat(path, ("inst_type",)) or read_mat(path, ("type_map",))
        if not content:
            raise InputError(f"{path} has neither type_map nor inst_type.")
        types = next(iter(content.values()))
        known = int(_codes(types, np.arange(len(_MERGED)), path).max(initial=0))
        with _lock:
            _largest_types[key] = known
    return known


def _unusable(entry: Outlined, error: InputError) -> Finding:
    return Finding(kind="label", where=entry.id, sentence=str(error), is_fatal=True)


def _read(entry: Outlined, type_of: NDArray[np.int64]) -> Seen:
    image, content = read_image(entry.image), read_mat(entry.outlines, _MAPS)
    if "inst_map" not in content:
        raise InputError(f"{entry.outlines} has no inst_map.")
    instances, numbers = renumber(content["inst_map"], entry.outlines)
    check_size(instances, image, entry)
    listed = _listed(content.get("inst_type"), numbers, type_of, entry.outlines)
    types = listed
    if "type_map" in content:
        types = _types_of_pixels(instances, len(numbers), content["type_map"], type_of, entry)
        if listed is not None:
            types = np.where(types > 0, types, listed)
    if types is None or not types.all():
        first = 1 if types is None else int(numbers[np.flatnonzero(types == 0)[0]])
        raise InputError(f"{entry.outlines}: nucleus {first} has no type.")
    oddities = tuple(_oddities(entry, content, types, listed))
    return Seen(labelled=Labelled(image, instances, types - 1), oddities=oddities)


def _types_of_pixels(
    instances: NDArray[np.int32],
    count: int,
    types: NDArray[Any],
    type_of: NDArray[np.int64],
    entry: Outlined,
) -> NDArray[np.int64]:
    """Gives the type of most pixels of each nucleus, and 0 where none has one."""
    if types.shape != instances.shape:
        raise InputError(
            f"{entry.outlines}: type_map is {types.shape}, and inst_map is {instances.shape}."
        )
    codes = _codes(types, type_of, entry.outlines)
    n_codes = int(type_of.max()) + 1
    inside = instances > 0
    joint = (instances[inside].astype(np.int64) - 1) * n_codes + codes[inside]
    votes = np.bincount(joint, minlength=count * n_codes).reshape(count, n_codes)
    votes[:, 0] = 0
    return votes.argmax(1)


def _listed(
    types: NDArray[Any] | None, numbers: NDArray[np.int64], type_of: NDArray[np.int64], path: Path
) -> NDArray[np.int64] | None:
    """Gives the types that a label file lists, in the order of the nuclei that have pixels."""
    if types is None:
        return None
    codes = _codes(types.ravel(), type_of, path)
    if len(codes) == len(numbers):
        return codes
    # One for each number up to the largest, some of which have no pixels.
    return codes[numbers - 1] if len(numbers) and len(codes) == numbers.max() else None


def _codes(types: NDArray[Any], type_of: NDArray[np.int64], path: Path) -> NDArray[np.int64]:
    is_known = (types >= 0) & (types < len(type_of)) & (np.floor(types) == types)
    if not is_known.all():
        raise InputError(
            f"{path} has the type {types[~is_known].flat[0]:g}; CoNSeP's types go from 1 to "
            f"{len(ORIGINAL)}."
        )
    return type_of[types.astype(np.int64)]


def _oddities(
    entry: Outlined,
    content: dict[str, NDArray[Any]],
    types: NDArray[np.int64],
    listed: NDArray[np.int64] | None,
) -> Iterator[str]:
    if "inst_type" in content and content["inst_type"].size != len(types):
        yield (
            f"{entry.outlines} lists the types of {content['inst_type'].size:,} nuclei, and "
            f"{len(types):,} have pixels."
        )
    if listed is not None and (differ := np.flatnonzero(listed != types)).size:
        yield (
            f"{entry.outlines}: {differ.size:,} nuclei have another type in inst_type than in "
            f"type_map, the first of them nucleus {differ[0] + 1:,} of {len(types):,}."
        )
