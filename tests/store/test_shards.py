import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.slides.quality import Quality
from eosin.store import records, shards
from eosin.store.records import SlideRecord
from eosin.store.shards import TilePlace

_QUALITY = Quality(blur=12.5, white=0.25, black=0.0, ink=0.125)


def _write(folder: Path, slide_id: str, jpegs: list[bytes]) -> None:
    with shards.writing_shard(folder, slide_id) as shard:
        for number, jpeg in enumerate(jpegs):
            shard.add(TilePlace(100 * number, 7, 0.5, 0.5, 0.75), _QUALITY, jpeg)
    rows = shard.rows()
    size = shards.shard_path(folder, slide_id).stat().st_size
    record = SlideRecord(
        slide_id=slide_id,
        path=f"{slide_id}.svs",
        tiles=len(rows),
        bytes=size,
        rows_sha256=shards.hash_rows(rows),
    )
    shards.commit(folder, record, rows)


@settings(max_examples=25, deadline=None)
@given(jpegs=st.lists(st.binary(min_size=1, max_size=1500), min_size=1, max_size=5))
def test_the_rows_point_at_the_bytes_and_any_tar_reader_finds_them(
    jpegs: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store")
    _write(folder, "a-01234567", jpegs)
    content = shards.shard_path(folder, "a-01234567").read_bytes()
    rows = shards.read_rows(folder, "a-01234567").to_pylist()
    assert [content[row["offset"] : row["offset"] + row["length"]] for row in rows] == jpegs
    with tarfile.open(shards.shard_path(folder, "a-01234567")) as tar:
        members = tar.getmembers()
        assert [tar.extractfile(member).read() for member in members] == jpegs
        assert [m.name for m in members] == [
            f"a-01234567/{100 * n}_7_500nm.jpg" for n in range(len(jpegs))
        ]
        assert {(member.mtime, member.uid, member.gid) for member in members} == {(0, 0, 0)}


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    for folder in (tmp_path / "one", tmp_path / "two"):
        _write(folder, "a-01234567", [b"first", b"second"])
    for name in ("shards/a-01234567.tar", "tiles/a-01234567.parquet"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_long_and_foreign_names_stay_readable(tmp_path: Path) -> None:
    slide_id = records.slide_id_of(Path("Ärzte " + 30 * "sehr-" + "lang.svs"))
    _write(tmp_path, slide_id, [b"tile"])
    with tarfile.open(shards.shard_path(tmp_path, slide_id)) as tar:
        (member,) = tar.getmembers()
        assert member.name == f"{slide_id}/0_7_500nm.jpg"
        assert tar.extractfile(member).read() == b"tile"
    (row,) = shards.read_rows(tmp_path, slide_id).to_pylist()
    assert shards.shard_path(tmp_path, slide_id).read_bytes()[row["offset"] :][:4] == b"tile"


def test_an_error_while_writing_leaves_no_shard(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), shards.writing_shard(tmp_path, "a-01234567") as shard:
        shard.add(TilePlace(0, 0, 0.5, 0.5, 1.0), _QUALITY, b"tile")
        _ = 1 / 0
    assert not list((tmp_path / "shards").iterdir())


def test_records_survive_and_are_sorted(tmp_path: Path) -> None:
    bad = SlideRecord(slide_id="b", path="b.svs", status=records.QUARANTINED, reason="no “mpp”")
    shards.commit(tmp_path, bad)
    _write(tmp_path, "a", [b"tile"])
    first, second = shards.read_records(tmp_path)
    assert (first.slide_id, first.tiles) == ("a", 1)
    assert second == bad
    records.write_slides(tmp_path, [first, second])
    assert records.read_slides(tmp_path) == [first, second]


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    _write(tmp_path, "a", [b"tile"])
    path = shards.rows_path(tmp_path, "a")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"a\.parquet is damaged"):
        shards.read_record(path)
    with pytest.raises(InputError, match=r"a\.parquet is damaged"):
        shards.read_rows(tmp_path, "a")
    with pytest.raises(InputError, match=r"b\.parquet is missing"):
        shards.read_rows(tmp_path, "b")
