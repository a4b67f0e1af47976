"""PanNuke: 256-px patches of 19 tissues at 40x, nuclei of five types, in three folds of arrays."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eosin.datasets._base import ALL, Image, Info, Options, wrong_tree
from eosin.datasets._findings import Finding
from eosin.datasets._instances import (
    InstanceImages,
    InstanceSet,
    Labelled,
    Outlined,
    Seen,
    make_instance_set,
    renumber,
)
from eosin.datasets._verify_instances import verify_instances
from eosin.errors import InputError

INFO = Info(
    title="PanNuke, an open pan-cancer histology dataset",
    licence="CC BY-NC-SA 4.0",
    licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode",
    citation="Gamper et al. 2020, PanNuke Dataset Extension, Insights and Baselines, "
    "arXiv:2003.10778; Gamper et al. 2019, PanNuke, European Congress on Digital Pathology",
    source="https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke",
    expected_tree="""
Fold 1/
  images/fold1/images.npy   ([N, 256, 256, 3], values 0 to 255)
  masks/fold1/masks.npy     ([N, 256, 256, 6], nuclei of a type a channel, then background)
Fold 2/  …
Fold 3/  …
""",
    holds="instances",
    classes=("neoplastic", "inflammatory", "connective", "dead", "epithelial"),
    counts={"train": 2_656, "valid": 2_523, "test": 2_722},
    instances={ALL: 189_744},
    groups="not published: no file says of which slide or patient a patch is, so intervals are too "
    "narrow; the tissue is no group",
    division="official, three ways: --fold-split 1 trains on fold 1, validates on 2 and tests on "
    "3; 2 on 2, 1 and 3; 3 on 3, 2 and 1",
    image_px=(256, 256),
    mpp=0.25,
    how_to_get=(
        "Download fold_1.zip, fold_2.zip and fold_3.zip from "
        "https://warwick.ac.uk/fac/cross_fac/tia/data/pannuke and accept the licence",
        "Unpack the three into {root}, which makes the folders Fold 1, Fold 2 and Fold 3",
    ),
    remarks=(
        "The arrays are large and read in place, a patch at a time; images saved again as uint8 "
        "and masks as uint16 give the same patches from far less of the disk.",
        "Where nuclei of several channels overlap, that of the later channel has the pixel, as in "
        "the authors' code of the metrics.",
        "The published baselines average over tissues; Eosin averages over images.",
    ),
)

# Folds for training, validation and test in the three published splits.
_ROLES = {1: (1, 2, 3), 2: (2, 1, 3), 3: (3, 2, 1)}
_PATCHES = {1: 2_656, 2: 2_523, 3: 2_722}
_SPLITS = ("train", "valid", "test")
_N_TYPES = len(INFO.classes)

_Arrays = tuple[NDArray[Any], NDArray[Any]]


def recognises(root: Path) -> bool:
    """Whether the arrays of a fold lie in `root`."""
    return any(_find(root, fold, "images") and _find(root, fold, "masks") for fold in _PATCHES)


def splits(root: Path, options: Options) -> tuple[str, ...]:
    """Names the splits whose folds are here; those for training and testing must be."""
    return _scan(root, options).splits


def load(root: Path, split: str, options: Options) -> InstanceImages:
    """Loads the fold that is the split by `options.fold_split`.

    Raises:
        InputError: a file is missing, damaged, or of another shape.
    """
    return _scan(root, options).load(split)


def verify(root: Path, options: Options) -> list[Finding]:
    """Checks the folds against what is published, and reads every patch."""
    published = {split: _PATCHES[fold] for split, fold in _roles(options).items()}
    return verify_instances(_scan(root, options), replace(INFO, counts=published))


def _roles(options: Options) -> Mapping[str, int]:
    return dict(zip(_SPLITS, _ROLES[options.fold_split], strict=True))


def _scan(root: Path, options: Options) -> InstanceSet:
    arrays: dict[Path, _Arrays] = {}
    entries: list[Outlined] = []
    for split, fold in _roles(options).items():
        files = _files(root, fold)
        if files is None:
            continue
        images, masks = files
        arrays[images] = _open(images, masks)
        entries += [
            Outlined(id=f"fold{fold}/{row:04}", split=split, image=images, outlines=masks, row=row)
            for row in range(len(arrays[images][0]))
        ]
    if not entries:
        raise wrong_tree(root, "no fold of PanNuke.", INFO.expected_tree)
    return make_instance_set(
        "pannuke",
        root,
        INFO.classes,
        INFO.mpp or 0.25,
        entries,
        options,
        read=lambda entry: _read(entry, *arrays[entry.image]),
        rule=("PanNuke, official", 1),
    )


def _files(root: Path, fold: int) -> tuple[Path, Path] | None:
    """Finds the images and the masks of a fold; `None` where both are absent.

    Raises:
        InputError: only one of them is there.
    """
    images, masks = _find(root, fold, "images"), _find(root, fold, "masks")
    if images is None and masks is None:
        return None
    if images is None or masks is None:
        absent = "images" if images is None else "masks"
        raise InputError(f"{images or masks} is there, and {absent}.npy of its fold is not.")
    return images, masks


def _find(root: Path, fold: int, kind: str) -> Path | None:
    for name in (f"Fold {fold}", f"fold_{fold}", f"fold{fold}", f"fold_{fold}/Fold {fold}"):
        for inside in (f"{kind}/fold{fold}", kind, "."):
            path = root / name / inside / f"{kind}.npy"
            if path.is_file():
                return path
    return None


def _open(images_file: Path, masks_file: Path) -> _Arrays:
    images, masks = _map(images_file), _map(masks_file)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype.kind not in "uif":
        raise InputError(
            f"{images_file}: images are {images.dtype} {images.shape}; they must be numbers "
            "[N, 256, 256, 3]."
        )
    if masks.shape != (*images.shape[:3], _N_TYPES + 1) or masks.dtype.kind not in "uif":
        expected = (*images.shape[:3], _N_TYPES + 1)
        raise InputError(
            f"{masks_file}: masks are {masks.dtype} {masks.shape}; of {images_file}, they must be "
            f"numbers {expected}."
        )
    return images, masks


def _map(path: Path) -> NDArray[Any]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{path} is cut short, damaged or no array of numbers: {error}.") from None


def _read(entry: Outlined, images: NDArray[Any], masks: NDArray[Any]) -> Seen:
    image = _pixels(np.asarray(images[entry.row]), entry)
    mask = np.asarray(masks[entry.row])
    place = Path(f"{entry.outlines}, patch {entry.row}")
    together = np.zeros(mask.shape[:2], dtype=np.int64)
    channels: list[NDArray[np.int64]] = []
    count = 0
    for channel in range(_N_TYPES):
        own, numbers = renumber(mask[..., channel], place)
        together = np.where(own > 0, own + count, together)
        channels.append(np.full(len(numbers), channel, dtype=np.int64))
        count += len(numbers)
    instances, kept = renumber(together, place)
    types = np.concatenate(channels)[kept - 1]
    covered = (
        f"{place}: {count - len(kept):,} of {count:,} nuclei lie wholly under those of other "
        "types; they are left out.",
    )
    oddities = covered if len(kept) < count else ()
    return Seen(labelled=Labelled(image, instances, types), oddities=oddities)


def _pixels(values: NDArray[Any], entry: Outlined) -> Image:
    if values.dtype == np.uint8:
        return values.copy()
    is_right = np.isfinite(values) & (values >= 0) & (values <= 255)
    pixels = np.where(is_right, values, 0).astype(np.uint8)
    if not is_right.all() or (pixels != values).any():
        raise InputError(
            f"{entry.image}, patch {entry.row}: values are not whole numbers from 0 to 255."
        )
    return pixels
