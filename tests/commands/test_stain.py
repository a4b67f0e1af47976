"""`eosin stain` as it is typed."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from eosin.cli import main


@pytest.fixture
def tiles(tmp_path: Path) -> str:
    """Tiles of noise, each of a colour of its own."""
    rng = np.random.default_rng(0)
    colours = rng.normal((180, 120, 170), 15, (200, 1, 1, 3))
    noise = rng.normal(0, 25, (200, 24, 24, 3))
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["x"] = np.clip(colours + noise, 0, 255).astype(np.uint8)
    return str(tmp_path / "tiles.h5")


def test_a_stain_is_fitted_and_shown(
    tiles: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stain, sheet = str(tmp_path / "stain.json"), str(tmp_path / "sheet.png")
    assert main(["stain", "fit", tiles, "-o", stain]) == 0
    assert f"Next: eosin stain show {tiles} --stain {stain} -o " in capsys.readouterr().out
    assert main(["stain", "fit", tiles, "-o", stain, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tiles"] == 200
    show = ["stain", "show", tiles, "--stain", stain, "-o", sheet, "--draws", "5"]
    assert main(show) == 0
    assert Path(sheet).is_file() and sheet in capsys.readouterr().out
    assert main([*show, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["targets"]) == 5
