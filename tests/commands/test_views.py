"""`eosin views` as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.cli import main
from eosin.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "tiles").mkdir()
    for index in range(4):
        pixels = rng.integers(0, 256, (100, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "tiles" / f"{index}.png")
    return tmp_path / "tiles"


def test_a_recipe_and_a_method_make_their_views(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "new" / "views.png"
    words = ["views", str(folder), "-o", str(out), "--tiles", "2"]
    assert main([*words, "--recipe", "dino_vit_tiny_cpu"]) == 0
    text = capsys.readouterr().out
    assert f"2 of 4 tiles with 6 views each are shown in {out}." in text
    assert text.strip().endswith(f"Next: eosin pretrain dino_vit_tiny_cpu --data {folder}")
    assert main([*words, "--recipe", "barlow_twins", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["out"] == str(out) and facts["view_px"] == [224, 224]
    with Image.open(out) as image:
        assert image.width == 4 * 6 + 3 * 226


def test_a_recipe_that_is_not_there_is_wrong_usage(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["views", str(folder), "--recipe", "mae", "-o", "x.png"]) == UsageError.exit_code
    error = capsys.readouterr().err.strip()
    assert error.startswith("eosin views: There is no recipe 'mae'") and "\n" not in error


def test_an_unreadable_tile_is_told_by_the_exit_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "2.png").write_bytes(b"no image")
    out = str(folder.parent / "views.png")
    assert main(["views", str(folder), "--recipe", "barlow_twins_resnet10t_cpu", "-o", out]) == 1
    assert f"{folder / '2.png'} cannot be read" in capsys.readouterr().out


def test_options_of_the_method_change_its_views(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "views.png"
    words = ["views", str(folder), "--recipe", "dino", "-o", str(out), "--json"]
    assert main([*words, "--method.local-crops", "3", "--method.views", "pathology"]) == 0
    assert json.loads(capsys.readouterr().out)["view_px"] == [224, 224, 96, 96, 96]
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--method.projector", "3"])
    assert "--method.projector" in capsys.readouterr().err


def test_views_as_published_are_shown_by_their_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "views.png"
    words = ["views", str(folder), "-o", str(out), "--json", "--recipe"]
    assert main([*words, "swav/official"]) == 0
    assert json.loads(capsys.readouterr().out)["view_px"] == [224, 224] + [96] * 6
    assert main([*words, "swav/best"]) == UsageError.exit_code
    assert "There are no views 'swav/best'" in capsys.readouterr().err
    assert main([*words, "swav/official", "--method.views", "vissl"]) == UsageError.exit_code
    assert "--method.views does not go with views as published" in capsys.readouterr().err
