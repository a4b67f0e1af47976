"""Exported stores read by place: the same everywhere, and damage is named."""

import json
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from eosin.errors import InputError, UsageError
from eosin.store.export import Config, export
from eosin.store.exported import ExportedStore
from eosin.store.locations import Location
from eosin.store.tile_store import TileStore
from tests.store.small_stores import TILE_PX, make_store


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An exported store of two slides with 12 tiles in one shard."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make_store(tmp_path / "store", {"a": 8, "b": 4})
    export(Config(store=str(tmp_path / "store"), out=str(tmp_path / "out")))
    return tmp_path / "out"


@pytest.fixture
def url(folder: Path) -> str:
    """The same behind a URL that no other test uses."""
    files = fsspec.filesystem("memory")
    root = f"/{folder.parent.name}/out"
    files.put(f"{folder}/", root, recursive=True)
    return f"memory://{root}"


def _sums(tiles: Any) -> list[int]:
    return [int(tiles.read(number).sum()) for number in range(len(tiles))]


def test_tiles_are_those_of_the_store(folder: Path, url: str) -> None:
    tiles = TileStore(folder.parent / "store")
    expected = {tiles.read_bytes(number): number for number in range(12)}
    for place in (folder, str(folder), f"file://{folder}", url):
        exported = ExportedStore(place)
        assert (len(exported), exported.tile_px, exported.mpps) == (12, TILE_PX, (0.5,))
        assert exported.slide_ids == ["a", "b"]
        numbers = [expected[exported.read_bytes(number)] for number in range(12)]
        assert sorted(numbers) == list(range(12)) != numbers
        for number, there in enumerate(numbers):
            np.testing.assert_array_equal(exported.read(number), tiles.read(there))
            assert exported.slide_of(number) == tiles.slide_of(there)
        np.testing.assert_array_equal(
            exported.slide_numbers(np.arange(12)), tiles.slide_numbers(numbers)
        )
        for name in ("y", "blur", "tissue", "mpp"):
            np.testing.assert_array_equal(exported.column(name), tiles.column(name)[numbers])
        assert exported.verify() == []
        for number in (-1, 12):
            with pytest.raises(IndexError):
                exported.read(number)
    with pytest.raises(InputError, match="no 'sharpness'"):
        exported.column("sharpness")


def test_the_fingerprint_is_that_of_the_tiles_wherever_they_lie(folder: Path, url: str) -> None:
    assert ExportedStore(folder).fingerprint == ExportedStore(url).fingerprint
    other = str(folder.parent / "other")
    export(Config(store=str(folder.parent / "store"), out=other, seed=1))
    assert ExportedStore(other).fingerprint != ExportedStore(folder).fingerprint


def _send_sums(tiles: ExportedStore, connection: Any) -> None:
    connection.send(_sums(tiles))


@pytest.mark.parametrize(("start", "by_url"), [("fork", False), ("fork", True), ("spawn", False)])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_other_processes_read_the_same(folder: Path, url: str, start: str, by_url: bool) -> None:
    tiles = ExportedStore(url if by_url else folder)
    expected = _sums(tiles)
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=_send_sums, args=(tiles, there))
    child.start()
    assert here.poll(60)
    assert here.recv() == expected
    child.join()
    here.close()
    there.close()


def test_threads_and_copies_read_the_same(folder: Path, url: str) -> None:
    for place in (folder, url):
        tiles = pickle.loads(pickle.dumps(ExportedStore(place)))
        numbers = np.random.default_rng(0).integers(0, 12, 300).tolist()
        with ThreadPoolExecutor(8) as threads:
            read = list(threads.map(tiles.read_bytes, numbers))
        assert read == [tiles.read_bytes(number) for number in numbers]


def test_a_forked_process_opens_its_own_connection(url: str) -> None:
    location = Location(url)
    here = location._remote
    assert location._remote is here
    location._opened = (os.getpid() + 1, "the connection of a parent")
    assert location._remote is not None and location._remote != "the connection of a parent"


