from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from eosin.embeddings.rows import ROW_SCHEMA
from eosin.embeddings.sources import Given, open_source
from eosin.errors import InputError, UsageError
from eosin.store.export import Config as ExportConfig
from eosin.store.export import export
from tests.embeddings.drawn_images import draw_images
from tests.store.small_stores import TILE_PX, draw_tile, make_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "tiles", {"one-00000001": 3, "two-00000002": 4})


def write_pcam(root: Path, split: str, count: int, seed: int) -> None:
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    stem = root / f"camelyonpatch_level_2_split_{split}"
    with h5py.File(f"{stem}_x.h5", "w") as file:
        file["x"] = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
    with h5py.File(f"{stem}_y.h5", "w") as file:
        file["y"] = (np.arange(count) % 2).reshape(-1, 1, 1, 1)


def test_tiles_of_a_store(store: Path) -> None:
    images = Given(data=(str(store),)).open()
    assert len(images) == 7 and images.sources[0].kind == "tile store"
    rows = next(images.rows())
    assert rows.schema == ROW_SCHEMA and len(rows) == 7
    last = rows.to_pylist()[6]
    assert last == {
        "id": "two-00000002/0_96_500nm",
        "source": str(store),
        "path": "two-00000002.svs",
        "slide_id": "two-00000002",
        "patient": "patient of two-00000002",
        "group": None,
        "x": 0,
        "y": 3 * TILE_PX,
        "mpp": 0.5,
        "label": None,
        "split": None,
    }
    assert images.ids[6] == last["id"] and list(images.ids[-2:])[1] == last["id"]
    assert np.abs(images.read(6).astype(int) - draw_tile(1003)).max() < 40


