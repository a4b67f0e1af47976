from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.datasets import folder
from eosin.datasets._base import Options
from eosin.errors import InputError


def write_images(root: Path, names: Iterable[str]) -> None:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (number % 256, 10, 20)).save(path)


def class_files(*classes: str, count: int = 10, top: str = "") -> list[str]:
    return [f"{top}{name}/{number}.png" for name in classes for number in range(count)]


def test_classes_are_the_folders_that_hold_images_however_deep(tmp_path: Path) -> None:
    write_images(tmp_path, class_files("lung/lung_n", "lung/lung_aca", "colon/x/colon_n"))
    train = folder.load(tmp_path, "train", Options())
    test = folder.load(tmp_path, "test", Options())
    assert train.classes == test.classes == ("colon_n", "lung_aca", "lung_n")
    assert (len(train), len(test)) == (21, 9)
    assert np.bincount(test.labels).tolist() == [3, 3, 3]
    assert not set(train.ids) & set(test.ids)
    for image, label in zip(test.ids, test.labels, strict=True):
        assert Path(image).parent.name == test.classes[label]


def test_images_are_read_as_rgb_whatever_their_mode(tmp_path: Path) -> None:
    write_images(tmp_path, class_files("a", "b", count=4))
    for mode, colour in (("L", 7), ("RGBA", (1, 2, 3, 255)), ("P", 0)):
        Image.new(mode, (5, 3), colour).save(tmp_path / "a" / f"{mode}.png")
    images = folder.load(tmp_path, "train", Options(test_share=0.2))
    for index in range(len(images)):
        pixels = images.read(index)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    grey = images.ids.index("a/L.png")
    assert (images.read(grey) == 7).all()


def test_groups_never_cross_the_division(tmp_path: Path) -> None:
    files = class_files("a", "b", count=30)
    write_images(tmp_path, files)
    rows = [f"{name},patient {number % 11}" for number, name in enumerate(files)]
    (tmp_path / "patients.csv").write_text("\n".join(["file,patient", *rows]) + "\n")
    train = folder.load(tmp_path, "train", Options())
    test = folder.load(tmp_path, "test", Options())
    assert set(train.groups) | set(test.groups) == {f"patient {number}" for number in range(11)}
    assert not set(train.groups) & set(test.groups)
    assert train.grouped_by == "patient in patients.csv"


def test_hashes_tell_images_labels_and_divisions_apart(tmp_path: Path) -> None:
    write_images(tmp_path, class_files("a", "b"))
    before = folder.load(tmp_path, "train", Options())
    again = folder.load(tmp_path, "train", Options())
    assert again.manifest_sha256 == before.manifest_sha256
    assert folder.load(tmp_path, "test", Options()).split_sha256 == before.split_sha256
    other_seed = folder.load(tmp_path, "train", Options(split_seed=1))
    assert other_seed.split_sha256 != before.split_sha256
    changed = tmp_path / before.ids[0]
    Image.new("RGB", (6, 4), (99, 99, 99)).save(changed)
    after = folder.load(tmp_path, "train", Options())
    assert after.manifest_sha256 != before.manifest_sha256
    assert after.split_sha256 == before.split_sha256


