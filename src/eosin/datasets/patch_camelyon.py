"""PatchCamelyon: 96-px patches of lymph nodes, with or without tumour in their centre, as HDF5."""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eosin.datasets import _pcam_files
from eosin.datasets._base import (
    Image,
    Info,
    LabelledImages,
    Options,
    hash_manifest,
    wrong_tree,
)
from eosin.datasets._contents import hash_files
from eosin.datasets._files import groups_that_cross, strays, walk_files
from eosin.datasets._findings import Finding
from eosin.datasets._verify import Checked, Look, in_order, look_at_pixels, verify_images
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of

INFO = Info(
    title="PatchCamelyon (PCam)",
    licence="CC0-1.0",
    citation="Veeling et al. 2018, Rotation Equivariant CNNs for Digital Pathology, MICCAI",
    source="https://github.com/basveeling/pcam",
    expected_tree="""
camelyonpatch_level_2_split_train_x.h5   (dataset x: [N, 96, 96, 3], uint8)
camelyonpatch_level_2_split_train_y.h5   (dataset y: [N, 1, 1, 1], 0 or 1)
camelyonpatch_level_2_split_test_x.h5
camelyonpatch_level_2_split_test_y.h5
[camelyonpatch_level_2_split_valid_x.h5, …_valid_y.h5]
[camelyonpatch_level_2_split_train_meta.csv, …: column wsi, the slide of each patch]
""",
    classes=("normal", "tumor"),
    counts={"train": 262_144, "valid": 32_768, "test": 32_768},
    groups="slide, where the meta files are there; eosin datasets get fetches them",
    division="official files; no slide is in two of them",
    image_px=(96, 96),
    mpp=0.97,
    licence_url="https://choosealicense.com/licenses/cc0-1.0/",
    download_bytes=8_000_000_000,
    installed_bytes=9_100_000_000,
    archives=_pcam_files.ARCHIVES,
    remarks=_pcam_files.REMARKS,
)

_STEM = _pcam_files.STEM
_KINDS = ("x.h5", "y.h5", "meta.csv")
_LEAST_SHARE = 0.45  # of the rarer class; published is "a 50/50 balance"
_CHUNK_CACHE_BYTES = 16 * 2**20


def recognises(root: Path) -> bool:
    """Whether files with the canonical names lie in `root`, packed or not."""
    return any(root.glob(f"{_STEM}*.h5")) or any(root.glob(f"{_STEM}*.h5.gz"))


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits whose files are here; training and test files must be.

    Raises:
        InputError: the files of one are missing or packed.
    """
    names = ["train", "valid", "test"]
    if not any(root.glob(f"{_STEM}valid_*")):
        names.remove("valid")
    for name in names:
        _file(root, name, "x")
        _file(root, name, "y")
    return tuple(names)


def load(root: Path, split: str, options: Options) -> LabelledImages:
    """Loads one official split; patches of one slide are a group where the meta CSV is there.

    Raises:
        InputError: a file is missing, packed, damaged, or of another shape or label.
        UsageError: groups or a column were given.
    """
    if options.groups is not None or options.group_column is not None:
        raise UsageError(
            f"--groups and --group-column are for folders of images; PatchCamelyon in {root} has "
            f"its slides in {_STEM}*_meta.csv."
        )
    x_file, y_file = _file(root, split, "x"), _file(root, split, "y")
    images, labels = _images_and_labels(root, split)
    ids = tuple(f"{split}/{number:06d}" for number in range(len(labels)))
    groups, grouped_by = _groups(root, split, ids)
    contents = hash_files([x_file, y_file])
    return LabelledImages(
        dataset="patch_camelyon",
        split=split,
        ids=ids,
        labels=labels,
        groups=groups,
        grouped_by=grouped_by,
        classes=INFO.classes,
        reader=partial(_read_one, images, x_file),
        manifest_sha256=hash_manifest(ids, labels, groups, contents),
        split_sha256=sha256_of(["official files", _counts(root, options)]),
    )


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks every file against what is published, and reads every row.

    Raises:
        InputError: a file is missing, packed, damaged, or of another shape or label.
    """
    known = {f"{_STEM}{split}_{kind}" for split in INFO.counts for kind in _KINDS}
    others = [name for name in walk_files(root) if name.removesuffix(".gz") not in known]
    found = strays(root, others, "is none of PatchCamelyon's files")
    names = splits(root, options)
    rows = [_Rows(root, split) for split in names]
    starts = np.cumsum([0, *(len(each) for each in rows)])

    def look(index: int) -> Look:
        number = int(np.searchsorted(starts, index, side="right")) - 1
        return look_at_pixels(rows[number].read(index - int(starts[number])))

    checked = Checked(
        root=root,
        places=[place for each in rows for place in each.places()],
        labels=np.concatenate([each.labels for each in rows]),
        division=[each.split for each in rows for _ in range(len(each))],
        classes=INFO.classes,
        look=look,
    )
    found += verify_images(checked, INFO)
    found += _balance(rows)
    groups = np.concatenate([each.groups for each in rows])
    found += groups_that_cross(root, checked.places, groups, checked.division, is_fatal=False)
    return in_order(found)


