"""Every deviation that is planted in a tree is named; a whole tree has none."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from eosin.datasets import bach, break_his, crc, folder, lc25000, mhist
from eosin.datasets import patch_camelyon as pcam
from eosin.datasets._base import Options
from eosin.datasets._findings import Finding
from eosin.errors import InputError
from tests.datasets import trees

TINY = (8, 6)
PHOTOS = Path(trees.BACH_PHOTOS)
MHIST_SCALE, CRC_SCALE, PCAM_SCALE = 0.01, 0.0003, 0.0001


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole trees, whose files are never changed but only linked to."""
    root = tmp_path_factory.mktemp("whole")
    trees.bach(root / "bach", 1.0, TINY)
    trees.mhist(root / "mhist", MHIST_SCALE, TINY)
    trees.crc(root / "crc", CRC_SCALE, TINY)
    trees.patch_camelyon(root / "patch_camelyon", PCAM_SCALE, 8)
    return root


@pytest.fixture
def tree(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[ModuleType], Path]:
    """Gives a copy of a whole tree, and makes what is published as small as the tree is."""

    def copy(module: ModuleType) -> Path:
        name = module.__name__.rpartition(".")[2]
        changes: dict[str, Any] = {"image_px": (8, 8) if module is pcam else TINY}
        if module is pcam:
            changes["counts"] = trees.pcam_counts(PCAM_SCALE)
        elif module is not bach:
            scale = MHIST_SCALE if module is mhist else CRC_SCALE
            counts = trees.scaled(module.INFO.class_counts, scale)
            changes["class_counts"] = counts
            changes["counts"] = {split: sum(each.values()) for split, each in counts.items()}
        monkeypatch.setattr(module, "INFO", replace(module.INFO, **changes))
        shutil.copytree(whole / name, tmp_path / name, copy_function=os.link)
        return tmp_path / name

    return copy


def verify(module: ModuleType, root: Path, **options: Any) -> list[Finding]:
    return module.verify(root, Options(**options))


