"""Embeddings of other tools, from files built in exactly their layouts."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import eosin.embeddings
from eosin.embeddings.embed import Config, embed_images
from eosin.embeddings.rows import ROW_SCHEMA
from eosin.errors import InputError
from tests.embeddings.drawn_images import HISTOGRAM, draw_images

MATRIX = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def write_trident(path: Path, matrix: np.ndarray = MATRIX) -> Path:
    """As `save_h5` of TRIDENT: growing datasets, a row a chunk, attributes on each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coords = np.stack([np.arange(len(matrix)) * 512, np.full(len(matrix), 1024)], 1)
    attributes = {
        "patch_size": 256,
        "patch_size_level0": 512,
        "level0_magnification": 40,
        "target_magnification": 20,
        "overlap": 0,
        "name": path.stem,
        "savetodir": "trident_processed/20x_256px_0px_overlap",
        "level0_width": 40_000,
        "level0_height": 30_000,
    }
    with h5py.File(path, "w") as file:
        for name, values in (("features", matrix), ("coords", coords.astype(np.int64))):
            dataset = file.create_dataset(
                name,
                shape=values.shape,
                maxshape=(None, *values.shape[1:]),
                chunks=(1, *values.shape[1:]),
                dtype=values.dtype,
            )
            dataset[:] = values
        file["features"].attrs["encoder"] = "uni_v1"
        for name, value in attributes.items():
            file["coords"].attrs[name] = value
    return path


def write_eva(folder: Path, matrix: np.ndarray = MATRIX, form: str = "list") -> Path:
    """As eva's writer: a list of one tensor a file, and a manifest with four columns."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "manifest.csv", "w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["origin", "embeddings", "target", "split"])
        for number, row in enumerate(torch.from_numpy(matrix.copy())):
            name = f"Benign/b{number}"
            (folder / name).parent.mkdir(exist_ok=True)
            saved: Any = {"list": [row.clone()], "tensor": row.clone(), "row": row.clone()[None]}
            torch.save(saved[form], folder / f"{name}.pt")
            writer.writerow([f"{name}.tif", f"{name}.pt", number % 2, "train"])
    return folder


def write_thunder(folder: Path, matrix: np.ndarray = MATRIX) -> Path:
    """As THUNDER: a dataset an image in `embeddings.h5` and in `labels.h5`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        h5py.File(folder / "embeddings.h5", "a", libver="latest") as embeddings,
        h5py.File(folder / "labels.h5", "a", libver="latest") as labels,
    ):
        for number, row in enumerate(matrix):
            embeddings.create_dataset(str(number), data=row, dtype="float32")
            labels.create_dataset(str(number), data=np.int64(number % 3), dtype="int64")
    return folder


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours")
    images = draw_images(folder / "images", 5)
    embed_images(Config(encoder=HISTOGRAM, data=(str(images),), out=folder / "emb"))
    return folder / "emb"


def test_our_own(ours: Path) -> None:
    for path in (ours, str(ours), ours / "embeddings.safetensors"):
        found = eosin.embeddings.read(path)
        assert found.layout == "eosin" and found.matrix.shape == (5, 512) and len(found) == 5
        assert found.rows.schema.names == ROW_SCHEMA.names
        assert found.about["encoder"]["name"] == HISTOGRAM


def test_tridents_slides(tmp_path: Path) -> None:
    one = write_trident(tmp_path / "features_uni_v1" / "a.h5")
    write_trident(tmp_path / "features_uni_v1" / "b.h5", 2 * MATRIX[:2])
    write_trident(tmp_path / "features_uni_v1" / "empty.h5", MATRIX[:0])
    found = eosin.embeddings.read(one)
    assert (found.matrix == MATRIX).all() and found.layout == "trident"
    assert found.rows["x"].to_pylist() == [0, 512, 1024, 1536, 2048, 2560]
    assert found.rows["id"][1].as_py() == "a/512_1024"
    both = eosin.embeddings.read(one.parent)
    assert (both.matrix == np.concatenate([MATRIX, 2 * MATRIX[:2]])).all()
    assert both.rows["slide_id"].to_pylist() == ["a"] * 6 + ["b"] * 2
    assert both.rows.schema == ROW_SCHEMA


