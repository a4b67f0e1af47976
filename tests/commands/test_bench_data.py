"""`eosin bench-data` as it is typed."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from eosin.cli import main


@pytest.mark.slow
def test_the_feeding_of_a_recipe_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["x"] = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    words = ["bench-data", str(tmp_path / "tiles.h5"), "--recipe", "barlow_twins_resnet10t_cpu"]
    short = ["--workers", "1", "--seconds", "0.2"]
    assert main([*words, *short]) == 0
    assert "tiles/s" in capsys.readouterr().out
    assert main([*words, *short, "--json"]) == 0
    (facts,) = capsys.readouterr().out.strip().splitlines()
    assert isinstance(json.loads(facts), dict)