@pytest.mark.parametrize(
    ("tops", "expected"),
    [
        (("train", "test"), ("train", "test")),
        (("train", "val", "test"), ("train", "valid", "test")),
        (("Training", "validation"), ("train", "test")),
    ],
)
def test_given_splits_are_taken_as_they_are(
    tmp_path: Path, tops: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    for top in tops:
        write_images(tmp_path, class_files("a", "b", count=3, top=f"{top}/"))
    assert folder.splits(tmp_path, Options()) == expected
    test = folder.load(tmp_path, "test", Options())
    assert all(image.startswith(f"{tops[-1]}/") for image in test.ids)


def test_a_group_in_two_given_splits_is_an_error(tmp_path: Path) -> None:
    for top in ("train", "test"):
        write_images(tmp_path, class_files("a", "b", count=2, top=f"{top}/"))
    names = [
        name for top in ("train", "test") for name in class_files("a", "b", count=2, top=f"{top}/")
    ]
    rows = [f"{name},p" for name in names]
    (tmp_path / "groups.csv").write_text("\n".join(["file,patient", *rows]))
    with pytest.raises(InputError, match="group p has images in test and in train"):
        folder.load(tmp_path, "train", Options())
    assert len(folder.load(tmp_path, "train", Options(group_column="none"))) == 4


def test_a_class_that_was_never_trained_is_an_error(tmp_path: Path) -> None:
    write_images(tmp_path, class_files("a", "b", count=2, top="train/"))
    write_images(tmp_path, class_files("a", "c", count=2, top="test/"))
    with pytest.raises(InputError, match="class c has no images in the training folder"):
        folder.load(tmp_path, "test", Options())


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "0 classes of images found"),
        (["a/1.png", "a/2.png"], "1 class of images found"),
        (["1.png", "a/1.png", "b/1.png"], "1 images lie beside the class folders"),
        (["train/a/1.png", "train/b/1.png", "test/1.png"], "test/1.png lies in no class folder"),
        (["train/a/1.png", "test/b/1.png", "more/b/1.png"], "more lies beside the split folders"),
        (["train/a/1.png", "val/b/1.png", "valid/b/1.png"], "two folders for one split"),
    ],
)
def test_wrong_trees_are_shown_with_the_expected_one(
    tmp_path: Path, files: list[str], said: str
) -> None:
    write_images(tmp_path, files)
    with pytest.raises(InputError) as caught:
        folder.splits(tmp_path, Options())
    message = str(caught.value)
    assert said in message
    assert str(tmp_path) in message and "Expected:" in message and "Found:" in message
    assert all(Path(name).parts[0] in message.partition("Found:")[2] for name in files)


def test_a_class_of_one_group_cannot_be_divided(tmp_path: Path) -> None:
    write_images(tmp_path, [*class_files("a"), "b/0.png"])
    with pytest.raises(InputError, match="class b cannot be in training and test: its 1 images"):
        folder.load(tmp_path, "train", Options())


def test_damaged_images_are_named_when_they_are_read(tmp_path: Path) -> None:
    write_images(tmp_path, class_files("a", "b", count=4))
    (tmp_path / "a" / "0.png").write_bytes((tmp_path / "a" / "1.png").read_bytes()[:50])
    (tmp_path / "b" / "0.png").write_bytes(b"not an image")
    Image.new("I;16", (4, 4)).save(tmp_path / "b" / "1.png")
    bad = {"a/0.png", "b/0.png", "b/1.png"}
    named = set[str]()
    for split in ("train", "test"):
        images = folder.load(tmp_path, split, Options())
        for index, image in enumerate(images.ids):
            if image in bad:
                with pytest.raises(InputError, match=image):
                    images.read(index)
                named.add(image)
    assert named == bad


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    write_images(tmp_path, class_files("a", "b", count=2))
    write_images(tmp_path, [".cache/c/1.png"])
    (tmp_path / "a" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / "a" / "notes.txt").write_text("ignored")
    images = folder.load(tmp_path, "train", Options(test_share=0.5))
    assert images.classes == ("a", "b")
    assert len(images) == 2


def test_lc25000_is_divided_by_its_source_images(shared_data: Path) -> None:
    root = shared_data / "lc25000"
    train = folder.load(root, "train", Options())
    test = folder.load(root, "test", Options())
    assert len(train) + len(test) == 3500
    assert train.classes == ("colon_aca", "colon_n", "lung_aca", "lung_n", "lung_scc")
    assert len(set(train.groups) | set(test.groups)) == 1125
    assert not set(train.groups) & set(test.groups)
    assert len(test) == pytest.approx(0.3 * 3500, abs=10)
    assert train.read(0).shape == (224, 224, 3)