def test_features_with_one_axis_more(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["coords"] = MATRIX[None], np.zeros((1, 6, 2), np.int64)
    assert (eosin.embeddings.read(tmp_path / "a.h5").matrix == MATRIX).all()


def test_float16_stays(tmp_path: Path) -> None:
    path = write_trident(tmp_path / "a.h5", MATRIX.astype(np.float16))
    assert eosin.embeddings.read(path).matrix.dtype == np.float16


@pytest.mark.parametrize("form", ["list", "tensor", "row"])
def test_evas_files(tmp_path: Path, form: str) -> None:
    found = eosin.embeddings.read(write_eva(tmp_path / "emb", form=form))
    assert (found.matrix == MATRIX).all() and found.layout == "eva"
    assert found.rows["label"].to_pylist() == ["0", "1"] * 3
    assert found.rows["id"][2].as_py() == "Benign/b2.tif"
    assert set(found.rows["split"].to_pylist()) == {"train"}


def test_evas_files_of_a_slide(tmp_path: Path) -> None:
    folder = tmp_path / "emb"
    folder.mkdir()
    torch.save(torch.from_numpy(MATRIX[:2].copy()), folder / "s1.pt")
    torch.save([torch.from_numpy(row.copy()) for row in MATRIX[2:]], folder / "s2.pt")
    (folder / "manifest.csv").write_text(
        "origin,embeddings,target,split,wsi_id,scanner\ns1,s1.pt,1,val,W1,x\ns2,s2.pt,0,val,W2,y\n"
    )
    found = eosin.embeddings.read(folder)
    assert (found.matrix == MATRIX).all()
    assert found.rows["slide_id"].to_pylist() == ["W1"] * 2 + ["W2"] * 4
    assert found.rows["scanner"].to_pylist() == ["x"] * 2 + ["y"] * 4
    assert found.rows["id"].to_pylist()[:3] == ["s1/0", "s1/1", "s2/0"]


def test_thunders_splits(tmp_path: Path) -> None:
    for split, scale in (("train", 1), ("val", 2), ("test", 3)):
        write_thunder(tmp_path / "bach" / "phikon" / split, scale * MATRIX)
    found = eosin.embeddings.read(tmp_path / "bach" / "phikon")
    assert (found.matrix == np.concatenate([MATRIX, 2 * MATRIX, 3 * MATRIX])).all()
    assert found.rows["split"].to_pylist() == ["train"] * 6 + ["val"] * 6 + ["test"] * 6
    assert found.rows["label"].to_pylist()[:4] == ["0", "1", "2", "0"]
    one = eosin.embeddings.read(tmp_path / "bach" / "phikon" / "val")
    assert (one.matrix == 2 * MATRIX).all() and one.rows["id"][0].as_py() == "val/0"
    file = eosin.embeddings.read(tmp_path / "bach" / "phikon" / "val" / "embeddings.h5")
    assert file.layout == "thunder" and (file.matrix == 2 * MATRIX).all()


def test_thunder_beyond_ten_is_in_order(tmp_path: Path) -> None:
    matrix = np.arange(24, dtype=np.float32).reshape(12, 2)
    assert (eosin.embeddings.read(write_thunder(tmp_path / "t", matrix)).matrix == matrix).all()


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def rewritten(name: str, **datasets: Any) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "w") as file:
            for key, values in datasets.items():
                file[key] = values

    damage.__name__ = name
    return damage


SLIDE_DAMAGE = [
    (truncated, "is damaged"),
    (rewritten("no features", coords=np.zeros((6, 2))), "has no dataset 'features'"),
    (rewritten("text", features=np.zeros((6, 4), "S3")), "must be numbers"),
    (
        rewritten("coords", features=MATRIX, coords=np.zeros((5, 2))),
        "coords of shape",
    ),
    (lambda path: path.write_bytes(b"no HDF5"), "is no HDF5 file"),
]


