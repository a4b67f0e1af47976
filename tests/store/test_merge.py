"""Stores merged into one: links, what differs, and kills at any step."""

import errno
import functools
import os
from pathlib import Path
from typing import Any

import pytest

from eosin import atomic
from eosin.errors import InputError, UsageError
from eosin.store import shards
from eosin.store import tile_store as store
from eosin.store.merge import Config, merge
from eosin.store.tile_store import TileStore
from tests.store.small_stores import add_slide, content, dies_at, make_store, quarantine


@pytest.fixture
def stores(tmp_path: Path) -> tuple[Path, Path]:
    """Two stores that share the slide `b`, of which the second quarantined `d`."""
    first = make_store(tmp_path / "first", {"a": 3, "b": 2})
    second = make_store(tmp_path / "second", {"c": 4})
    add_slide(second, "b", 2, seed=1)
    quarantine(second, "d")
    store.finish(second)
    return first, second


def _merge(*stores: Path, out: Path) -> Any:
    return merge(Config(stores=stores, out=out))


def test_slides_are_linked_and_nothing_else_changes(
    stores: tuple[Path, Path], tmp_path: Path
) -> None:
    before = [content(folder) for folder in stores]
    report = _merge(*stores, out=tmp_path / "out")
    assert (report.slides, report.quarantined, report.tiles) == (3, 1, 9)
    assert (report.linked, report.copied) == (10, 0)
    merged = TileStore(tmp_path / "out")
    assert merged.slide_ids == ["a", "b", "c"]
    assert merged.slides[3].reason == "damaged"
    assert merged.verify() == []
    expected = [tiles.read_bytes(n) for tiles in map(TileStore, stores) for n in range(len(tiles))]
    assert {merged.read_bytes(number) for number in range(9)} == set(expected)
    assert shards.shard_path(stores[0], "a").samefile(shards.shard_path(tmp_path / "out", "a"))
    assert [content(folder) for folder in stores] == before


def test_another_file_system_gets_copies(
    stores: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    linked = content(tmp_path / "linked") if _merge(*stores, out=tmp_path / "linked") else {}
    monkeypatch.setattr(os, "link", refuse)
    report = _merge(*stores, out=tmp_path / "out")
    assert (report.linked, report.copied) == (0, 10)
    assert content(tmp_path / "out") == linked
    assert not shards.shard_path(stores[0], "a").samefile(shards.shard_path(tmp_path / "out", "a"))


def test_a_finished_slide_is_taken_rather_than_a_quarantined_one(tmp_path: Path) -> None:
    first = make_store(tmp_path / "first", {"a": 1})
    quarantine(first, "b")
    store.finish(first)
    second = make_store(tmp_path / "second", {"b": 2})
    quarantine(second, "a")
    store.finish(second)
    assert _merge(first, second, out=tmp_path / "out").tiles == 3
    # The reason may be mended after a merge, too.
    third = make_store(tmp_path / "third", {"z": 1})
    quarantine(third, "q")
    store.finish(third)
    _merge(third, out=tmp_path / "later")
    add_slide(third, "q", 2)
    store.finish(third)
    assert _merge(third, out=tmp_path / "later").tiles == 3


def test_a_merge_is_extended_and_repeated(stores: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    _merge(*stores, out=out)
    before = content(out)
    assert (_merge(*stores, out=out).linked, content(out)) == (0, before)
    third = make_store(tmp_path / "third", {"e": 5})
    report = _merge(third, out=out)
    assert (report.tiles, report.linked) == (14, 3)
    assert TileStore(out).verify() == []


def test_a_merge_killed_at_any_step_resumes_to_the_same_store(
    stores: tuple[Path, Path], tmp_path: Path
) -> None:
    _merge(*stores, out=tmp_path / "whole")
    for step in range(1, 100):
        out = tmp_path / f"killed-{step}"
        if not dies_at(step, functools.partial(_merge, *stores, out=out)):
            break
        _merge(*stores, out=out)
        assert content(out) == content(tmp_path / "whole"), step
    assert 12 < step < 99


@pytest.mark.parametrize(
    ("tile_px", "mpps", "settings", "pixels", "named"),
    [
        (64, [0.5], {}, "shards", "tile_px is 32 and 64"),
        (32, [0.5, 1.0], {}, "shards", r"mpp is \[0.5\] and \[0.5, 1.0\]"),
        (32, [0.5], {}, "slide", "pixels is shards and slide"),
        (32, [0.5], {"quality": 80}, "shards", "quality is None and 80"),
    ],
)
def test_stores_of_other_settings_are_refused(
    tmp_path: Path,
    tile_px: int,
    mpps: list[float],
    settings: dict[str, object],
    pixels: str,
    named: str,
) -> None:
    first = make_store(tmp_path / "first", {"a": 1}, {})
    second = tmp_path / "second"
    store.create(second, tile_px, mpps, settings, pixels)
    store.finish(second)
    with pytest.raises(InputError, match=f"first and .*second were made with .*{named}"):
        _merge(first, second, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_tiles_of_the_same_slide_are_refused(tmp_path: Path) -> None:
    first = make_store(tmp_path / "first", {"a": 2, "b": 2})
    second = make_store(tmp_path / "second", {"c": 1, "b": 3})
    with pytest.raises(InputError, match=r"first and .*second hold different tiles of .* b "):
        _merge(first, second, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    _merge(first, out=tmp_path / "out")
    with pytest.raises(InputError, match=r"out holds other tiles of the slide b than .*second"):
        _merge(second, out=tmp_path / "out")


def test_a_truncated_shard_is_not_taken_over(stores: tuple[Path, Path], tmp_path: Path) -> None:
    path = shards.shard_path(stores[1], "c")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"c\.tar has \d+ bytes instead of .* store verify"):
        _merge(*stores, out=tmp_path / "out")


def test_folders_that_are_something_else_are_refused(
    stores: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="neither empty nor a tile store"):
        _merge(*stores, out=tmp_path / "full")
    with (
        atomic.locked(tmp_path / "out"),
        pytest.raises(InputError, match="written by another run"),
    ):
        _merge(*stores, out=tmp_path / "out")
    for words, message in (((stores[0], stores[0]), "twice"), ((), "No stores")):
        with pytest.raises(UsageError, match=message):
            _merge(*words, out=tmp_path / "out")
    with pytest.raises(UsageError, match="one of the stores"):
        _merge(*stores, out=stores[0])
