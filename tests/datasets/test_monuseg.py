"""MoNuSeg's trees, and what is odd about them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from eosin.datasets import monuseg
from eosin.datasets._base import Options, find_dataset
from eosin.errors import InputError
from tests.datasets import trees

PX = (20, 10)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.monuseg(tmp_path, 0.1, PX)


def test_a_whole_tree_has_the_published_counts_and_patients(tmp_path: Path) -> None:
    trees.monuseg(tmp_path, 1.0, PX)
    loaded = trees.load_all(monuseg, tmp_path)
    assert {split: len(images) for split, images in loaded.items()} == monuseg.INFO.counts
    assert {each.kind for each in monuseg.verify(tmp_path, Options())} == {"size"}
    train = loaded["train"]
    assert train.grouped_by == "patient" and train.classes == ("nucleus",)
    assert train.ids[0] == "train/TCGA-A0-0000-01Z-00-DX1"
    assert train.groups[0] == "TCGA-A0-0000"
    assert not set(train.groups) & set(loaded["test"].groups)


def test_the_first_of_two_outlines_keeps_the_pixels_of_both(root: Path) -> None:
    seen = monuseg.load(root, "test", Options()).read(0)
    expected = np.zeros((10, 20), dtype=int)
    expected[2:5, 4:7] = 2
    expected[1:4, 2:5] = 1
    assert (seen.instances == expected).all() and seen.types.tolist() == [0, 0]


def test_copies_with_other_folders_are_the_same(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for path in sorted(root.rglob("TCGA-*")):
        if copy not in path.parents:
            split = "training" if "Training" in str(path) else "testing"
            kind = "images" if path.suffix == ".tif" else "labels"
            (copy / split / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy / split / kind)
    assert find_dataset(copy) is monuseg
    one, two = (trees.load_all(monuseg, each) for each in (root, copy))
    assert {k: v.manifest_sha256 for k, v in one.items()} == {
        k: v.manifest_sha256 for k, v in two.items()
    }


def test_outlines_without_a_pixel_are_told_and_left_out(root: Path) -> None:
    path = next((root / "MoNuSegTestData").glob("*.xml"))
    boxes = ((1, 1, 9, 9), (2, 2, 4, 4), (100, 100, 104, 104), (11, 1, 11, 9), (12, 2, 14, 4))
    path.write_text(trees.imagescope(boxes))
    seen = monuseg.load(root, "test", Options()).read(0)
    assert len(seen.types) == seen.instances.max() == 2
    found = [each for each in monuseg.verify(root, Options()) if each.kind == "label"]
    assert len(found) == 1
    assert f"{path}: 3 of 5 outlines have no pixel of their own" in found[0].sentence


def test_images_and_outlines_need_each_other(root: Path) -> None:
    image = next((root / "MoNuSegTestData").glob("*.tif"))
    image.rename(image.with_suffix(".bak"))
    with pytest.raises(InputError, match=r"\.xml has no image, a file of the same name in \.tif"):
        monuseg.splits(root, Options())
    image.with_suffix(".bak").rename(image)
    image.with_suffix(".xml").unlink()
    with pytest.raises(InputError, match=rf"{image} has no outlines"):
        monuseg.load(root, "test", Options())
    found = monuseg.verify(root, Options())
    assert [each.where for each in found if each.kind == "missing"] == [f"test/{image.stem}"]


def test_a_second_copy_is_left_out_and_training_alone_is_not_enough(root: Path) -> None:
    shutil.copytree(root / "MoNuSegTestData", root / "MoNuSeg test again")
    found = [each for each in monuseg.verify(root, Options()) if each.kind == "stray"]
    assert len(found) == 4 and "it is left out" in found[0].sentence
    for name in ("MoNuSegTestData", "MoNuSeg test again"):
        shutil.rmtree(root / name)
    with pytest.raises(InputError, match="no images of the test split"):
        monuseg.splits(root, Options())


def test_a_patient_on_both_sides_stops(root: Path) -> None:
    test = root / "MoNuSegTestData"
    train = root / "MoNuSeg 2018 Training Data"
    for suffix, folder in ((".tif", "Tissue Images"), (".xml", "Annotations")):
        path = next((train / folder).glob(f"TCGA-A0-0000*{suffix}"))
        shutil.copy(path, test / path.name.replace("DX1", "DX2"))
    with pytest.raises(InputError, match="group TCGA-A0-0000 has images in train and in test"):
        monuseg.splits(root, Options())
    assert len(monuseg.load(root, "test", Options(group_column="none"))) == 3
