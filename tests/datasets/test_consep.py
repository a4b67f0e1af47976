"""CoNSeP as it is published, as a copy with merged types, and as the true copy of the samples."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io

from eosin.datasets import consep
from eosin.datasets._base import Options, find_dataset
from eosin.errors import InputError, UsageError
from tests.datasets import trees

PX = (26, 12)
MAT = "Train/Labels/train_2.mat"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.consep(tmp_path, 0.1, PX)


def save(path: Path, **changes: Any) -> None:
    content: dict[str, Any] = {**trees.consep_labels(PX, 7), **changes}
    kept = {name: value for name, value in content.items() if value is not None}
    scipy.io.savemat(path, kept)


def types_of_second(root: Path, **options: Any) -> list[int]:
    return consep.load(root, "train", Options(**options)).read(1).types.tolist()


def test_seven_types_are_merged_as_in_the_paper(root: Path) -> None:
    train = consep.load(root, "train", Options())
    assert train.classes == ("miscellaneous", "inflammatory", "epithelial", "spindle")
    assert types_of_second(root) == [0, 1, 2, 2, 3, 3, 3]
    original = consep.load(root, "train", Options(nucleus_types="original"))
    assert types_of_second(root, nucleus_types="original") == list(range(7))
    assert original.classes[3] == "dysplastic or malignant epithelial"
    assert original.manifest_sha256 != train.manifest_sha256
    assert original.split_sha256 == train.split_sha256


def test_a_copy_with_four_types_is_taken_as_it_is(tmp_path: Path) -> None:
    root = trees.consep(tmp_path, 0.1, PX, n_types=4)
    assert types_of_second(root) == [0, 1, 2, 3]
    with pytest.raises(UsageError, match="merged into four already"):
        consep.splits(root, Options(nucleus_types="original"))
    # One file with seven decides for all of them.
    save(root / "Test/Labels/test_1.mat")
    assert types_of_second(root) == [0, 1, 2, 2]


def test_images_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    root = trees.consep(tmp_path / "CoNSeP", 1.0, PX)
    loaded = trees.load_all(consep, tmp_path)
    assert {split: len(images) for split, images in loaded.items()} == consep.INFO.counts
    assert loaded["train"].ids == tuple(f"Train/Images/train_{n}.png" for n in range(1, 28))
    inside = trees.load_all(consep, root)
    assert inside["train"].manifest_sha256 == loaded["train"].manifest_sha256
    assert find_dataset(tmp_path) is find_dataset(root) is consep


def test_a_nucleus_has_the_type_of_most_of_its_pixels(root: Path) -> None:
    types = trees.consep_labels(PX, 7)["type_map"]
    types[0:2, 3:5], types[0, 6] = 2, 0  # 4 of 6 pixels; and one pixel less of the second
    save(root / MAT, type_map=types)
    assert types_of_second(root) == [1, 1, 2, 2, 3, 3, 3]
    found = consep.verify(root, Options())
    assert [each.sentence for each in found if each.kind == "label"] == [
        f"{root / MAT}: 1 nuclei have another type in inst_type than in type_map, the first of "
        "them nucleus 1 of 7."
    ]


@pytest.mark.parametrize("missing", ["type_map", "inst_type"])
def test_either_source_of_types_is_enough(missing: str, root: Path) -> None:
    save(root / MAT, **{missing: None})
    assert types_of_second(root) == [0, 1, 2, 2, 3, 3, 3]


def test_types_are_listed_also_for_nuclei_without_pixels(root: Path) -> None:
    instances = trees.consep_labels(PX, 7)["inst_map"]
    listed = np.tile(np.arange(1.0, 8), 2)[:13, None]  # numbers 1 to 13, of which the odd are there
    save(root / MAT, inst_map=instances, type_map=None, inst_type=listed)
    assert types_of_second(root) == [0, 2, 3, 3, 1, 2, 3]
    found = [each for each in consep.verify(root, Options()) if each.kind == "label"]
    assert (
        len(found) == 1 and "lists the types of 13 nuclei, and 7 have pixels" in found[0].sentence
    )


def test_files_of_matlab_7_3_are_read(root: Path) -> None:
    expected = consep.load(root, "train", Options()).read(1)
    (root / MAT).unlink()
    with h5py.File(root / MAT, "w", userblock_size=512) as file:
        for name, matrix in trees.consep_labels(PX, 7).items():
            file[name] = matrix.T
    seen = consep.load(root, "train", Options()).read(1)
    assert (seen.instances == expected.instances).all()
    assert (seen.types == expected.types).all()


def test_an_image_without_nuclei_is_an_image(root: Path) -> None:
    empty = np.zeros(PX[::-1])
    save(root / MAT, inst_map=empty, type_map=empty, inst_type=np.zeros((0, 0)))
    assert types_of_second(root) == []


def drop(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def change(**changes: Any) -> Callable[[Path], None]:
    return lambda root: save(root / MAT, **changes)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop(MAT), r"Images/train_2.png has no labels: .*Labels/train_2.mat is missing"),
        (
            drop("Train/Images/train_3.png"),
            r"train_3.mat has no image: .*train_3.png is missing",
        ),
        (
            lambda root: (root / MAT).write_bytes(b"MATLAB"),
            "train_2.mat cannot be read as a MATLAB",
        ),
        (lambda root: (root / MAT).write_bytes(b""), "train_2.mat cannot be read as a MATLAB"),
        (change(inst_map=None), "train_2.mat has no inst_map"),
        (change(type_map=None, inst_type=None), "train_2.mat has neither type_map nor inst_type"),
        (change(type_map=np.zeros((5, 4))), r"type_map is .* and inst_map is"),
        (change(inst_map=np.ones((5, 4)), type_map=None), "is for an image of 4 x 5 pixels, and"),
        (change(inst_map=np.full(PX[::-1], 0.5)), "not whole"),
        (change(inst_map={"a": 1}), "inst_map is no matrix of numbers"),
        (change(inst_type=np.full((7, 1), 8.0)), "has the type 8; CoNSeP's types go from 1 to 7"),
        (change(inst_type=np.full((7, 1), np.nan)), "has the type nan"),
        (change(type_map=np.full(PX[::-1], 9.0)), "has the type 9; CoNSeP's types go from 1 to 7"),
        (change(type_map=np.zeros(PX[::-1]), inst_type=None), "nucleus 1 has no type"),
        (change(inst_type=np.zeros((7, 1)), type_map=None), "nucleus 1 has no type"),
    ],
)
def test_what_is_wrong_is_said_once_with_the_file(
    spoil: Callable[[Path], None], said: str, root: Path
) -> None:
    spoil(root)
    with pytest.raises(InputError, match=said):
        for split in consep.splits(root, Options()):
            images = consep.load(root, split, Options())
            for index in range(len(images)):
                images.read(index)
    found = consep.verify(root, Options())
    assert sum(each.kind in ("missing", "label", "unreadable") for each in found) == 1


def test_labels_cut_short_are_an_error(root: Path) -> None:
    content = (root / MAT).read_bytes()
    # What follows are centroids and, beside the map of types, the list of them.
    for length in range(0, 2 * len(content) // 3, len(content) // 12):
        (root / MAT).write_bytes(content[:length])
        with pytest.raises(InputError, match=r"train_2\.mat"):
            consep.load(root, "train", Options()).read(1)


def test_strays_are_told_and_left_out(root: Path) -> None:
    (root / "Train/Images/notes.txt").write_text("")
    (root / "Train/Labels/.DS_Store").write_text("")
    found = [each.where for each in consep.verify(root, Options()) if each.kind == "stray"]
    assert found == ["Train/Images/notes.txt"]
    assert len(consep.load(root, "train", Options())) == 3


def test_the_real_data_set(shared_data: Path) -> None:
    loaded = trees.load_all(consep, shared_data / "consep")
    assert {split: len(images) for split, images in loaded.items()} == {"train": 27, "test": 14}
    nuclei = {
        split: sum(len(images.read(index).types) for index in range(len(images)))
        for split, images in loaded.items()
    }
    assert nuclei == {"train": 15_555, "test": 8_777} and sum(nuclei.values()) == 24_332
    assert np.bincount(loaded["test"].read(0).types).tolist() == [0, 71, 214, 580]
    with pytest.raises(UsageError, match="merged into four already"):
        consep.splits(shared_data / "consep", Options(nucleus_types="original"))


def test_the_real_data_set_has_no_deviation(shared_data: Path) -> None:
    assert consep.verify(shared_data / "consep", Options()) == []