def replace_file(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


@pytest.mark.parametrize("module", [bach, mhist, crc, pcam])
def test_a_whole_tree_has_no_deviation(
    module: ModuleType, tree: Callable[[ModuleType], Path]
) -> None:
    assert verify(module, tree(module)) == []


def test_deviations_of_files_are_named(tree: Callable[[ModuleType], Path]) -> None:
    root = tree(bach)
    photos = root / PHOTOS
    (photos / "Benign" / "b007.tif").unlink()
    trees.write_image(photos / "Normal" / "n101.tif", 1_000, TINY)
    trees.write_image(photos / "InSitu" / "b012.tif", 1_001, TINY)
    replace_file(photos / "Normal" / "n001.tif", b"no image")
    for name, size, mode in (("iv001", (8, 7), "RGB"), ("iv002", TINY, "RGBA")):
        (photos / "Invasive" / f"{name}.tif").unlink()
        Image.new(mode, size, (1, 2, 3)).save(photos / "Invasive" / f"{name}.tif")
    # is001 is for training, b050 for testing.
    shutil.copy(photos / "Benign" / "b050.tif", photos / "copy.tmp")
    os.replace(photos / "copy.tmp", photos / "InSitu" / "is001.tif")
    found = verify(bach, root)
    said = [(each.kind, each.where) for each in found]
    assert said == [
        ("missing", "Benign/b007.tif"),
        ("stray", "InSitu/b012.tif"),
        ("stray", "Normal/n101.tif"),
        ("count", "class Benign of the train split"),
        ("unreadable", "Normal/n001.tif"),
        ("size", "Invasive/iv001.tif"),
        ("size", "Invasive/iv002.tif"),
        ("duplicate", "InSitu/is001.tif"),
    ]
    by_kind = {each.kind: each.sentence for each in found}
    assert f"{photos / 'Normal' / 'n001.tif'} cannot be read" in by_kind["unreadable"]
    assert "8 x 7 pixels; published are 8 x 6" in found[5].sentence
    assert "mode RGBA" in found[6].sentence
    copied = by_kind["duplicate"]
    assert "Benign/b050.tif (test)" in copied and "InSitu/is001.tif (train)" in copied
    assert "labels Benign and InSitu" in copied and "the test is no test" in copied
    # None of it stands in the way of loading but the image that cannot be read.
    assert len(bach.load(root, "train", Options())) == 267


def test_classes_and_splits_that_are_missing(tree: Callable[[ModuleType], Path]) -> None:
    root = tree(bach)
    shutil.rmtree(root / PHOTOS / "InSitu")
    found = verify(bach, root)
    assert [each.kind for each in found] == ["missing"] * 100 + ["count"] * 2
    root = tree(crc)
    shutil.rmtree(root / "CRC-VAL-HE-7K" / "ADI")
    shutil.move(root / "NCT-CRC-HE-100K" / "TUM", root / "NCT-CRC-HE-100K" / "TUMOUR")
    found = verify(crc, root)
    assert [(each.kind, each.where) for each in found] == [
        ("stray", "NCT-CRC-HE-100K/TUMOUR"),
        ("count", "class TUM of the train split"),
        ("count", "class ADI of the test split"),
    ]
    for each in sorted((root / "CRC-VAL-HE-7K").iterdir()):
        shutil.rmtree(each)
    missing = [each.sentence for each in verify(crc, root) if each.kind == "missing"]
    assert missing == [f"{root}: the test split is missing; it has 9 images."]
    (root / "CRC-VAL-HE-7K").rmdir()
    with pytest.raises(InputError, match="CRC-VAL-HE-7K/ is missing"):
        verify(crc, root)


def test_a_tile_in_the_folder_of_another_class_is_named(
    tree: Callable[[ModuleType], Path],
) -> None:
    root = tree(crc)
    moved = next((root / "NCT-CRC-HE-100K" / "TUM").iterdir())
    os.replace(moved, root / "NCT-CRC-HE-100K" / "STR" / moved.name)
    (root / "NCT-CRC-HE-100K" / "README.txt").write_text("")
    found = verify(crc, root)
    assert [each.kind for each in found] == ["stray", "label", "count", "count"]
    assert found[1].sentence.endswith("its name says TUM, its folder STR; the folder counts.")


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda row: [], "stray", "has no row in annotations.csv; it is left out"),
        (lambda row: [row, row], "label", "line 3: {name} stands in a row above already"),
        (lambda row: [[row[0], "Ssa", *row[2:]]], "label", "has the label 'Ssa', not HP or SSA"),
        (lambda row: [[*row[:3], "val"]], "label", "is in the partition 'val', not train or test"),
        (lambda row: [["MHIST_zzz.png", *row[1:]]], "missing", "MHIST_zzz.png is not in images/"),
        (lambda row: [[row[0], row[1], "8", row[3]]], "label", "but 8 of 7 selected SSA"),
        (
            lambda row: [[row[0], {"HP": "SSA", "SSA": "HP"}[row[1]], *row[2:]]],
            "label",
            "of 7 selected SSA",
        ),
    ],
)
def test_wrong_rows_are_named(
    change: Callable[[list[str]], list[list[str]]],
    kind: str,
    said: str,
    tree: Callable[[ModuleType], Path],
) -> None:
    root = tree(mhist)
    header, first, *others = (root / "annotations.csv").read_text().splitlines()
    changed = [",".join(row) for row in change(first.split(","))]
    lines = "\n".join([header, *changed, *others])
    replace_file(root / "annotations.csv", lines.encode())
    found = verify(mhist, root)
    name = first.partition(",")[0]
    assert [each for each in found if each.kind == kind and said.format(name=name) in each.sentence]
    is_fatal = any(each.is_fatal for each in found)
    if is_fatal:
        with pytest.raises(InputError, match=r"annotations.csv, line \d"):
            mhist.load(root, "train", Options())
    else:
        mhist.load(root, "train", Options())


def test_an_image_that_is_missing_is_named_by_its_row(tree: Callable[[ModuleType], Path]) -> None:
    root = tree(mhist)
    (root / "images" / "MHIST_aab.png").unlink()
    found = verify(mhist, root)
    assert [each.kind for each in found][:1] == ["missing"]
    assert "line 3: MHIST_aab.png is not in images/" in found[0].sentence
    with pytest.raises(InputError, match=r"MHIST_aab\.png is not in images/"):
        mhist.splits(root, Options())


def test_groups_that_cross_splits_are_named(tree: Callable[[ModuleType], Path]) -> None:
    root = tree(crc)
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.tif"))
    rows = [f"{name},patient {number}" for number, name in enumerate(names[:-1])]
    rows.append(f"{names[-1]},patient 0")
    groups = root.with_name("groups.csv")
    groups.write_text("\n".join(["file,patient", *rows]))
    found = verify(crc, root, groups=groups)
    assert [(each.kind, each.where) for each in found] == [("group", "patient 0")]
    assert "has images in train and in test" in found[0].sentence
    with pytest.raises(InputError, match="group patient 0 has images in"):
        crc.load(root, "train", Options(groups=groups))


