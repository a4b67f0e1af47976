"""PanNuke's folds: their three roles, overlapping channels, and arrays of another kind."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eosin.datasets import pannuke
from eosin.datasets._base import Options, find_dataset
from eosin.errors import InputError
from tests.datasets import trees

SIDE = 12


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.pannuke(tmp_path, 0.001, SIDE)


def change(root: Path, kind: str, array: Any, **options: Any) -> Path:
    path = root / "Fold 3" / kind / "fold3" / f"{kind}.npy"
    np.save(path, array, **options)
    return path


@pytest.mark.parametrize(("number", "folds"), [(1, "123"), (2, "213"), (3, "321")])
def test_folds_take_the_published_roles(number: Any, folds: str, root: Path) -> None:
    loaded = trees.load_all(pannuke, root, fold_split=number)
    assert list(loaded) == ["train", "valid", "test"]
    for fold, images in zip(folds, loaded.values(), strict=True):
        assert all(image.startswith(f"fold{fold}/") for image in images.ids)
        assert images.read(0).image[0, 0].tolist()[2] == int(fold)
    assert loaded["test"].grouped_by == "image"


def test_the_roles_are_another_division_of_the_same_images(root: Path) -> None:
    loaded = [trees.load_all(pannuke, root, fold_split=n) for n in (1, 2, 3)]
    assert len({each["test"].split_sha256 for each in loaded}) == 3
    assert loaded[0]["test"].manifest_sha256 == loaded[1]["test"].manifest_sha256


def test_every_type_has_its_channel(root: Path) -> None:
    seen = pannuke.load(root, "test", Options()).read(0)
    assert seen.types.tolist() == [0, 1, 2, 3, 4]
    assert seen.instances[::2, 0].tolist() == [1, 2, 3, 4, 5, 0]


def test_where_channels_overlap_the_later_has_the_pixel(root: Path) -> None:
    masks = np.zeros((3, SIDE, SIDE, 6), dtype=np.uint16)
    masks[:, :4, :4, 0] = 5  # half of it lies under the next
    masks[:, 2:6, :4, 3] = 5  # the same number, and another nucleus
    masks[:, 9, 9, 1] = 2
    masks[:, 8:11, 8:11, 4] = 1  # covers that one
    path = change(root, "masks", masks)
    images = pannuke.load(root, "test", Options())
    seen = images.read(0)
    assert seen.types.tolist() == [0, 3, 4]
    assert Counter(seen.instances.ravel().tolist()) == {0: 111, 1: 8, 2: 16, 3: 9}
    found = [each for each in pannuke.verify(root, Options()) if each.kind == "label"]
    assert [each.where for each in found] == ["fold3/0000", "fold3/0001", "fold3/0002"]
    assert f"{path}, patch 0: 1 of 4 nuclei lie wholly under" in found[0].sentence


def test_arrays_of_fewer_bytes_give_the_same_patches(root: Path) -> None:
    before = pannuke.load(root, "test", Options()).read(1)
    for kind, dtype in (("images", np.uint8), ("masks", np.uint16)):
        change(root, kind, np.load(root / f"Fold 3/{kind}/fold3/{kind}.npy").astype(dtype))
    after = pannuke.load(root, "test", Options()).read(1)
    assert (before.image == after.image).all() and (before.instances == after.instances).all()


@pytest.mark.parametrize("name", ["fold_{}", "fold{}", "fold_{0}/Fold {0}"])
def test_folders_may_be_called_otherwise(name: str, root: Path, tmp_path: Path) -> None:
    expected = trees.load_all(pannuke, root)["train"].manifest_sha256
    for fold in (1, 2, 3):
        place = tmp_path / "copy" / name.format(fold)
        place.parent.mkdir(parents=True, exist_ok=True)
        (root / f"Fold {fold}").rename(place)
    assert find_dataset(tmp_path / "copy") is pannuke
    found = trees.load_all(pannuke, tmp_path / "copy")
    assert found["train"].manifest_sha256 == expected


def test_a_fold_may_be_missing_where_it_validates(root: Path) -> None:
    (root / "Fold 2").rename(root / "elsewhere")
    assert pannuke.splits(root, Options()) == ("train", "test")
    kinds = {each.kind: each.where for each in pannuke.verify(root, Options())}
    assert kinds["missing"] == "valid"
    with pytest.raises(InputError, match="no images of the train split"):
        pannuke.splits(root, Options(fold_split=2))


@pytest.mark.parametrize(
    ("kind", "array", "said"),
    [
        ("images", np.zeros((3, SIDE, SIDE)), r"must be numbers \[N, 256, 256, 3\]"),
        ("images", np.zeros((3, SIDE, SIDE, 3), dtype="U4"), "must be numbers"),
        ("images", np.full((3, SIDE, SIDE, 3), 0.5), "patch 0: values are not whole numbers"),
        ("images", np.full((3, SIDE, SIDE, 3), 256), "patch 0: values are not whole"),
        ("images", np.full((3, SIDE, SIDE, 3), np.nan), "patch 0: values are not whole"),
        ("masks", np.zeros((3, SIDE, SIDE, 5)), "masks are float64 .* they must be numbers"),
        ("masks", np.zeros((2, SIDE, SIDE, 6)), "masks are float64 .* they must be numbers"),
        ("masks", np.full((3, SIDE, SIDE, 6), -1), "patch 0: the instance map has the number -1"),
        ("masks", np.array([[{"a": 1}]], dtype=object), "no array of numbers"),
    ],
)
def test_other_arrays_are_refused(kind: str, array: Any, said: str, root: Path) -> None:
    path = change(root, kind, array)
    with pytest.raises(InputError, match=f"{path}.*{said}"):
        pannuke.load(root, "test", Options()).read(0)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", None])
def test_damaged_arrays_are_an_error(content: bytes | None, root: Path) -> None:
    path = root / "Fold 3/masks/fold3/masks.npy"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(InputError, match=f"{path} is cut short, damaged"):
        pannuke.splits(root, Options())


def test_images_and_masks_need_each_other(root: Path) -> None:
    (root / "Fold 3/masks/fold3/masks.npy").unlink()
    with pytest.raises(
        InputError, match=r"images\.npy is there, and masks\.npy of its fold is not"
    ):
        pannuke.splits(root, Options())