class _Rows:
    """The rows of one split's files."""

    def __init__(self, root: Path, split: str) -> None:
        self.split = split
        self.file = _file(root, split, "x")
        self.images, self.labels = _images_and_labels(root, split)
        ids = tuple(f"{split}/{number:06d}" for number in range(len(self.labels)))
        self.groups, _ = _groups(root, split, ids)

    def __len__(self) -> int:
        return len(self.labels)

    def places(self) -> Iterator[str]:
        """Names each row."""
        return (f"{self.file.name}, row {number}" for number in range(len(self)))

    def read(self, row: int) -> Image:
        """Reads one row."""
        return _read_one(self.images, self.file, row)


def _balance(rows: list[_Rows]) -> Iterator[Finding]:
    """Yields the splits that are not half tumour, as all are by their publishers' word."""
    for each in rows:
        if not _LEAST_SHARE <= each.labels.mean() <= 1 - _LEAST_SHARE:
            sentence = (
                f"{each.file}: {int(each.labels.sum()):,} of {len(each):,} patches are tumour; "
                "published is one half."
            )
            yield Finding(kind="count", where=each.split, sentence=sentence)


def _images_and_labels(root: Path, split: str) -> tuple[Any, NDArray[np.int64]]:
    x_file, y_file = _file(root, split, "x"), _file(root, split, "y")
    images, labels = _dataset(x_file, "x"), _labels(y_file)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise InputError(
            f"{x_file}: x is {images.dtype} {images.shape}; it must be uint8 [N, 96, 96, 3]."
        )
    if len(images) != len(labels):
        raise InputError(f"{x_file} holds {len(images):,} images, {y_file} {len(labels):,} labels.")
    return images, labels


def _file(root: Path, split: str, kind: str) -> Path:
    path = root / f"{_STEM}{split}_{kind}.h5"
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file() and packed.is_file():
        raise InputError(
            f"{packed} is packed, and patches are read in place: gunzip {packed}, or fetch the "
            "data set with: eosin datasets get patch_camelyon"
        )
    if not path.is_file():
        raise wrong_tree(root, f"{path.name} is missing.", INFO.expected_tree)
    return path


def _dataset(path: Path, key: str) -> Any:
    """Gives an HDF5 dataset, which keeps its file open as long as it lives."""
    try:
        return h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES)[key]
    except OSError as error:
        raise InputError(f"{path} is damaged or not HDF5: {error}") from None
    except KeyError:
        raise InputError(f"{path} has no dataset {key!r}.") from None


def _labels(path: Path) -> NDArray[np.int64]:
    labels = np.asarray(_dataset(path, "y")[:]).reshape(-1).astype(np.int64)
    odd = sorted(set(labels.tolist()) - {0, 1})
    if odd:
        raise InputError(f"{path}: the label {odd[0]} is neither 0 nor 1.")
    return labels


def _groups(root: Path, split: str, ids: tuple[str, ...]) -> tuple[NDArray[np.str_], str]:
    path = root / f"{_STEM}{split}_meta.csv"
    if not path.is_file():
        return np.array(ids), "image"
    with open(path, encoding="utf-8", newline="") as handle:
        slides = [row.get("wsi", "") for row in csv.DictReader(handle)]
    if len(slides) != len(ids) or not all(slides):
        raise InputError(f"{path} must name the wsi of each of the {len(ids):,} patches.")
    return np.array(slides), f"wsi in {path.name}"


def _counts(root: Path, options: Options) -> dict[str, int]:
    return {name: len(_dataset(_file(root, name, "y"), "y")) for name in splits(root, options)}


def _read_one(images: Any, path: Path, index: int) -> Image:
    try:
        return images[index]
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: image {index} cannot be read: {error}") from None