def test_rows_of_patch_camelyon_are_verified(tree: Callable[[ModuleType], Path]) -> None:
    root = tree(pcam)
    stem = trees.PCAM_STEM
    with h5py.File(root / f"{stem}train_x.h5") as file:
        train = file["x"][:]
    test_file = root / f"{stem}test_x.h5"
    with h5py.File(test_file) as file:
        test = file["x"][:]
    test[1] = train[2]
    test[0] = test[3]
    replace_file(test_file, b"")
    with h5py.File(test_file, "w") as file:
        file["x"] = test
    meta = root / f"{stem}test_meta.csv"
    text = meta.read_text().replace("test_slide_1", "train_slide_1")
    replace_file(meta, text.encode())
    (root / "notes.txt").write_text("")
    found = verify(pcam, root)
    assert [(each.kind, each.where) for each in found] == [
        ("stray", "notes.txt"),
        ("duplicate", f"{stem}test_x.h5, row 1"),
        ("duplicate", f"{stem}test_x.h5, row 3"),
        ("group", "train_slide_1"),
    ]
    assert f"{stem}train_x.h5, row 2 (train)" in found[1].sentence
    assert "the test is no test of it" in found[1].sentence
    assert "no test" not in found[2].sentence


def test_counts_balance_and_size_of_patch_camelyon(tree: Callable[[ModuleType], Path]) -> None:
    root = tree(pcam)
    for kind, data in (("x", np.arange(8 * 10 * 10 * 3, dtype=np.uint8)), ("y", np.zeros(8))):
        path = root / f"{trees.PCAM_STEM}valid_{kind}.h5"
        path.unlink()
        with h5py.File(path, "w") as file:
            file[kind] = data.reshape((8, 10, 10, 3) if kind == "x" else (8, 1, 1, 1))
    (root / f"{trees.PCAM_STEM}valid_meta.csv").unlink()
    found = verify(pcam, root)
    sizes = [each for each in found if each.kind == "size"]
    assert len(sizes) == 8 and "10 x 10 pixels; published are 8 x 8" in sizes[0].sentence
    said = [each.sentence for each in found if each.kind == "count"]
    assert "of the valid split, 4 images are published, 8 here" in said[0]
    assert "0 of 8 patches are tumour" in said[1]
    (root / f"{trees.PCAM_STEM}test_y.h5").unlink()
    with pytest.raises(InputError, match=r"test_y\.h5 is missing"):
        verify(pcam, root)


def test_break_his_names_contradictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.break_his(tmp_path, 1)
    counts = dict.fromkeys(break_his.INFO.counts, 0)
    monkeypatch.setattr(break_his, "_COUNTS", {"40X": (4,) * 8, **counts})
    assert verify(break_his, tmp_path) == []
    slide = "SOB/fibroadenoma/SOB_B_F_14-10001/40X"
    base = tmp_path / "BreaKHis_v1/histology_slides/breast/benign"
    image = next((base / slide).iterdir())
    # An image of another kind and magnification, which is a copy of one of adenosis besides.
    other = next((base / "SOB/adenosis/SOB_B_A_14-10000/40X").iterdir())
    shutil.copy(other, image.with_name("SOB_B_A-14-10000-100-009.png"))
    (base / slide / "readme.png").write_bytes(b"")
    found = verify(break_his, tmp_path)
    assert [each.kind for each in found] == ["stray", "label", "label", "count", "duplicate"]
    assert "its name says A, its folder F" in found[1].sentence
    assert "its name says 100X, its folder 40X" in found[2].sentence
    assert "have the labels A and F" in found[4].sentence


def test_lc25000_without_sources_is_a_deviation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.lc25000(tmp_path)
    counts = {"all": dict.fromkeys(lc25000.CLASSES, 12)}
    info = replace(lc25000.INFO, class_counts=counts, image_px=(24, 24))
    monkeypatch.setattr(lc25000, "INFO", info)
    assert verify(lc25000, tmp_path) == []
    (tmp_path / "source_images.csv").unlink()
    (tmp_path / "lung_image_sets" / "notes.txt").write_text("")
    found = verify(lc25000, tmp_path)
    assert [each.kind for each in found] == ["stray", "group"]
    assert "source_images.csv is missing" in found[1].sentence


def test_a_folder_of_ones_own_is_verified(tmp_path: Path) -> None:
    for number in range(12):
        split, of_class = ("train", "test")[number // 8], "ab"[number % 2]
        trees.write_image(tmp_path / split / of_class / f"{number}.png", number, TINY)
    assert verify(folder, tmp_path) == []
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/copy.png")
    (tmp_path / "test/b/9.png").write_bytes(b"")
    rows = [f"{path.relative_to(tmp_path)},p" for path in sorted(tmp_path.rglob("*.png"))]
    (tmp_path / "groups.csv").write_text("\n".join(["file,patient", *rows]))
    assert [each.kind for each in verify(folder, tmp_path)] == ["unreadable", "duplicate", "group"]


def test_bars_show_how_far_it_is(
    tree: Callable[[ModuleType], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    verify(bach, tree(bach))
    assert "verifying: 400/400 images" in capsys.readouterr().err
