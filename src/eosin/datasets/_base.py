"""The contract of a labelled dataset, and how one is found by its name or its content.

A module of this folder is a choice. It has `INFO`, `recognises(root)`, `splits(root, options)`,
`load(root, split, options)` and `verify(root, options)`. `load` gives `LabelledImages`, or where
`INFO.holds` says `instances`, the `InstanceImages` of `_instances.py`.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from eosin import plugins
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of

Image = NDArray[np.uint8]

NO_GROUPS = "none"
_ANY_TREE = "folder"
_OWN_FILES = (_ANY_TREE, "csv_table")


ALL = "all"
"""Key of `Info.class_counts` for all splits together, where their division is our own."""


@dataclass(frozen=True, kw_only=True)
class Archive:
    """A published file that holds a dataset or a part of it.

    Attributes:
        url: its address, by https; a `.zip` or `.gz` is unpacked, any other file is kept as it is.
        hosts: who may be asked for it, also by way of redirects.
        checksum: kind and hash, such as `md5:2fd1651b4f94ebd818ebf90ad2b6ce06`.
        gives: what it leaves below the dataset's folder; where that is, it is not fetched again.
        most_bytes: more than that its content cannot have.
        size_bytes: its length where it is published.
        leaves_out: how names in it begin that are not unpacked.
    """

    url: str
    hosts: tuple[str, ...]
    checksum: str
    gives: str
    most_bytes: int
    size_bytes: int | None = None
    leaves_out: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name, as its address has it."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True, kw_only=True)
class Info:
    """What a user has to know before he has a dataset.

    Attributes:
        title: full name.
        licence: of the images and labels.
        citation: the paper to cite.
        source: where to get it.
        expected_tree: how its files must lie below the root.
        classes: names in the order of the labels; empty where the files decide.
        counts: images of each split; empty where the files decide.
        class_counts: images of each class, by split, or under `ALL`; empty where unknown.
        groups: what the groups are, and for which images they are known.
        division: where the splits come from.
        image_px: width and height of every image; `None` where they differ.
        mpp: micrometres a pixel; `None` where unknown or different.
        download_bytes: what `eosin datasets get` fetches, roughly.
        installed_bytes: what it takes on the disk then, roughly.
        licence_url: where the licence is.
        archives: what `eosin datasets get` fetches; empty where it cannot.
        how_to_get: what to do by hand, a step each, where there are no archives.
        remarks: what else to know, above all where sources contradict each other.
        holds: `labels`, one class an image, or `instances`, nuclei that are outlined one by one.
        instances: nuclei of each split, or under `ALL`; empty where unknown.
    """

    title: str
    licence: str
    citation: str
    source: str
    expected_tree: str
    classes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    class_counts: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict[str, Mapping[str, int]]
    )
    groups: str = "as the files say"
    division: str = "as the files say"
    image_px: tuple[int, int] | None = None
    mpp: float | None = None
    download_bytes: int | None = None
    installed_bytes: int | None = None
    licence_url: str = ""
    archives: tuple[Archive, ...] = ()
    how_to_get: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    holds: Literal["labels", "instances"] = "labels"
    instances: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def images(self) -> int | None:
        """How many images it has; `None` where the files decide."""
        counted = self.counts or self.class_counts.get(ALL, {})
        return sum(counted.values()) or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a dataset without official splits or groups is grouped and divided."""

    groups: Path | None = None
    """CSV that names the patient, slide or source image of each file; found by itself when exactly
    one CSV with such a column lies in the root."""
    group_column: str | None = None
    """Column of that CSV that names the group; `none`: every image stands for itself."""
    test_share: float = 0.3
    """Share of the images that is held out for testing where no test folder exists."""
    split_seed: int = 0
    """Seed of that division."""
    magnification: Literal["40X", "100X", "200X", "400X"] = "40X"
    """Which of the images are taken where each is there at several magnifications (BreakHis)."""
    fold_split: Literal[1, 2, 3] = 1
    """Which of the three published roles of its folds are taken (PanNuke): 1 trains on fold 1,
    validates on 2 and tests on 3; 2 on 2, 1 and 3; 3 on 3, 2 and 1."""
    nucleus_types: Literal["merged", "original"] = "merged"
    """Whether the seven types of nuclei are merged into four, as is usual (CoNSeP)."""

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise UsageError(f"--test-share {self.test_share} must lie between 0 and 1.")


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImages:
    """One split of a dataset; images are read when asked for, by any number of threads.

    Attributes:
        dataset: name of the dataset.
        split: `train`, `valid` or `test`.
        ids: one name an image, unique in the dataset and the same on every machine.
        labels: index into `classes` of each image, int64.
        groups: patient, slide or source image of each image; its id where none is known.
        grouped_by: what the groups are, in words.
        classes: class names.
        reader: gives image number i as uint8 RGB [H, W, 3].
        manifest_sha256: hash of the ids, the labels, the groups and the images' bytes.
        split_sha256: hash of how the whole dataset is divided; the same for all of its splits.
    """

    dataset: str
    split: str
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    groups: NDArray[np.str_]
    grouped_by: str
    classes: tuple[str, ...]
    reader: Callable[[int], Image]
    manifest_sha256: str
    split_sha256: str

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> Image:
        """Reads one image as uint8 RGB [H, W, 3].

        Raises:
            InputError: it cannot be read; the message names the file.
        """
        return self.reader(index)


