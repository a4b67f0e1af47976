"""Contact sheets: which tiles are drawn, and that they are on the picture."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from eosin.errors import InputError, UsageError
from eosin.store import contact_sheet, shards
from eosin.store.contact_sheet import Config, draw, show
from eosin.store.tile_store import TileStore
from tests.store.small_stores import make_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", {"a": 30, "b": 3, "c-of-a-very-long-name-" * 4: 9})


def _show(folder: Path, **options: Any) -> tuple[contact_sheet.SheetReport, np.ndarray]:
    out = folder.parent / "sheet.png"
    report = show(Config(**({"store": str(folder), "out": out} | options)))
    return report, cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)


def test_tiles_spread_over_the_slides(folder: Path) -> None:
    tiles = TileStore(folder)
    numbers = draw(tiles, np.arange(42), 9, seed=0)
    assert np.bincount(tiles.slide_numbers(numbers)).tolist() == [3, 3, 3]
    assert len(set(numbers.tolist())) == 9
    # Where a slide has no more, the others fill up.
    assert np.bincount(tiles.slide_numbers(draw(tiles, np.arange(42), 15, 0))).tolist() == [6, 3, 6]
    assert len(draw(tiles, np.arange(42), 100, 0)) == 42
    np.testing.assert_array_equal(draw(tiles, np.arange(42), 9, 0), numbers)
    assert not np.array_equal(draw(tiles, np.arange(42), 9, 1), numbers)


def test_a_score_is_shown_from_its_lowest_to_its_highest(folder: Path) -> None:
    tiles = TileStore(folder)
    blur = tiles.column("blur")
    drawn = blur[draw(tiles, np.arange(42), 8, 0, sort="blur")]
    assert (drawn[0], drawn[-1]) == (blur.min(), blur.max())
    assert (np.diff(drawn) >= 0).all()
    np.testing.assert_array_equal(drawn, np.sort(blur)[np.linspace(0, 41, 8).round().astype(int)])


def test_a_large_store_is_drawn_from_at_random(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact_sheet, "_MOST_DRAWN", 20)
    drawn = draw(TileStore(folder), np.arange(42), 8, 0)
    assert len(set(drawn.tolist())) == 8


def test_the_picture_holds_the_tiles(folder: Path) -> None:
    report, sheet = _show(folder, tiles=6, sort="tissue")
    assert (report.tiles, report.of_tiles, report.unreadable) == (6, 42, ())
    tiles = TileStore(folder)
    first = tiles.read(int(draw(tiles, np.arange(42), 6, 0, "tissue")[0]))
    expected = cv2.resize(first, (160, 160), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(sheet[6:166, 6:166], expected)
    # Two lines of caption below, and nothing beside.
    assert (sheet[166:194, 6:166] < 128).any()
    assert (sheet[:, :6] == 255).all() and (sheet[:6] == 255).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 13, 42])
def test_every_number_of_tiles_has_room(folder: Path, count: int) -> None:
    report, sheet = _show(folder, tiles=count)
    height, width, _ = sheet.shape
    cells = ((height - 6) // 194) * ((width - 6) // 166)
    assert report.tiles == count <= cells < count + 4


def test_an_unreadable_tile_is_crossed_out_and_named(folder: Path) -> None:
    path = shards.shard_path(folder, "b")
    path.write_bytes(path.read_bytes()[:700])
    report, _ = _show(folder, tiles=9)
    assert len(report.unreadable) == 3 and all("b.tar" in each for each in report.unreadable)


def test_only_tiles_that_meet_the_conditions_are_shown(folder: Path) -> None:
    assert _show(folder, where=("blur>25",))[0].of_tiles == 4
    with pytest.raises(InputError, match="no tiles with blur>99"):
        _show(folder, where=("blur>99",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": 0}, "--tiles is 0"),
        ({"tiles": 5000}, "--tiles is 5000"),
        ({"seed": -1}, "--seed is -1"),
        ({"out": Path("sheet.jpg")}, r"sheet.jpg must end in .png"),
    ],
)
def test_options_that_make_no_sense(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _show(folder, **options)