def test_an_exported_store(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    export(ExportConfig(store=str(store), out=str(out)))
    images = Given(data=(str(out),)).open()
    assert sorted(next(images.rows())["id"].to_pylist()) == sorted(
        next(Given(data=(str(store),)).open().rows())["id"].to_pylist()
    )
    assert images.read(0).shape == (TILE_PX, TILE_PX, 3)


def test_a_folder_of_images_at_any_depth(tmp_path: Path) -> None:
    folder = draw_images(tmp_path / "images", 6)
    (folder / ".hidden").mkdir()
    Image.new("RGB", (8, 8)).save(folder / ".hidden" / "x.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "loop").symlink_to(folder)
    images = Given(data=(str(folder),)).open()
    assert list(images.ids[:2]) == ["part-0/0000.png", "part-0/0002.png"] and len(images) == 6
    assert next(images.rows())["label"].null_count == 6


def test_a_changed_byte_changes_the_manifest(tmp_path: Path) -> None:
    folder = draw_images(tmp_path / "images", 4)

    def manifest() -> str:
        return Given(data=(str(folder),)).open().manifest_sha256

    before = manifest()
    assert manifest() == before
    path = folder / "part-0" / "0000.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    assert manifest() != before
    assert Given(data=(str(folder),), limit=2).open().manifest_sha256 != manifest()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# mine\npart-1/0001.png\n\npart-0/0000.png\n"),
        ("list.csv", "id,path\n7,part-1/0001.png\n8,part-0/0000.png\n"),
        ("list.tsv", "Image\tid\npart-1/0001.png\t7\npart-0/0000.png\t8\n"),
    ],
)
def test_a_list_gives_the_order(tmp_path: Path, name: str, text: str) -> None:
    folder = draw_images(tmp_path / "images", 4)
    (folder / name).write_text(text)
    images = Given(data=(str(folder / name),)).open()
    assert list(images.ids) == ["part-1/0001.png", "part-0/0000.png"]
    assert images.read(1).shape == (40, 48, 3)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "", "names no images"),
        ("list.txt", "part-0/0000.png\npart-0/0000.png", "names part-0/0000.png twice"),
        ("list.txt", "absent.png", "names absent.png, which is no file"),
        ("list.csv", "id,label\n1,2\n", "has no column of images"),
        ("list.csv", "path,label\n,2\n", "not in every row"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, name: str, text: str, message: str) -> None:
    folder = draw_images(tmp_path / "images", 1)
    (folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        open_source(str(folder / name))


def test_an_hdf5_file_and_the_labels_beside_it(tmp_path: Path) -> None:
    write_pcam(tmp_path / "pcam", "test", 5, 0)
    path = tmp_path / "pcam" / "camelyonpatch_level_2_split_test_x.h5"
    images = Given(data=(str(path),)).open()
    rows = next(images.rows())
    assert rows["label"].to_pylist() == ["0", "1", "0", "1", "0"]
    assert rows["id"][4].as_py() == f"{path.stem}/0000004"
    with h5py.File(path) as file:
        assert (images.read(3) == file["x"][3]).all()
    with h5py.File(path.with_name(path.name.replace("_x", "_y")), "w") as file:
        file["y"] = np.zeros(4)
    with pytest.raises(InputError, match="4 labels for 5 images"):
        open_source(str(path))


def test_a_labelled_dataset_has_labels_and_splits(tmp_path: Path) -> None:
    root = tmp_path / "pcam"
    for seed, split in enumerate(("train", "test")):
        write_pcam(root, split, 3, seed)
    images = Given(data=(str(root),)).open()
    rows = next(images.rows()).to_pylist()
    assert [row["split"] for row in rows] == ["train"] * 3 + ["test"] * 3
    assert [row["label"] for row in rows[3:]] == ["normal", "tumor", "normal"]
    assert images.sources[0].kind == "labelled dataset (patch_camelyon)"
    with h5py.File(root / "camelyonpatch_level_2_split_test_x.h5") as file:
        assert (images.read(4) == file["x"][1]).all()


def test_a_folder_a_class_is_asked_for(tmp_path: Path) -> None:
    folder = draw_images(tmp_path / "images", 8)
    rows = next(Given(data=(str(folder),), dataset="folder").open().rows()).to_pylist()
    assert {(row["label"], row["path"].split("/")[0]) for row in rows} == {
        ("part-0", "part-0"),
        ("part-1", "part-1"),
    }
    assert {row["split"] for row in rows} == {"train", "test"}


def test_sources_follow_each_other_until_the_limit(store: Path, tmp_path: Path) -> None:
    folder = draw_images(tmp_path / "images", 4)
    images = Given(data=(str(folder), str(store)), limit=6).open()
    tables = list(images.rows())
    assert [len(table) for table in tables] == [4, 2] and len(images) == 6
    assert images.ids[4].startswith("one-00000001/")
    assert tables[1]["source"].to_pylist() == [str(store)] * 2
    with pytest.raises(IndexError):
        images.ids[6]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "holds no images"),
        (lambda path: path.write_bytes(b"\x89\xff\x00"), "neither an HDF5 file nor a list"),
        (lambda path: h5py.File(path, "w").close(), "it has no arrays"),
    ],
)
def test_what_cannot_be_embedded(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(InputError, match=message):
        open_source(str(tmp_path / "data"))


def test_damaged_and_strange_images_are_named(tmp_path: Path) -> None:
    folder = draw_images(tmp_path / "images", 2)
    (folder / "part-0" / "0000.png").write_bytes(b"junk")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(folder / "part-1" / "0001.png")
    images = Given(data=(str(folder),)).open()
    for index, message in ((0, "cannot be read as an image"), (1, "8 bits a channel")):
        with pytest.raises(InputError, match=message):
            images.read(index)


def test_wrong_usage(store: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="same path twice"):
        Given(data=(str(store), str(store))).open()
    with pytest.raises(UsageError, match="no 'imagenet' among the datasets"):
        Given(data=(str(draw_images(tmp_path / "images", 2)),), dataset="imagenet").open()
    with pytest.raises(UsageError, match="nosuch"):
        open_source("nosuch://bucket/tiles")