def hash_manifest(
    ids: Sequence[str], labels: NDArray[np.int64], groups: NDArray[np.str_], contents: Sequence[str]
) -> str:
    """Hashes what a split consists of; `contents` are hashes of the files that hold the images."""
    return sha256_of([list(ids), labels.tolist(), groups.tolist(), list(contents)])


def check_labelled(module: ModuleType, root: Path) -> None:
    """Goes on only if a dataset's images have labels.

    Args:
        module: the dataset, as `find_dataset` gives it.
        root: where it lies, for the message.

    Raises:
        UsageError: it holds outlined nuclei instead.
    """
    info: Info = module.INFO
    if info.holds != "labels":
        raise UsageError(
            f"{module.__name__.rpartition('.')[2]} in {root} holds outlined nuclei, and its images "
            "have no labels; name a data set of labelled images, or find its nuclei with: eosin "
            "evaluate ENCODER --task nuclei"
        )


def find_dataset(root: Path, name: str | None = None) -> ModuleType:
    """Gives the dataset module of that name, or else the one that recognises the content of `root`.

    Raises:
        InputError: `root` is no folder.
        UsageError: there is no such name, or several datasets recognise the content.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise InputError(f"{root} {what}; give the folder that holds the dataset.")
    if name is not None:
        return plugins.load("datasets", name)
    found = [each for each in plugins.names("datasets") if each != _ANY_TREE]
    found = [each for each in found if plugins.load("datasets", each).recognises(root)]
    if len(found) > 1:
        raise UsageError(f"{root} may be {' or '.join(found)}; say which with --dataset NAME.")
    return plugins.load("datasets", found[0] if found else _ANY_TREE)


def data_folder() -> Path:
    """The folder of installed data sets: `$EOSIN_DATA`, or `data` in the working folder."""
    return Path(os.environ.get("EOSIN_DATA") or "data")


def installed_root(name: str, folder: Path | None = None) -> Path | None:
    """Gives the folder of a dataset where it is installed, and `None` where it is not.

    Args:
        name: of the dataset.
        folder: where data sets are installed; by default `data_folder()`.
    """
    root = (data_folder() if folder is None else folder) / name
    return root if root.is_dir() and plugins.load("datasets", name).recognises(root) else None


def resolve_root(name_or_path: Path | str, folder: Path | None = None) -> Path:
    """Gives the folder of a dataset: the path itself, or that of an installed one by its name.

    Args:
        name_or_path: what the user typed; a path that exists goes first.
        folder: where data sets are installed; by default `data_folder()`.

    Raises:
        InputError: the dataset of that name is not installed; the message says how to get it.
    """
    path, name = Path(name_or_path), str(name_or_path)
    own = [each for each in plugins.names("datasets") if each not in _OWN_FILES]
    if path.exists() or name not in own:
        return path
    root = installed_root(name, folder)
    if root is None:
        raise InputError(
            f"{name} is not in {data_folder() if folder is None else folder}. Get it with: eosin "
            f"datasets get {name}; or give the path of its folder, or set EOSIN_DATA to the folder "
            f"that has {name}/."
        )
    return root


def describe_tree(root: Path, most_lines: int = 12) -> str:
    """Draws what lies in a folder, two levels deep, for error messages."""
    lines: list[str] = []
    for path in sorted(root.iterdir()):
        lines.append(f"  {path.name}{'/' if path.is_dir() else ''}")
        if path.is_dir():
            inner = sorted(path.iterdir())
            lines += [f"    {each.name}{'/' if each.is_dir() else ''}" for each in inner[:3]]
            lines += [f"    … {len(inner) - 3:,} more"] if len(inner) > 3 else []
    if len(lines) > most_lines:
        lines = [*lines[:most_lines], f"  … {len(lines) - most_lines:,} more lines"]
    return "\n".join(lines) or "  (nothing)"


def wrong_tree(root: Path, problem: str, expected_tree: str) -> InputError:
    """Makes the error for files that do not lie as they should, with both trees drawn."""
    expected = re.sub(r"(?m)^", "  ", expected_tree.strip("\n"))
    return InputError(f"{root}: {problem}\nExpected:\n{expected}\nFound:\n{describe_tree(root)}")
