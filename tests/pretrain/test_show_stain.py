"""The sheet of a stained tile holds what it says."""

import json

import cv2
import h5py
import numpy as np
import pytest
import tyro

from eosin.errors import InputError, UsageError
from eosin.images.stain import fit, measure, restain
from eosin.pretrain.show_stain import Config, show_stain

TILE_PX, STEP_X, STEP_Y, GAP_PX = 160, 166, 194, 6


@pytest.fixture
def store(tmp_path):
    """Three tiles in the size in which they are shown."""
    noise = np.random.default_rng(0).normal(150, 40, (3, TILE_PX, TILE_PX, 3))
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["x"] = np.clip(noise + np.array([40, -20, 20]), 0, 255).astype(np.uint8)
    return tmp_path / "tiles.h5"


def shown(store, **options):
    out = store.parent / "sheets" / "sheet.png"
    report = show_stain(Config(**{"store": str(store), "out": out} | options))
    return report, cv2.cvtColor(cv2.imread(str(out)), cv2.COLOR_BGR2RGB)


def cells(sheet, count):
    columns = (sheet.shape[1] - GAP_PX) // STEP_X
    for number in range(count):
        top, left = GAP_PX + number // columns * STEP_Y, GAP_PX + number % columns * STEP_X
        yield sheet[top : top + TILE_PX, left : left + TILE_PX]


@pytest.mark.parametrize("stain", ("crc-lab", "crc-hsv", "crc-hed"))
def test_the_tile_comes_first_and_then_its_draws(store, stain):
    report, sheet = shown(store, stain=stain, tile=1, draws=7)
    with h5py.File(store) as file:
        tile = file["x"][1]
    assert report.tile == 1 and report.own == measure(tile, stain[-3:]) and len(report.targets) == 7
    expected = [tile, *(restain(tile, target, report.own) for target in report.targets)]
    for cell, image in zip(cells(sheet, 8), expected, strict=True):
        np.testing.assert_array_equal(cell, image)
    assert "tile 1 and then 7 draws" in str(report)


def test_the_captions_are_below(store):
    _, sheet = shown(store, draws=2)
    caption = sheet[GAP_PX + TILE_PX : STEP_Y, GAP_PX : GAP_PX + TILE_PX]
    assert caption.min() < 120 and (caption > 250).mean() > 0.7


def test_the_seed_draws_tile_and_targets(store):
    first, sheet = shown(store, draws=3)
    again, same = shown(store, draws=3)
    assert first == again and np.array_equal(sheet, same)
    assert len({shown(store, draws=1, seed=seed)[0].tile for seed in range(8)}) > 1
    fixed = [shown(store, draws=1, seed=seed, tile=0)[0].targets for seed in range(2)]
    assert fixed[0] != fixed[1]


def test_a_fitted_stain_is_shown_by_its_path_and_in_another_distribution(store):
    path = store.parent / "stain.json"
    rows = np.random.default_rng(0).normal([150, 150, 120, 30, 8, 6], 1, (40, 6))
    path.write_text(json.dumps(fit(rows, "lab", name="mine").to_json()))
    report, _ = shown(store, stain=str(path), draws=4)
    assert report.stain == "mine, mixture"
    assert all(abs(target.means[0] - 150) < 6 for target in report.targets)
    report, _ = shown(store, stain=str(path), draws=4, distribution="uniform")
    assert report.stain == "mine, uniform"


def test_what_cannot_be_shown_is_refused(store, tmp_path):
    with pytest.raises(UsageError, match="tiles 0 to 2"):
        shown(store, tile=3)
    with pytest.raises(UsageError, match="eosin stain fit"):
        shown(store, distribution="mixture")
    with pytest.raises(InputError, match="crc-none is none of"):
        shown(store, stain="crc-none")
    with pytest.raises(InputError, match="does not exist"):
        shown(tmp_path / "nothing")
    for options, named in (
        ({"draws": 0}, "--draws"),
        ({"seed": -1}, "--seed"),
        ({"out": tmp_path / "sheet.jpg"}, "must end in .png"),
    ):
        with pytest.raises(UsageError, match=named):
            shown(store, **options)


def test_the_command_line_makes_a_config():
    config = tyro.cli(Config, args=["tiles", "-o", "sheet.png", "--stain", "crc-hed"])
    assert (config.store, config.stain, config.draws, config.tile) == ("tiles", "crc-hed", 32, None)
