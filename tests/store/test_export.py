"""Exports: what is written, resumed, and read back by Eosin and by tar readers like WebDataset."""

import csv
import functools
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from eosin import atomic
from eosin.errors import InputError, UsageError
from eosin.store import shards, webdataset
from eosin.store import tile_store as store
from eosin.store.export import Config, export
from eosin.store.exported import ExportedStore, open_store
from eosin.store.tile_store import TileStore
from tests.store.small_stores import add_slide, content, dies_at, make_store

SHARD_BYTES = 30_000


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Shards of 30 kB, and a cache that ends with the test."""
    make_plan = webdataset.make_plan

    def plan(tiles: Any, numbers: Any, seed: int, shard_bytes: int) -> webdataset.Plan:
        return make_plan(tiles, numbers, seed, shard_bytes * SHARD_BYTES // 10**6)

    monkeypatch.setattr(webdataset, "make_plan", plan)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of three slides with 40 tiles."""
    return make_store(tmp_path / "store", {"a": 20, "b.with.dots": 5, "c": 15})


@pytest.fixture
def memory_url(tmp_path: Path) -> str:
    """A URL that no other test uses."""
    return f"memory://{tmp_path.name}/export"


def _export(folder: Path | str, out: Path | str, **options: Any) -> Any:
    return export(Config(store=str(folder), out=str(out), shard_mb=1, **options))