def test_a_tile_is_one_request_for_its_bytes(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = ExportedStore(url)
    asked: list[tuple[str, int, int]] = []
    files = tiles.location._remote
    cat_file = files.cat_file

    def noted(path: str, start: int, end: int) -> bytes:
        asked.append((path.rpartition("/")[2], start, end))
        return cat_file(path, start=start, end=end)

    monkeypatch.setattr(files, "cat_file", noted)
    tiles.read(5)
    row = tiles._index[5]
    assert asked == [("000000.tar", int(row["offset"]), int(row["offset"] + row["length"]))]


def test_the_index_is_fetched_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    expected = _sums(ExportedStore(url))
    files = fsspec.filesystem("memory")
    index = files.cat_file(f"{url}/index.npy")
    files.pipe_file(f"{url}/index.npy", b"")
    assert _sums(ExportedStore(url)) == expected
    shutil.rmtree(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"index\.npy of memory://.* is damaged"):
        ExportedStore(url)
    assert not list((tmp_path / "elsewhere").rglob("*.npy"))
    files.rm(f"{url}/index.npy")
    with pytest.raises(InputError, match=r"index\.npy of memory://.* cannot be fetched"):
        ExportedStore(url)
    files.pipe_file(f"{url}/index.npy", index)
    assert _sums(ExportedStore(url)) == expected


def test_a_store_without_a_place_for_its_columns_still_has_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ExportedStore(folder).column("blur").tolist()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert ExportedStore(folder).column("blur").tolist() == expected


def _change_a_byte(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_damage_is_found_and_named(folder: Path) -> None:
    tiles = ExportedStore(folder)
    path = folder / "000000.tar"
    whole = path.read_bytes()
    offset = int(tiles._index[3]["offset"])
    _change_a_byte(path, offset + 30)
    with pytest.raises(InputError, match=rf"Tile 3 of .* 000000\.tar at byte {offset}.*checksum"):
        tiles.read(3)
    assert len(tiles.verify()) == 1
    path.write_bytes(whole[: offset + 30])
    with pytest.raises(InputError, match="truncated"):
        tiles.read(3)
    problems = tiles.verify()
    assert any("not a whole tar" in problem for problem in problems)
    assert any("more such problems" in problem for problem in problems)
    path.unlink()
    with pytest.raises(InputError, match=r"Tile 3 .*No such file"):
        ExportedStore(folder).read(3)
    assert tiles.verify() != []


def test_names_that_other_programs_see_are_checked(folder: Path) -> None:
    tiles = ExportedStore(folder)
    path = folder / "000000.tar"
    content = path.read_bytes()
    renamed = content.replace(b"000000003.jpg", b"000000003.gif")
    # A tar's header has a checksum of its own, 8 bytes at 148.
    header = bytearray(renamed[int(tiles._index[3]["offset"]) - 512 :][:512])
    header[148:156] = b" " * 8
    digits = f"{sum(header):06o}\0 ".encode()
    start = int(tiles._index[3]["offset"]) - 512
    path.write_bytes(renamed[: start + 148] + digits + renamed[start + 156 :])
    problems = ExportedStore(folder).verify()
    assert any("has no 000000003.jpg" in problem for problem in problems)
    assert any("1 files that no row names, such as 000000003.gif" in each for each in problems)


def test_an_index_that_is_not_the_rows_is_found(folder: Path) -> None:
    index = np.load(folder / "index.npy")
    index["slide"] = 1 - index["slide"]
    np.save(folder / "index.npy", index)
    (problem,) = ExportedStore(folder).verify()
    assert "index.npy is not what rows/000000.parquet" in problem
    np.save(folder / "index.npy", index[:5])
    with pytest.raises(InputError, match=r"index\.npy is damaged"):
        ExportedStore(folder)


def test_damaged_rows_are_named(folder: Path) -> None:
    path = folder / "rows" / "000000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"rows/000000\.parquet of .* cannot be read"):
        ExportedStore(folder).column("blur")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "has no store.json"),
        ("{", "cannot be read"),
        ("[]", "is no exported store"),
        ({"format": "eosin tile store"}, "is no exported store"),
        ({"format_version": 99}, "of format 99"),
        ({"shards": None}, "store.json of .* makes no sense"),
        ({"shards": [3, -1]}, "store.json of .* makes no sense"),
        ({"tile_px": "large"}, "store.json of .* makes no sense"),
        ({"fingerprint": "../../x"}, "store.json of .* makes no sense"),
    ],
)
def test_a_header_that_makes_no_sense(folder: Path, change: Any, message: str) -> None:
    path = folder / "store.json"
    header = json.loads(path.read_text())
    if change is None:
        path.unlink()
    else:
        path.write_text(change if isinstance(change, str) else json.dumps(header | change))
    with pytest.raises(InputError, match=message):
        ExportedStore(folder)


def test_urls_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="memory://nowhere has no store"):
        ExportedStore("memory://nowhere")
    with pytest.raises(UsageError, match="nosuch://bucket cannot be opened"):
        ExportedStore("nosuch://bucket")
