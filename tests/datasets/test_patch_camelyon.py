import gzip
from pathlib import Path

import h5py
import numpy as np
import pytest

from eosin.datasets import patch_camelyon
from eosin.datasets._base import Options, find_dataset
from eosin.errors import InputError, UsageError

STEM = "camelyonpatch_level_2_split_"


def write_split(root: Path, split: str, count: int = 6, side_px: int = 8) -> np.ndarray:
    pixels = np.random.default_rng(len(split)).integers(
        0, 256, (count, side_px, side_px, 3), dtype=np.uint8
    )
    with h5py.File(root / f"{STEM}{split}_x.h5", "w") as file:
        file.create_dataset("x", data=pixels, chunks=(2, side_px, side_px, 3))
    with h5py.File(root / f"{STEM}{split}_y.h5", "w") as file:
        labels = (np.arange(count, dtype=np.uint8) % 2).reshape(-1, 1, 1, 1)
        file.create_dataset("y", data=labels)
    return pixels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split in ("train", "valid", "test"):
        write_split(tmp_path, split)
    return tmp_path


def test_official_files_are_found_and_read(root: Path) -> None:
    assert find_dataset(root) is patch_camelyon
    assert patch_camelyon.splits(root, Options()) == ("train", "valid", "test")
    images = patch_camelyon.load(root, "valid", Options())
    with h5py.File(root / f"{STEM}valid_x.h5") as file:
        for index in range(6):
            assert (images.read(index) == file["x"][index]).all()
    assert images.labels.tolist() == [0, 1] * 3
    assert images.classes == ("normal", "tumor")
    assert images.ids[1] == "valid/000001"
    assert images.grouped_by == "image"


def test_validation_split_may_be_absent(root: Path) -> None:
    for kind in "xy":
        (root / f"{STEM}valid_{kind}.h5").unlink()
    assert patch_camelyon.splits(root, Options()) == ("train", "test")


def test_slides_of_the_meta_file_are_the_groups(root: Path) -> None:
    slides = ["s1", "s1", "s2", "s2", "s3", "s3"]
    rows = [f"{number},0,0,True,True,{slide}" for number, slide in enumerate(slides)]
    header = ",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"
    meta = root / f"{STEM}test_meta.csv"
    meta.write_text("\n".join([header, *rows]) + "\n")
    assert patch_camelyon.load(root, "test", Options()).groups.tolist() == slides
    meta.write_text("\n".join([header, *rows[:-1]]) + "\n")
    with pytest.raises(InputError, match="must name the wsi of each of the 6 patches"):
        patch_camelyon.load(root, "test", Options())


def test_a_packed_file_comes_with_advice(root: Path) -> None:
    path = root / f"{STEM}train_x.h5"
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert find_dataset(root) is patch_camelyon
    with pytest.raises(InputError, match=r"is packed.*gunzip .*train_x\.h5\.gz"):
        patch_camelyon.splits(root, Options())


def test_a_missing_file_is_shown_with_the_expected_tree(root: Path) -> None:
    (root / f"{STEM}test_y.h5").unlink()
    with pytest.raises(InputError, match=r"(?s)test_y\.h5 is missing.*Expected:.*Found:"):
        patch_camelyon.splits(root, Options())


def test_damaged_files_are_named(root: Path) -> None:
    path = root / f"{STEM}train_x.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"train_x\.h5 is damaged or not HDF5"):
        patch_camelyon.load(root, "train", Options())
    path.unlink()
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(InputError, match=r"train_x\.h5 has no dataset 'x'"):
        patch_camelyon.load(root, "train", Options())
    path.unlink()
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros((6, 8, 8, 3), dtype=np.float32)
    with pytest.raises(InputError, match="must be uint8"):
        patch_camelyon.load(root, "train", Options())
    write_split(root, "train", count=5)
    with h5py.File(root / f"{STEM}train_y.h5", "w") as file:
        file["y"] = np.zeros(6, dtype=np.uint8)
    with pytest.raises(InputError, match=r"5 images, .* 6 labels"):
        patch_camelyon.load(root, "train", Options())
    with h5py.File(root / f"{STEM}train_y.h5", "w") as file:
        file["y"] = np.full(5, 2, dtype=np.uint8)
    with pytest.raises(InputError, match="label 2 is neither 0 nor 1"):
        patch_camelyon.load(root, "train", Options())


def test_groups_are_not_taken_from_elsewhere(root: Path) -> None:
    with pytest.raises(UsageError, match="--group-column"):
        patch_camelyon.load(root, "train", Options(group_column="slide"))


def test_real_subset_loads(shared_data: Path) -> None:
    root = shared_data / "pcam"
    assert find_dataset(root) is patch_camelyon
    splits = patch_camelyon.splits(root, Options())
    counts = {split: len(patch_camelyon.load(root, split, Options())) for split in splits}
    assert counts == {"train": 1494, "valid": 400, "test": 300}
    test = patch_camelyon.load(root, "test", Options())
    assert test.read(299).shape == (96, 96, 3)
    assert np.unique(test.labels).tolist() == [0, 1]
