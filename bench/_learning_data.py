"""What the benchmark of learning trains and tests on: LC25000 and PatchCamelyon, as they lie here.

Both sides are pre-trained on one HDF5 file of 96-px tiles: the training part of LC25000 (its
held-out source images are in no batch) and of PatchCamelyon.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from eosin import atomic
from eosin.datasets import folder, patch_camelyon
from eosin.datasets._base import LabelledImages, Options
from eosin.embeddings.extract import fit_to_square
from eosin.pretrain.order import EpochOrder, Integers
from eosin.provenance import sha256_of

TILE_PX = 96
"""Side of a tile in pre-training and of an image in evaluation; PatchCamelyon's own."""
LC25000 = "lc25000"
PCAM = "pcam"

Splits = Mapping[str, LabelledImages]


@dataclass(frozen=True, kw_only=True)
class Data:
    """The labelled images by data set and split, and the file of tiles without labels."""

    labelled: Mapping[str, Splits]
    tiles: Path

    def sha256(self) -> str:
        """Hashes what is trained and tested on."""
        return sha256_of(
            [
                [images.manifest_sha256 for images in splits.values()]
                for splits in self.labelled.values()
            ]
        )


def open_data(root: Path, out: Path) -> Data:
    """Opens the data sets, and writes the file of tiles where it is missing.

    Args:
        root: the folder that holds `lc25000` and `pcam`.
        out: where `tiles.h5` goes.
    """
    if not (root / LC25000).is_dir() or not (root / PCAM).is_dir():
        raise SystemExit(f"{root} lacks {LC25000} or {PCAM}; give --data a folder that has both.")
    options = Options()
    labelled = {
        LC25000: {
            split: folder.load(root / LC25000, split, options) for split in ("train", "test")
        },
        PCAM: {
            split: patch_camelyon.load(root / PCAM, split, options)
            for split in ("train", "valid", "test")
        },
    }
    train, test = (set(labelled[LC25000][split].groups.tolist()) for split in ("train", "test"))
    assert not train & test, "a source image is on both sides of the division"
    tiles = out / "tiles.h5"
    if not tiles.is_file():
        _write_tiles(tiles, labelled)
    return Data(labelled=labelled, tiles=tiles)


def _write_tiles(path: Path, labelled: Mapping[str, Splits]) -> None:
    images = [
        fit_to_square(splits["train"].read(number), TILE_PX, "bicubic")
        for splits in labelled.values()
        for number in range(len(splits["train"]))
    ]
    with atomic.replacing(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("x", data=np.stack(images))


def read_tiles(path: Path) -> np.ndarray:
    """Reads all tiles as uint8 [N, 96, 96, 3]."""
    with h5py.File(path) as file:
        return file["x"][:]


def order_of_tiles(count: int, seen: int, seed: int) -> Integers:
    """The numbers of the tiles that a run of ours with this seed sees, in its order."""
    _, tiles = EpochOrder([count], None, seed).slice(0, seen)
    return tiles