def _samples(tar_path: Path) -> dict[str, dict[str, bytes]]:
    """Samples of a tar as WebDataset groups them: up to the first dot of the base name, the key."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(tar_path) as tar:
        for member in tar:
            match = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", member.name)
            assert match is not None and member.isreg()
            samples.setdefault(match[1], {})[match[2]] = tar.extractfile(member).read()
    return samples


def test_every_tile_is_in_the_shards_once_as_it_was(folder: Path, tmp_path: Path) -> None:
    report = _export(folder, tmp_path / "out")
    assert (report.tiles, report.of_tiles) == (40, 40) and report.shards > 2
    tiles = TileStore(folder)
    left = {tiles.read_bytes(number): number for number in range(40)}
    keys: list[str] = []
    for path in sorted((tmp_path / "out").glob("*.tar")):
        assert path.stat().st_size < 2 * SHARD_BYTES
        for key, sample in _samples(path).items():
            assert set(sample) == {"jpg", "json"}
            number = left.pop(sample["jpg"])
            facts = json.loads(sample["json"])
            assert facts["slide_id"] == tiles.slide_of(number)
            assert facts["patient"] == f"patient of {facts['slide_id']}" and facts["group"] is None
            for name in ("x", "y", "mpp", "target_mpp", "tissue", "blur", "white", "black", "ink"):
                assert facts[name] == pytest.approx(float(tiles.column(name)[number]), abs=1e-6)
            keys.append(key)
    assert not left
    assert keys == sorted(keys) and len(set(keys)) == 40


def test_slides_are_mixed_by_the_seed(folder: Path, tmp_path: Path) -> None:
    orders = [
        [ExportedStore(tmp_path / name).slide_of(number) for number in range(40)]
        for name, seed in (("one", 0), ("same", 0), ("other", 1))
        if _export(folder, tmp_path / name, seed=seed)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert content(tmp_path / "one") == content(tmp_path / "same")
    changes = sum(one != next_one for one, next_one in zip(orders[0], orders[0][1:], strict=False))
    assert changes > 10


def test_only_tiles_that_meet_the_conditions_are_exported(folder: Path, tmp_path: Path) -> None:
    report = _export(folder, tmp_path / "out", where=("blur>3", "tissue > 0.7"))
    blur = ExportedStore(tmp_path / "out").column("blur")
    tiles = TileStore(folder)
    expected = np.flatnonzero((tiles.column("blur") > 3) & (tiles.column("tissue") > 0.7))
    assert report.tiles == len(blur) == len(expected) > 5
    assert sorted(blur) == sorted(tiles.column("blur")[expected])
    with pytest.raises(InputError, match="no tiles with blur>99; loosen --where"):
        _export(folder, tmp_path / "none", where=("blur>99",))


def test_a_url_gets_the_same_files(folder: Path, tmp_path: Path, memory_url: str) -> None:
    _export(folder, tmp_path / "out")
    _export(folder, memory_url)
    files, root = fsspec.core.url_to_fs(memory_url)
    there = {name.removeprefix(f"{root}/"): files.cat_file(name) for name in files.find(root)}
    here = content(tmp_path / "out")
    assert set(there) == {name for name in here if name != ".lock"}
    assert all(there[name] == here[name] for name in there if name != "store.json")
    _export(folder, f"file://{tmp_path}/by-url")
    assert content(tmp_path / "by-url") == here


def test_an_export_is_exported_again_from_its_url(
    folder: Path, tmp_path: Path, memory_url: str
) -> None:
    _export(folder, memory_url)
    _export(memory_url, tmp_path / "folders", format="folder", where=("blur<3",))
    assert len(list((tmp_path / "folders").glob("*/*.jpg"))) == 9


@pytest.mark.parametrize("kind", ["webdataset", "folder"])
def test_an_export_killed_at_any_step_resumes_to_the_same_files(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"format": kind, "where": ("blur<12",)}
    _export(folder, tmp_path / "whole", **options)
    for step in range(1, 100, 1 if kind == "webdataset" else 7):
        out = tmp_path / f"killed-{step}"
        if not dies_at(step, functools.partial(_export, folder, out, **options)):
            break
        with pytest.raises(InputError):
            ExportedStore(out)
        _export(folder, out, **options)
        assert content(out) == content(tmp_path / "whole"), step
    assert 7 < step < 99


def test_a_repeated_export_writes_no_shard_again_but_missing_and_truncated_ones(
    folder: Path, tmp_path: Path, memory_url: str
) -> None:
    out = tmp_path / "out"
    _export(folder, out)
    before, times = content(out), {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "000000.tar").unlink()
    (out / "000001.tar").write_bytes((out / "000001.tar").read_bytes()[:5000])
    (out / "rows" / "000002.parquet").write_bytes(b"damaged")
    _export(folder, out)
    assert content(out) == before
    same = {path.name for path in times if path.stat().st_mtime_ns == times[path]}
    assert same == {path.name for path in times} - {"000000.tar", "000001.tar", "000002.tar"}
    _export(folder, memory_url)
    files, root = fsspec.core.url_to_fs(memory_url)
    created = files.created(f"{root}/000001.tar")
    files.rm(f"{root}/000000.tar")
    _export(folder, memory_url)
    assert files.created(f"{root}/000001.tar") == created
    assert ExportedStore(memory_url).verify() == []


def test_a_folder_holds_the_same_jpegs_and_a_table(folder: Path, tmp_path: Path) -> None:
    report = _export(folder, tmp_path / "out", format="folder")
    assert (report.tiles, report.shards) == (40, 0)
    tiles = TileStore(folder)
    with open(tmp_path / "out" / "tiles.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    for number, row in enumerate(rows):
        assert row["slide_id"] == tiles.slide_of(number) == row["path"].partition("/")[0]
        assert (tmp_path / "out" / row["path"]).read_bytes() == tiles.read_bytes(number)
        assert float(row["blur"]) == tiles.column("blur")[number]
    path = tmp_path / "out" / rows[0]["path"]
    path.write_bytes(b"")
    _export(folder, tmp_path / "out", format="folder")
    assert path.read_bytes() == tiles.read_bytes(0)


def test_another_export_to_the_same_place_is_refused(
    folder: Path, tmp_path: Path, memory_url: str
) -> None:
    for out in (tmp_path / "out", memory_url):
        _export(folder, out)
        with pytest.raises(InputError, match=r"begun with other settings: .*seed was 0, is 1"):
            _export(folder, out, seed=1)
        with pytest.raises(InputError, match="format was webdataset, is folder"):
            _export(folder, out, format="folder")
    add_slide(folder, "new", 1)
    store.finish(folder)
    with pytest.raises(InputError, match="other settings: store was"):
        _export(folder, memory_url)
    with pytest.raises(InputError, match="neither empty nor an earlier export"):
        _export(folder, folder)
    fsspec.filesystem("memory").pipe_file("/elsewhere/thesis.txt", b"years of work")
    with pytest.raises(InputError, match="neither empty nor an earlier export"):
        _export(folder, "memory://elsewhere")
    with (
        atomic.locked(tmp_path / "locked"),
        pytest.raises(InputError, match="written by another run"),
    ):
        _export(folder, tmp_path / "locked")


def test_a_damaged_tile_stops_the_export_and_is_named(folder: Path, tmp_path: Path) -> None:
    path = shards.shard_path(folder, "c")
    damaged = bytearray(path.read_bytes())
    damaged[600] ^= 1
    path.write_bytes(damaged)
    for kind in ("webdataset", "folder"):
        with pytest.raises(InputError, match=r"in c\.tar at byte 512, .*checksum"):
            _export(folder, tmp_path / kind, format=kind)
    with pytest.raises(InputError, match="unfinished"):
        ExportedStore(tmp_path / "webdataset")


def test_tiles_that_stay_in_the_slides_are_not_exported(tmp_path: Path) -> None:
    store.create(tmp_path / "store", 32, [0.5], {}, pixels="slide")
    store.finish(tmp_path / "store")
    with pytest.raises(UsageError, match=r"keeps its pixels in the slides.*--pixels shards"):
        _export(tmp_path / "store", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard_mb": 0}, "--shard-mb is 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"where": ("blur",)}, "--where 'blur'"),
        ({"out": "nosuch://bucket/tiles"}, "nosuch://bucket/tiles cannot be opened"),
    ],
)
def test_options_that_make_no_sense(
    folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export(Config(**({"store": str(folder), "out": str(tmp_path / "out")} | options)))


def test_shards_have_about_the_size_asked_for(folder: Path, tmp_path: Path) -> None:
    _export(folder, tmp_path / "out")
    sizes = [path.stat().st_size for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(sizes) > 2
    # A tile may stand over the end, and two blocks end a tar.
    assert all(abs(size - 1024 - SHARD_BYTES) < 3000 for size in sizes[:-1])


def test_plans_of_many_parts_are_those_of_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles, numbers = TileStore(folder), np.arange(40, dtype=np.uint32)
    whole = webdataset.make_plan(tiles, numbers, 0, 10**6)
    monkeypatch.setattr(webdataset, "_TILES_OF_A_PLAN", 7)
    parts = webdataset.make_plan(tiles, numbers, 0, 10**6)
    np.testing.assert_array_equal(parts.starts, whole.starts)
    np.testing.assert_array_equal(parts.order, whole.order)
    assert sorted(whole.order) == list(range(40))


def test_open_store_tells_the_kinds_apart(folder: Path, tmp_path: Path) -> None:
    _export(folder, tmp_path / "out")
    assert isinstance(open_store(folder), TileStore)
    assert isinstance(open_store(tmp_path / "out"), ExportedStore)
    with pytest.raises(InputError, match="is not a tile store"):
        open_store(tmp_path)