@pytest.mark.parametrize(("damage", "message"), SLIDE_DAMAGE)
def test_a_damaged_slide_is_one_error(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    path = write_trident(tmp_path / "a.h5")
    damage(path)
    with pytest.raises(InputError, match=message) as raised:
        eosin.embeddings.read(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_slides_of_two_encoders_are_not_mixed(tmp_path: Path) -> None:
    write_trident(tmp_path / "a.h5")
    write_trident(tmp_path / "b.h5", MATRIX[:, :3])
    with pytest.raises(InputError, match=r"b\.h5 has embeddings of 3 values.*different encoders"):
        eosin.embeddings.read(tmp_path)


class Code:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("open('ran', 'w').close()",)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("Benign/b3.pt", truncated, "no file of plain tensors"),
        ("Benign/b3.pt", Path.unlink, "is missing"),
        ("Benign/b3.pt", lambda path: torch.save([Code()], path), "no file of plain tensors"),
        ("Benign/b3.pt", lambda path: torch.save({"a": 1}, path), "holds no tensor"),
        ("Benign/b3.pt", lambda path: torch.save([torch.zeros(3)], path), "embeddings of 3 val"),
        ("Benign/b3.pt", lambda path: torch.save([torch.zeros(4).int()], path), None),
        ("manifest.csv", lambda path: path.write_bytes(b"\xff\xfe\x00"), "is no CSV"),
        ("manifest.csv", lambda path: path.write_text("origin,target\na,1\n"), "needs rows with"),
        ("manifest.csv", lambda path: path.write_text(""), "needs rows with"),
        (
            "manifest.csv",
            lambda path: path.write_text("embeddings,target\n../../outside.pt,1\n"),
            "is no file of this folder",
        ),
    ],
)
def test_damaged_eva_files_are_one_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    damage: Callable[[Path], Any],
    message: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_eva(tmp_path / "emb")
    damage(folder / name)
    if message is None:
        assert len(eosin.embeddings.read(folder)) == 6
        return
    with pytest.raises(InputError, match=message) as raised:
        eosin.embeddings.read(folder)
    assert "\n" not in str(raised.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("embeddings.h5", truncated, "is damaged|no dataset"),
        ("embeddings.h5", rewritten("gap", **{"0": MATRIX[0], "2": MATRIX[1]}), "no dataset '1'"),
        (
            "embeddings.h5",
            rewritten("shapes", **{"0": MATRIX[0], "1": MATRIX[0, :2]}),
            "several shapes",
        ),
        ("embeddings.h5", rewritten("nothing"), "holds nothing"),
        ("labels.h5", rewritten("few", **{"0": 1}), "1 labels for 6 embeddings"),
        ("labels.h5", truncated, "is damaged"),
    ],
)
def test_damaged_thunder_files_are_one_error(
    tmp_path: Path, name: str, damage: Callable[[Path], None], message: str
) -> None:
    folder = write_thunder(tmp_path / "train")
    damage(folder / name)
    with pytest.raises(InputError, match=message) as raised:
        eosin.embeddings.read(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("embeddings.safetensors", truncated, "is not what its hash says"),
        ("rows.parquet", truncated, "cannot be read"),
        ("embed.json", lambda path: path.write_text("{"), "is damaged"),
    ],
)
def test_damage_of_our_own_is_one_error(
    ours: Path, tmp_path: Path, name: str, damage: Callable[[Path], Any], message: str
) -> None:
    folder = shutil.copytree(ours, tmp_path / "emb")
    damage(folder / name)
    with pytest.raises(InputError, match=message):
        eosin.embeddings.read(folder)


def test_what_holds_no_embeddings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        eosin.embeddings.read(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no embeddings that are known"):
        eosin.embeddings.read(tmp_path)
