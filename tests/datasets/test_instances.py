"""Data sets of outlined nuclei: what all of them give, and what they are not taken for."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from eosin import plugins
from eosin.datasets import consep, folder, monuseg, pannuke
from eosin.datasets._base import Info, Options, check_labelled, find_dataset
from eosin.datasets._instances import InstanceImages, renumber
from eosin.errors import InputError, UsageError
from tests.datasets import trees

PX = (26, 12)
HERE = Path("labels.mat")
MODULES = [consep, monuseg, pannuke]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    trees.consep(root / "consep", 0.1, PX)
    trees.monuseg(root / "monuseg", 0.1, PX)
    trees.pannuke(root / "pannuke", 0.001, 12)
    return root


def name_of(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def make(module: ModuleType, whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole / name_of(module), tmp_path / name_of(module))
    return tmp_path / name_of(module)


def test_every_dataset_says_what_it_holds() -> None:
    infos: dict[str, Info] = {
        n: plugins.load("datasets", n).INFO for n in plugins.names("datasets")
    }
    of_instances = {name for name, info in infos.items() if info.holds == "instances"}
    assert of_instances == {name_of(module) for module in MODULES}
    assert all(infos[name].mpp and infos[name].classes for name in of_instances)
    assert not any(infos[name].class_counts for name in of_instances)


@pytest.mark.parametrize("module", MODULES)
def test_splits_of_nuclei_keep_the_contract(module: ModuleType, whole: Path) -> None:
    root = whole / name_of(module)
    assert find_dataset(root) is module
    loaded = trees.load_all(module, root)
    assert {"train", "test"} <= loaded.keys()
    for split, images in loaded.items():
        assert isinstance(images, InstanceImages)
        assert (images.dataset, images.split) == (name_of(module), split)
        assert (images.classes, images.mpp) == (module.INFO.classes, 0.25)
        assert len(images) == len(set(images.ids)) == len(images.groups) > 0
        for index in range(len(images)):
            seen = images.read(index)
            assert seen.image.dtype == np.uint8 and seen.image.shape[2] == 3
            assert seen.instances.dtype == np.int32
            assert seen.instances.shape == seen.image.shape[:2]
            assert np.unique(seen.instances).tolist() == list(range(len(seen.types) + 1))
            assert seen.types.dtype == np.int64
            assert set(seen.types.tolist()) <= set(range(len(images.classes)))
    assert len({images.split_sha256 for images in loaded.values()}) == 1
    assert len({images.manifest_sha256 for images in loaded.values()}) == len(loaded)


@pytest.mark.parametrize("module", MODULES)
def test_hashes_follow_the_bytes_of_images_and_outlines(
    module: ModuleType, whole: Path, tmp_path: Path
) -> None:
    root = make(module, whole, tmp_path)
    before = trees.load_all(module, root)
    assert {split: images.manifest_sha256 for split, images in before.items()} == {
        split: images.manifest_sha256
        for split, images in trees.load_all(module, whole / name_of(module)).items()
    }
    labels = (
        next(path for path in sorted(root.rglob("*")) if path.suffix in (".mat", ".xml"))
        if module is not pannuke
        else root / "Fold 1/masks/fold1/masks.npy"
    )
    content = bytearray(labels.read_bytes())
    if module is consep:
        content[:6] = b"Matlab"  # of a text that nothing depends on
    elif module is monuseg:
        content += b"\n"
    else:
        content[-8:] = np.float64(0).tobytes()
    labels.write_bytes(content)
    after = trees.load_all(module, root)
    changed = [s for s in before if before[s].manifest_sha256 != after[s].manifest_sha256]
    assert changed == ["test"] if module is consep else ["train"]
    assert {images.split_sha256 for images in (*before.values(), *after.values())} == {
        before["test"].split_sha256
    }


@pytest.mark.parametrize("module", MODULES)
def test_many_threads_read_the_same(module: ModuleType, whole: Path) -> None:
    images = module.load(whole / name_of(module), "train", Options())
    alone = [images.read(index) for index in range(len(images))]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(images.read, list(range(len(images))) * 5))
    for number, seen in enumerate(together):
        expected = alone[number % len(images)]
        assert (seen.instances == expected.instances).all()
        assert (seen.image == expected.image).all() and (seen.types == expected.types).all()


@pytest.mark.parametrize("module", MODULES)
def test_a_csv_names_the_groups(module: ModuleType, whole: Path, tmp_path: Path) -> None:
    root = make(module, whole, tmp_path)
    loaded = trees.load_all(module, root)
    rows = [f"{image},{split} patient" for split, each in loaded.items() for image in each.ids]
    (tmp_path / "groups.csv").write_text("\n".join(["file,patient", *rows]))
    grouped = trees.load_all(module, root, groups=tmp_path / "groups.csv")
    assert set(grouped["test"].groups) == {"test patient"}
    assert grouped["test"].grouped_by == "patient in groups.csv"
    alone = trees.load_all(module, root, group_column="none")
    assert alone["test"].groups.tolist() == list(alone["test"].ids)
    rows[0] = rows[0].replace("train patient", "test patient")
    (tmp_path / "groups.csv").write_text("\n".join(["file,patient", *rows]))
    with pytest.raises(InputError, match="group test patient has images in train and in"):
        module.splits(root, Options(groups=tmp_path / "groups.csv"))


def test_nuclei_are_not_taken_for_labelled_images(whole: Path) -> None:
    with pytest.raises(UsageError, match=r"consep in .* holds outlined nuclei.*--task nuclei"):
        check_labelled(consep, whole / "consep")
    for name in set(plugins.names("datasets")) - set(map(name_of, MODULES)):
        check_labelled(plugins.load("datasets", name), whole)


@pytest.mark.parametrize("module", MODULES)
def test_a_whole_tree_of_nuclei_has_no_deviation_but_its_size(
    module: ModuleType, whole: Path
) -> None:
    kinds = {each.kind for each in module.verify(whole / name_of(module), Options())}
    # The outlines of MoNuSeg's tree overlap, and lose no nucleus.
    assert kinds == {"count", "size"}


def test_other_trees_of_images_are_not_taken_for_nuclei(tmp_path: Path) -> None:
    for name in ("train/images/a.png", "test/images/b.png", "train/labels/a.mat", "fold1/x.npy"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "train/images/TCGA-AA-1111.tif").write_bytes(b"")
    assert find_dataset(tmp_path) is folder


@given(
    arrays.arrays(
        st.sampled_from([np.int32, np.uint16, np.float64, np.int64]),
        arrays.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6),
        elements=st.sampled_from([0, 0, 1, 2, 7, 300, 40_000]),
    )
)
def test_renumbering_keeps_instances_and_their_order(numbers: np.ndarray) -> None:
    renumbered, found = renumber(numbers, HERE)
    assert found.tolist() == sorted(set(numbers.ravel().astype(int).tolist()) - {0})
    assert renumbered.dtype == np.int32 and renumbered.shape == numbers.shape
    assert (np.concatenate([[0], found])[renumbered] == numbers).all()


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        (np.array([[0.0, 1.5]]), "not whole"),
        (np.array([[np.nan, 1]]), "not whole"),
        (np.array([[np.inf, 1]]), "not whole"),
        (np.array([[-1, 1]]), "the number -1"),
        (np.array([[2**31, 1]]), "the number 2147483648"),
        (np.zeros((2, 2, 2)), "matrix of numbers"),
        (np.array([["a"]]), "matrix of numbers"),
    ],
)
def test_what_is_no_instance_map_is_refused(numbers: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=f"labels.mat.*{said}"):
        renumber(numbers, HERE)
