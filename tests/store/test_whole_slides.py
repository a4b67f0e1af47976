"""Stores whose pixels stay in the slides: the same index, other pixels, slides that move."""

import json
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eosin.errors import InputError, UsageError
from eosin.slides.reader import open_slide
from eosin.store import records, shards, whole_slides
from eosin.store import tile_store as store
from eosin.store.merge import Config as MergeConfig
from eosin.store.merge import merge
from eosin.store.tile_store import TileStore
from eosin.tiling.run import Config, tile

WriteSlide = Callable[..., Path]


def _tile(tmp_path: Path, name: str = "store", **options: Any) -> Path:
    defaults: dict[str, Any] = {
        "slides": (tmp_path / "slides",),
        "out": tmp_path / name,
        "mpp": (0.5, 1.0),
        "tile_px": 64,
        "workers": 1,
        "pixels": "slide",
    }
    tile(Config(**(defaults | options)))
    return tmp_path / name


@pytest.fixture
def folder(write_slide: WriteSlide, tmp_path: Path) -> Path:
    """A store of two slides at two resolutions, of which one lies in a folder."""
    write_slide("a.tif", seed=1)
    write_slide("cohort/b.tif", seed=2)
    return _tile(tmp_path)


def test_tiles_are_the_squares_of_the_slides(folder: Path, tmp_path: Path) -> None:
    tiles = TileStore(folder)
    assert tiles.in_slides and tiles.mpps == (0.5, 1.0) and len(tiles) > 40
    assert not (folder / "shards").exists() or not list((folder / "shards").iterdir())
    slides = [open_slide(tmp_path / "slides" / path) for path in ("a.tif", "cohort/b.tif")]
    x, y, mpp = (tiles.column(name) for name in ("x", "y", "target_mpp"))
    for number in range(0, len(tiles), 5):
        slide = slides[int(tiles.slide_numbers(number))]
        expected = slide.read(int(x[number]), int(y[number]), 64, float(mpp[number]))
        np.testing.assert_array_equal(tiles.read(number), expected)
    assert set(mpp.tolist()) == {0.5, 1.0}
    assert tiles.verify() == []


def test_places_and_scores_are_those_of_a_store_with_shards(folder: Path, tmp_path: Path) -> None:
    tiles, stored = TileStore(folder), TileStore(_tile(tmp_path, "stored", pixels="shards"))
    assert len(tiles) == len(stored) and tiles.fingerprint != stored.fingerprint
    for name in ("x", "y", "mpp", "tissue", "blur", "white"):
        np.testing.assert_array_equal(tiles.column(name), stored.column(name))
    differences = [
        np.abs(tiles.read(number).astype(int) - stored.read(number)).mean()
        for number in range(0, len(tiles), 9)
    ]
    assert max(differences) < 3


def test_slides_that_moved_are_found_where_the_variable_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = TileStore(folder).read(3)
    (tmp_path / "slides").rename(tmp_path / "moved")
    tiles = TileStore(folder)
    with pytest.raises(InputError, match=r"a\.tif is not below .*slides; .* EOSIN_SLIDES"):
        tiles.read(3)
    assert len(tiles.verify()) > 2
    monkeypatch.setenv("EOSIN_SLIDES", f"{tmp_path / 'nowhere'}:{tmp_path / 'moved'}")
    np.testing.assert_array_equal(tiles.read(3), expected)
    monkeypatch.delenv("EOSIN_SLIDES")
    store.set_roots(folder, [tmp_path / "moved"])
    np.testing.assert_array_equal(TileStore(folder).read(3), expected)
    roots = json.loads((folder / "store.json").read_text())["roots"]
    assert roots == [str(tmp_path / "moved"), str(tmp_path / "slides")]


