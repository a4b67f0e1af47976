"""Fitting a stain to tiles: what is measured, written and reported, and what is refused."""

import json

import cv2
import h5py
import numpy as np
import pytest
import tyro
from PIL import Image

from eosin.errors import InputError, UsageError
from eosin.images.stain import load, measure, published
from eosin.pretrain import fit_stain as module
from eosin.pretrain.fit_stain import Config, fit_stain
from eosin.pretrain.sources import open_source


def tiles(count, seed=0):
    """Smooth tiles, each around a colour of its own."""
    rng = np.random.default_rng(seed)
    colours = rng.normal([200, 140, 180], [20, 25, 15], (count, 1, 1, 3))
    structure = rng.normal(0, 20, (count, 16, 16, 3))
    return np.clip(colours + structure, 0, 255).astype(np.uint8)


def write_folder(root, images):
    root.mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(root / f"{number:04}.png"), image[..., ::-1])
    return root


@pytest.fixture
def sources(tmp_path):
    """A folder of 60 tiles and an HDF5 file of 40."""
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["x"] = tiles(40, seed=1)
    return str(write_folder(tmp_path / "tiles", tiles(60))), str(tmp_path / "tiles.h5")


@pytest.mark.parametrize("space", ("lab", "hsv", "hed"))
def test_the_statistics_of_all_sources_are_fitted_and_written(sources, tmp_path, space):
    out = tmp_path / "new" / "stain.json"
    report = fit_stain(Config(store=sources, out=out, space=space))
    measured = [measure(tile, space) for tile in (*tiles(60), *tiles(40, seed=1))]
    means = np.array([each.means for each in measured])
    stds = np.array([each.stds for each in measured])
    stain = load(out)
    assert stain == report.stain and (stain.space, stain.distribution) == (space, "mixture")
    np.testing.assert_allclose(stain.mean_of_means, means.mean(0))
    np.testing.assert_allclose(stain.std_of_stds, stds.std(0))
    assert (report.tiles, report.of_tiles, report.unreadable) == (100, 100, ())
    written = json.loads(out.read_text())
    assert [source["fingerprint"] for source in written["sources"]] == [
        open_source(path).fingerprint for path in sources
    ]
    assert written["tiles"] == {"measured": 100, "unreadable": 0, "seed": 0}
    assert "versions" in written["provenance"]


def test_a_draw_is_repeatable_and_does_not_depend_on_threads(sources, tmp_path, monkeypatch):
    reports = []
    for seed, threads in ((0, 1), (0, 4), (1, 1)):
        monkeypatch.setattr(module, "available_cores", lambda threads=threads: threads)
        options = {"distribution": "normal", "std_hyper": 0.2, "tiles": 50}
        reports.append(
            fit_stain(Config(store=sources, out=tmp_path / "stain.json", seed=seed, **options))
        )
    assert reports[0] == reports[1] != reports[2]
    assert (reports[0].tiles, reports[0].of_tiles) == (50, 100)
    assert (reports[0].stain.distribution, reports[0].stain.std_hyper) == ("normal", 0.2)


def test_people_read_the_figures_beside_the_published_ones(sources, tmp_path):
    text = str(fit_stain(Config(store=sources, out=tmp_path / "stain.json")))
    assert "100 of 100 tiles were measured." in text
    assert "158.0 ± 48.8" in text and "36.9 ± 14.4" in text
    assert "By BIC the mixture has 1 component (100%) of at most 3." in text


def test_a_few_unreadable_tiles_are_skipped_and_many_are_an_error(tmp_path):
    folder = write_folder(tmp_path / "tiles", tiles(100))
    (folder / "0005.png").write_bytes(b"\x89PNG")
    report = fit_stain(Config(store=(str(folder),), out=tmp_path / "stain.json"))
    assert report.tiles == 99
    assert len(report.unreadable) == 1 and "0005.png" in report.unreadable[0]
    assert "0005.png" in str(report) and "1 unreadable" in str(report)
    (folder / "0007.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 of 100 tiles cannot be read.*0005\.png"):
        fit_stain(Config(store=(str(folder),), out=tmp_path / "other.json"))
    assert not (tmp_path / "other.json").exists()


def test_too_few_tiles_and_missing_sources_are_refused(tmp_path):
    folder = write_folder(tmp_path / "tiles", tiles(20))
    with pytest.raises(InputError, match="at least 32 images"):
        fit_stain(Config(store=(str(folder),), out=tmp_path / "stain.json"))
    with pytest.raises(InputError, match="does not exist"):
        fit_stain(Config(store=(str(tmp_path / "none"),), out=tmp_path / "stain.json"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"store": ()}, "Tiles are missing"),
        ({"tiles": 31}, "--tiles is 31"),
        ({"seed": -1}, "--seed is -1"),
        ({"std_hyper": -1.1}, "--std-hyper is -1.1"),
        ({"std_hyper": float("nan")}, "--std-hyper is nan"),
        ({"out": "stain.yaml"}, "must end in .json"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, named):
    options = {"store": ("tiles",), **options, "out": tmp_path / options.get("out", "a.json")}
    with pytest.raises(UsageError, match=named):
        Config(**options)


def test_the_command_line_makes_a_config(tmp_path):
    args = ["a", "b", "-o", "stain.json", "--space", "hed", "--tiles", "500"]
    config = tyro.cli(Config, args=args)
    assert config.store == ("a", "b") and str(config.out) == "stain.json"
    assert (config.space, config.tiles, config.std_hyper) == ("hed", 500, -0.3)


def test_real_colorectal_tiles_have_about_the_published_statistics(shared_data):
    """Nine tiles, one a class, of the data set that the published statistics were measured on."""
    paths = sorted((shared_data / "nct_crc_he" / "NCT-CRC-HE-100K").rglob("*.tif"))
    if not paths:
        pytest.skip("no NCT-CRC-HE tiles")
    found = [measure(np.array(Image.open(path).convert("RGB")), "lab") for path in paths]
    known = published("lab")
    means = np.mean([each.means for each in found], axis=0)
    stds = np.mean([each.stds for each in found], axis=0)
    assert (np.abs(means - known.mean_of_means) < known.std_of_means).all(), means
    assert (np.abs(stds - known.mean_of_stds) < known.std_of_stds).all(), stds
