import io
import json
import multiprocessing
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from eosin.errors import InputError
from eosin.slides.quality import Quality
from eosin.store import records, shards
from eosin.store import tile_store as store
from eosin.store.records import SlideRecord
from eosin.store.shards import TilePlace
from eosin.store.tile_store import TileStore
from tests.store.small_stores import make_store

_TILE_PX = 32


def _tile(slide_number: int, number: int) -> np.ndarray:
    """A plain tile whose colour tells which one it is."""
    return np.full((_TILE_PX, _TILE_PX, 3), (60 * slide_number, 20 * number, 100), np.uint8)


def _jpeg(tile: np.ndarray) -> bytes:
    return simplejpeg.encode_jpeg(tile, 95, "RGB", "444")


def _add_slide(folder: Path, slide_id: str, jpegs: list[bytes]) -> None:
    with shards.writing_shard(folder, slide_id) as shard:
        for number, jpeg in enumerate(jpegs):
            place = TilePlace(_TILE_PX * number, 0, 0.5, 0.5, 1.0)
            shard.add(place, Quality(1.0, 0.0, 0.0, 0.0), jpeg)
    rows = shard.rows()
    record = SlideRecord(
        slide_id=slide_id,
        path=f"{slide_id}.svs",
        tiles=len(rows),
        bytes=shards.shard_path(folder, slide_id).stat().st_size,
        rows_sha256=shards.hash_rows(rows),
    )
    shards.commit(folder, record, rows)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of two slides with 3 and 2 tiles, and a quarantined one."""
    path = tmp_path / "store"
    store.create(path, _TILE_PX, [0.5], {"mpp": [0.5]})
    _add_slide(path, "b", [_jpeg(_tile(1, number)) for number in range(2)])
    _add_slide(path, "a", [_jpeg(_tile(0, number)) for number in range(3)])
    bad = SlideRecord(slide_id="c", path="c.svs", status=records.QUARANTINED, reason="damaged")
    shards.commit(path, bad)
    store.finish(path)
    return path


def test_tiles_are_numbered_by_slide(folder: Path) -> None:
    tiles = TileStore(folder)
    assert len(tiles) == 5
    assert (tiles.tile_px, tiles.mpps) == (_TILE_PX, (0.5,))
    assert tiles.slide_ids == ["a", "b"]
    assert [tiles.slide_of(number) for number in range(5)] == ["a", "a", "a", "b", "b"]
    expected = [_tile(0, 0), _tile(0, 1), _tile(0, 2), _tile(1, 0), _tile(1, 1)]
    for number, tile in enumerate(expected):
        read = tiles.read(number)
        assert read.shape == (_TILE_PX, _TILE_PX, 3) and read.dtype == np.uint8
        assert cv2.absdiff(read, tile).max() <= 3
        assert simplejpeg.is_jpeg(tiles.read_bytes(number))
    assert tiles.slides[2].reason == "damaged"
    assert tiles.verify() == []
    for number in (-1, 5):
        with pytest.raises(IndexError):
            tiles.read(number)


def _sum_tiles(tiles: TileStore, connection: object) -> None:
    connection.send([int(tiles.read(number).sum()) for number in range(len(tiles))])


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_other_processes_read_the_same(folder: Path, start: str) -> None:
    tiles = TileStore(folder)
    expected = [int(tiles.read(number).sum()) for number in range(len(tiles))]
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=_sum_tiles, args=(tiles, there))
    child.start()
    assert here.poll(60)
    assert here.recv() == expected
    child.join()
    here.close()
    there.close()


def test_threads_read_the_same_even_if_shards_are_closed_under_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_OPEN_SHARDS", 1)
    tiles = pickle.loads(pickle.dumps(TileStore(folder)))
    numbers = np.random.default_rng(0).integers(0, len(tiles), 400).tolist()
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(tiles.read_bytes, numbers))
    assert read == [tiles.read_bytes(number) for number in numbers]


def test_the_fingerprint_is_that_of_the_content(folder: Path) -> None:
    before = TileStore(folder).fingerprint
    store.finish(folder)
    assert TileStore(folder).fingerprint == before
    _add_slide(folder, "d", [_jpeg(_tile(2, 0))])
    store.finish(folder)
    tiles = TileStore(folder)
    assert tiles.fingerprint != before
    assert len(tiles) == 6
    assert [path.name for path in (folder / "index").iterdir()] == [tiles.index.path.name]


def test_the_index_is_rebuilt_and_shared(folder: Path) -> None:
    before = TileStore(folder).index.path.read_bytes()
    shutil.rmtree(folder / "index")
    tiles = TileStore(folder)
    assert tiles.index.path.read_bytes() == before
    assert isinstance(tiles.index.rows.base, np.memmap)
    for damage in (before[:-30], b"", b"not an array" * 50):
        tiles.index.path.write_bytes(damage)
        TileStore(folder)
        assert tiles.index.path.read_bytes() == before


def test_a_store_that_cannot_be_written_still_opens(folder: Path) -> None:
    expected = TileStore(folder).read_bytes(4)
    shutil.rmtree(folder / "index")
    # A file where the folder should be stands for a read-only disk, since root may write anywhere.
    (folder / "index").touch()
    tiles = TileStore(folder)
    assert tiles.read_bytes(4) == expected
    assert len(tiles) == 5


def test_a_truncated_shard_is_found(folder: Path) -> None:
    path = shards.shard_path(folder, "b")
    tiles = TileStore(folder)
    path.write_bytes(path.read_bytes()[:1500])
    problems = tiles.verify()
    assert any("b.tar has 1500 bytes instead of" in problem for problem in problems)
    with pytest.raises(InputError, match=r"Tile 4 of .*b\.tar at byte \d+.*truncated"):
        tiles.read(4)
    path.unlink()
    with pytest.raises(InputError, match=r"Tile 4 of .*b\.tar.*No such file"):
        TileStore(folder).read(4)


def test_a_changed_byte_is_found(folder: Path) -> None:
    tiles = TileStore(folder)
    path = shards.shard_path(folder, "a")
    content = bytearray(path.read_bytes())
    content[int(tiles.index.rows[1]["offset"]) + 40] ^= 1
    path.write_bytes(content)
    (problem,) = tiles.verify()
    assert "Tile 1 of" in problem and "checksum is wrong" in problem
    with pytest.raises(InputError, match="checksum"):
        tiles.read(1)
    assert tiles.read(0).shape == (_TILE_PX, _TILE_PX, 3)


def test_tiles_that_are_no_jpeg_or_of_another_size_are_refused(folder: Path) -> None:
    too_large = _jpeg(np.zeros((64, 64, 3), np.uint8))
    _add_slide(folder, "d", [b"not a jpeg", too_large, _jpeg(_tile(0, 0))[:-200]])
    store.finish(folder)
    tiles = TileStore(folder)
    with pytest.raises(InputError, match="Tile 5"):
        tiles.read(5)
    with pytest.raises(InputError, match="64 x 64 px"):
        tiles.read(6)
    with pytest.raises(InputError, match="Tile 7"):
        tiles.read(7)
    assert len(tiles.verify()) == 3


def test_rows_that_do_not_fit_are_found(folder: Path) -> None:
    tiles = TileStore(folder)
    rows = shards.read_rows(folder, "a")
    shards.commit(folder, tiles.slides[0], rows.slice(0, 2))
    problems = tiles.verify()
    assert [problem.split()[-2:] for problem in problems[:2]] == [
        ["were", "written."],
        ["3", "tiles."],
    ]
    assert "1 files that no row names, such as a/64_0_500nm.jpg" in problems[2]
    shutil.rmtree(folder / "index")
    with pytest.raises(InputError, match=r"a\.parquet is not what slides\.parquet says"):
        TileStore(folder)


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    for name, jpeg in members:
        shards.write_member(file, name, jpeg)
    shards.end_tar(file)
    return file.getvalue()


def test_a_tar_that_other_programs_read_differently_is_found(folder: Path) -> None:
    tiles = TileStore(folder)
    path = shards.shard_path(folder, "b")
    first, second = tiles.read_bytes(3), tiles.read_bytes(4)
    names = ["b/0_0_500nm.jpg", "b/32_0_500nm.jpg"]
    assert path.read_bytes() == _tar([(names[0], first), (names[1], second)])
    path.write_bytes(_tar([("b/other.jpg", first), (names[1], second)]))
    problems = tiles.verify()
    assert any(f"has no {names[0]}" in problem for problem in problems)
    assert any("1 files that no row names, such as b/other.jpg" in each for each in problems)
    path.write_bytes(_tar([(names[0], first), (names[1], second), (names[0], second)]))
    assert any(f"has {names[0]} at byte" in problem for problem in tiles.verify())


def test_what_differs_between_the_tables_is_found(folder: Path) -> None:
    tiles = TileStore(folder)
    index = np.load(tiles.index.path)
    index["offset"][[3, 4]] = index["offset"][[4, 3]]
    np.save(tiles.index.path, index)
    assert any(".npy is not what the rows of b say" in each for each in TileStore(folder).verify())
    shutil.rmtree(folder / "index")
    rows = shards.read_rows(folder, "b")
    shards.commit(folder, replace(tiles.slides[1], patient="another"), rows)
    (problem,) = TileStore(folder).verify()
    assert "tiles/b.parquet and slides.parquet say different things" in problem


def test_what_a_killed_run_left_is_found(folder: Path) -> None:
    shards.write_mask(folder, "gone", np.ones((4, 4), np.bool_))
    shards.write_mask(folder, "a", np.ones((4, 4), np.bool_))
    (folder / "shards" / ".writing-1-x.tar").touch()
    left, gone = TileStore(folder).verify()
    assert ".writing-1-x.tar was left by a killed run" in left
    assert "gone.png belongs to no finished slide" in gone
    (folder / "masks" / "gone.png").unlink()
    (folder / "shards" / ".writing-1-x.tar").unlink()
    (folder / "masks" / "a.png").write_bytes(b"damaged")
    (problem,) = TileStore(folder).verify()
    assert "a.png is damaged" in problem


def test_many_problems_of_one_slide_are_counted(tmp_path: Path) -> None:
    folder = make_store(tmp_path / "store", {"a": 30, "b": 3})
    path = shards.shard_path(folder, "a")
    path.write_bytes(path.read_bytes()[:600])
    problems = TileStore(folder).verify()
    assert any("a: 25 more such problems" in problem for problem in problems)
    assert len(problems) < 15


def test_columns_are_in_the_order_of_the_tiles_and_kept(folder: Path) -> None:
    tiles = TileStore(folder)
    assert tiles.column("x").tolist() == [0, 32, 64, 0, 32]
    assert tiles.column("blur").dtype == np.float32
    assert np.flatnonzero(tiles.column("x") > 30).tolist() == [1, 2, 4]
    path = tiles.index.path.with_name(f"{tiles.index.path.stem}-x.npy")
    before = path.read_bytes()
    assert isinstance(tiles.column("x").base, np.memmap)
    assert not tiles.column("x").flags.writeable
    path.write_bytes(before[:-8])
    assert TileStore(folder).column("x").tolist() == [0, 32, 64, 0, 32]
    assert path.read_bytes() == before
    store.finish(folder)
    assert path.is_file()
    _add_slide(folder, "d", [_jpeg(_tile(2, 0))])
    store.finish(folder)
    assert not path.exists()
    assert TileStore(folder).column("x").tolist() == [0, 32, 64, 0, 32, 0]
    with pytest.raises(InputError, match="no 'sharpness'; they have x, y"):
        tiles.column("sharpness")


def test_damaged_rows_of_a_column_are_named(folder: Path) -> None:
    tiles = TileStore(folder)
    shards.rows_path(folder, "b").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"b\.parquet is damaged"):
        tiles.column("blur")
    assert not [path for path in (folder / "index").iterdir() if path != tiles.index.path]


def test_slides_of_many_tiles_at_once(folder: Path) -> None:
    tiles = TileStore(folder)
    assert tiles.slide_numbers([0, 2, 3, 4]).tolist() == [0, 0, 1, 1]
    assert [tiles.tiles_of(slide) for slide in range(2)] == [range(0, 3), range(3, 5)]
    assert tiles.slide_table["path"].to_pylist() == ["a.svs", "b.svs"]
    _add_slide(folder, "aa", [])
    store.finish(folder)
    assert TileStore(folder).slide_numbers([2, 3]).tolist() == [0, 2]


def test_a_shard_of_no_slide_is_found(folder: Path) -> None:
    with shards.writing_shard(folder, "left") as shard:
        shard.add(TilePlace(0, 0, 0.5, 0.5, 1.0), Quality(1.0, 0.0, 0.0, 0.0), b"tile")
    (problem,) = TileStore(folder).verify()
    assert "left.tar belongs to no finished slide" in problem


def test_folders_that_are_no_finished_store(folder: Path, tmp_path: Path) -> None:
    assert TileStore.is_store(folder)
    assert not TileStore.is_store(tmp_path)
    with pytest.raises(InputError, match="is not a tile store"):
        TileStore(tmp_path)
    (folder / "slides.parquet").unlink()
    assert TileStore.is_store(folder)
    with pytest.raises(InputError, match="unfinished"):
        TileStore(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "not that of a tile store"),
        ('{"format": "other"}', "not that of a tile store"),
        ('{"format": "eosin tile store", "format_version": 99}', "of format 99"),
        ('{"format": "eosin tile store", "format_version": 2}', "lacks config, mpp, pixels, tile"),
    ],
)
def test_a_header_that_makes_no_sense(folder: Path, content: str, message: str) -> None:
    (folder / "store.json").write_text(content)
    with pytest.raises(InputError, match=message):
        TileStore(folder)


def test_names_that_leave_the_folder_are_refused(folder: Path) -> None:
    for name in ("../a", "a/b", "..", ""):
        evil = SlideRecord(slide_id=name, path="a.svs")
        records.write_slides(folder, [*shards.read_records(folder), evil])
        with pytest.raises(InputError, match="not a plain name"):
            TileStore(folder)


def test_an_empty_store_has_no_tiles(tmp_path: Path) -> None:
    store.create(tmp_path, _TILE_PX, [0.5], {})
    (tmp_path / "tiles").mkdir()
    store.finish(tmp_path)
    assert len(TileStore(tmp_path)) == 0


def test_the_header_holds_settings_and_provenance(folder: Path) -> None:
    header = json.loads((folder / "store.json").read_text())
    assert header["config"] == {"mpp": [0.5]}
    assert len(header["config_hash"]) == 64
    assert header["pixels"] == "shards"
    assert "created" in header["provenance"]
