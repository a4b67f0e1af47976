"""Sheets of views: the tiles and views are those of training, and each is where it belongs."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from eosin.errors import InputError, UsageError
from eosin.images import stain
from eosin.images.views import ViewParams, Views, ViewSpec, apply
from eosin.pretrain import show_views as module
from eosin.pretrain.data import batches
from eosin.pretrain.show_views import Config, ViewsReport, show_views
from eosin.pretrain.sources import open_source

LARGE = ViewSpec(size_px=100, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, blur_p=0.5)
SMALL = ViewSpec(size_px=40, scale=(0.05, 0.4), solarize_p=0.5)
VIEWS = Views((LARGE, LARGE, SMALL))
# Gaps are 6 px, a frame 1 px, the head 15 px.
TOP_PX = 6 + 15 + 6 + 1
TILE_LEFT_PX = 6 + 1
VIEW_LEFTS_PX = [6 + 162 + 6 + 1, 6 + 162 + 6 + 102 + 6 + 1, 6 + 162 + 6 + 2 * (102 + 6) + 1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "tiles").mkdir()
    for index in range(6):
        pixels = rng.integers(0, 256, (120, 140, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "tiles" / f"{index}.png")
    return tmp_path / "tiles"


def _shown(folder: Path, views: Views = VIEWS, **options: Any) -> tuple[ViewsReport, np.ndarray]:
    out = folder.parent / "sheet.png"
    given = {"data": str(folder), "recipe": "ours", "out": out} | options
    report = show_views(Config(**given), views)
    return report, cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)


def _at(sheet: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    return sheet[top : top + height, left : left + width]


def test_a_row_holds_the_tile_and_its_views_in_order(folder: Path) -> None:
    report, sheet = _shown(folder, tiles=1, seed=3)
    tile = open_source(folder).read(report.tiles[0])
    np.testing.assert_array_equal(_at(sheet, TOP_PX, TILE_LEFT_PX, 120, 140), tile)
    drawn = VIEWS.sample(np.random.default_rng((3, 0)), 120, 140)
    for left, params in zip(VIEW_LEFTS_PX, drawn, strict=True):
        side = params.size_px
        np.testing.assert_array_equal(
            _at(sheet, TOP_PX, left, side, side), apply(tile, params), err_msg=str(params)
        )
    assert (report.of_tiles, report.view_px, report.scale) == (6, (100, 100, 40), 1.0)
    assert report.unreadable == ()
    # The last column is as wide as its caption needs, since its view is smaller.
    assert sheet.shape[1] == VIEW_LEFTS_PX[-1] - 1 + 90 + 6
    assert (sheet[6:21, 6:40] < 128).any()


def test_the_views_are_those_of_training(folder: Path) -> None:
    source = open_source(folder)
    report, sheet = _shown(folder, tiles=1, seed=5)
    batch = next(
        batches(
            [source], None, VIEWS, batch_size=6, seed=5, start_update=0, total_updates=1, workers=0
        )
    )
    assert batch.tiles[0] == report.tiles[0]
    for left, view in zip(VIEW_LEFTS_PX, batch.views, strict=True):
        made = view[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(_at(sheet, TOP_PX, left, *made.shape[:2]), made)
    assert _shown(folder, tiles=6, seed=5)[0].tiles == tuple(batch.tiles.tolist())


def test_the_seed_decides(folder: Path) -> None:
    report, sheet = _shown(folder, seed=1)
    again, same = _shown(folder, seed=1)
    assert report == again and sorted(report.tiles) == list(range(6))
    np.testing.assert_array_equal(sheet, same)
    assert not np.array_equal(sheet, _shown(folder, seed=2)[1])


def test_there_is_a_row_for_each_tile(folder: Path) -> None:
    plain = Views((ViewSpec(size_px=100),))
    heights = [_shown(folder, plain, tiles=tiles)[1].shape[0] for tiles in (1, 2, 5, 100)]
    # A tile of 120 px, its frame, a line of caption and the gap.
    assert [height - (6 + 15 + 6) for height in heights] == [143 * rows for rows in (1, 2, 5, 6)]


def test_too_wide_a_sheet_is_scaled_equally(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_WIDEST_PX", 400)
    views = Views((ViewSpec(size_px=200), ViewSpec(size_px=200, solarize_p=1.0)))
    report, sheet = _shown(folder, views, tiles=1)
    assert report.scale == pytest.approx((400 - 4 * 8) / 600)
    assert sheet.shape[1] <= 400
    assert str(report).endswith(", at 61% of their size.")
    tile = open_source(folder).read(report.tiles[0])
    for column, params in enumerate(views.sample(np.random.default_rng((0, 0)), 120, 140), start=1):
        expected = cv2.resize(apply(tile, params), (122, 122), interpolation=cv2.INTER_AREA)
        left = 6 + column * (124 + 6) + 1
        np.testing.assert_array_equal(_at(sheet, TOP_PX, left, 122, 122), expected)


def test_an_unreadable_tile_is_crossed_out_and_named(folder: Path) -> None:
    (folder / "4.png").write_bytes(b"no image")
    report, sheet = _shown(folder)
    assert len(report.unreadable) == 1 and "4.png" in report.unreadable[0]
    assert str(report).startswith(report.unreadable[0])
    assert ((sheet == (200, 0, 0)).all(axis=2)).sum() > 160
    assert len(report.tiles) == 6


def test_captions_say_what_was_done() -> None:
    plain = ViewParams(size_px=8, interpolation="bicubic", crop_px=(0, 0, 30, 40))
    assert module._operations(plain, 4800) == ["crop 25%"]
    everything = ViewParams(
        size_px=8,
        interpolation="bicubic",
        crop_px=(0, 0, 60, 80),
        hflip=True,
        vflip=True,
        stain=stain.load("crc-lab").draw(np.random.default_rng(0)),
        jitter=(("hue", 0.1),),
        grayscale=True,
        blur_sigma_px=1.26,
        solarize_threshold=128,
    )
    assert module._operations(everything, 4800) == [
        "crop 100%",
        "flip h+v",
        "stain",
        "jitter",
        "gray",
        "blur 1.3 px",
        "solarise",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiles": 0}, "--tiles is 0"),
        ({"tiles": 257}, "--tiles is 257"),
        ({"seed": -1}, "--seed is -1"),
        ({"out": Path("sheet.jpg")}, r"sheet.jpg must end in .png"),
    ],
)
def test_options_that_make_no_sense(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _shown(folder, **options)


def test_data_that_is_not_there(folder: Path) -> None:
    with pytest.raises(InputError, match="no/such/tiles"):
        _shown(folder, data="no/such/tiles")