def test_a_changed_slide_is_refused(folder: Path, write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide("a.tif", seed=7, size_px=(720, 600))
    tiles = TileStore(folder)
    with pytest.raises(InputError, match=r"a\.tif has [\d,]+ bytes and had [\d,]+ .*changed"):
        tiles.read(0)
    problems = tiles.verify()
    assert any("has changed" in problem for problem in problems)
    assert tiles.read(len(tiles) - 1).shape == (64, 64, 3)


def test_damage_in_a_slide_is_an_error_and_not_a_crash(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "slides" / "a.tif"
    path.write_bytes(path.read_bytes()[:5000] + bytes(path.stat().st_size - 5000))
    with pytest.raises(InputError, match=r"a\.tif"):
        TileStore(folder).read(0)


@pytest.mark.parametrize("path", ["../secret.tif", "/etc/secret.tif", "a/../../secret.tif"])
def test_paths_that_leave_the_folder_are_refused(folder: Path, path: str) -> None:
    slides = TileStore(folder).slides
    records.write_slides(folder, [replace(slides[0], path=path), slides[1]])
    with pytest.raises(InputError, match="leaves its folder"):
        TileStore(folder).read(0)


def test_there_are_no_jpegs_to_read(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"its pixels stay in the slides.*--pixels shards"):
        TileStore(folder).read_bytes(0)


def _send_sums(tiles: TileStore, connection: Any) -> None:
    connection.send([int(tiles.read(number).sum()) for number in range(0, len(tiles), 4)])


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_other_processes_read_the_same(folder: Path, start: str) -> None:
    tiles = TileStore(folder)
    expected = [int(tiles.read(number).sum()) for number in range(0, len(tiles), 4)]
    context = multiprocessing.get_context(start)
    here, there = context.Pipe()
    child = context.Process(target=_send_sums, args=(tiles, there))
    child.start()
    assert here.poll(60)
    assert here.recv() == expected
    child.join()
    here.close()
    there.close()


def test_threads_read_the_same_even_if_slides_are_closed_under_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_slides, "_OPEN_SLIDES", 1)
    tiles = pickle.loads(pickle.dumps(TileStore(folder)))
    numbers = np.random.default_rng(0).integers(0, len(tiles), 120).tolist()
    with ThreadPoolExecutor(8) as threads:
        read = list(threads.map(lambda number: int(tiles.read(number).sum()), numbers))
    assert read == [int(tiles.read(number).sum()) for number in numbers]


def test_slides_are_kept_open_but_not_for_ever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    closed: list[Path] = []

    def noted(path: Path, **options: Any) -> Any:
        slide = open_slide(path, **options)
        close = slide.close
        monkeypatch.setattr(slide, "close", lambda: (closed.append(path), close()))
        opened.append(path)
        return slide

    monkeypatch.setattr(whole_slides, "open_slide", noted)
    monkeypatch.setattr(whole_slides, "_OPEN_SLIDES", 1)
    tiles = TileStore(folder)
    for number in (0, 1, 2, len(tiles) - 1, len(tiles) - 2):
        tiles.read(number)
    assert [path.name for path in opened] == ["a.tif", "b.tif"]
    assert [path.name for path in closed] == ["a.tif"]


def test_rows_of_another_resolution_are_refused(folder: Path) -> None:
    header = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(header | {"mpp": [0.5, 2.0]}))
    with pytest.raises(InputError, match=r"tiles of an mpp that its store\.json lacks"):
        TileStore(folder)


def test_stores_of_slides_are_merged_with_their_roots(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    names = ("one", "two")
    for seed, name in enumerate(names):
        write_slide(f"../{name}/{name}.tif", seed=seed)
        _tile(tmp_path, f"store-{name}", slides=(tmp_path / name,))
    stores = tuple(tmp_path / f"store-{name}" for name in names)
    merge(MergeConfig(stores=stores, out=tmp_path / "out"))
    merged = TileStore(tmp_path / "out")
    expected = [tiles.read(n).sum() for tiles in map(TileStore, stores) for n in range(len(tiles))]
    assert [merged.read(number).sum() for number in range(len(merged))] == expected
    assert merged.verify() == []
    assert shards.layout_path(tmp_path / "out", merged.slide_ids[0]).is_file()
