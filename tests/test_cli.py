"""The command line: help, exit codes, one clear line instead of a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eosin.cli import COMMANDS, main
from eosin.synthetic import write_slides

GROUPS = {name: command.below for name, command in COMMANDS.items() if command.below}
BELOW = [command.name for group in GROUPS.values() for command in group]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().out
    assert main(["tiel"]) == 2
    assert "no command 'tiel'" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("eosin 0.")


@pytest.mark.parametrize(
    "name",
    [name for name in (*COMMANDS, *BELOW) if name not in ("pretrain", *GROUPS)],
)
def test_each_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*name.split(), "--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"Example: eosin {name}" in text


def test_pretrain_lists_its_recipes_and_their_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "--help"]) == 0
    text = capsys.readouterr().out
    assert "barlow_twins_resnet50" in text and "Example: eosin pretrain" in text
    with pytest.raises(SystemExit):
        main(["pretrain", "dino", "--help"])
    assert "--method.teacher-temp" in capsys.readouterr().out


def test_an_unknown_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["tile", "--no-such-option"])
    assert stopped.value.code == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pretrain", "mae", "--data", "x"], "no recipe 'mae'"),
        (["pretrain", "dino", "--data", "no/such/tiles"], "no/such/tiles"),
        (["pretrain", "dino"], "--data is missing"),
        (["tile", "--slides", "no/such/slide.svs", "--out", "out"], "no/such/slide.svs"),
        (["evaluate", "no/such/encoder", "--on", ".", "--out", "out"], "no/such/encoder"),
        (["embed", "no/such/encoder", "--data", ".", "-o", "out"], "no/such/encoder"),
        (["report", "no/such/results", "--out", "out"], "no/such/results"),
        (["weights", "polish"], "eosin weights --help"),
        (["store", "polish"], "eosin store --help"),
        (["store", "verify", "no/such/store"], "no/such/store"),
        (["store", "verify"], "No stores to verify"),
        (["store", "show", "no/such/store", "-o", "sheet.png"], "no/such/store"),
        (["store", "merge", "no/such/store", "--out", "out"], "no/such/store"),
        (["store", "export", "nosuch://bucket", "--out", "out"], "nosuch://bucket"),
        (["pretrain", "dino", "--data", "nosuch://bucket/tiles"], "nosuch://bucket/tiles"),
        (["demo", "--slides", "x"], "--labelled"),
        (["stain", "polish"], "eosin stain --help"),
        (["stain", "fit", "-o", "stain.json"], "Tiles are missing"),
        (["stain", "fit", "no/such/store", "-o", "stain.json"], "no/such/store"),
        (["stain", "show", "no/such/store", "-o", "sheet.png"], "no/such/store"),
        (["views", "no/such/store", "--recipe", "mae", "-o", "sheet.png"], "no recipe 'mae'"),
        (["views", "no/such/store", "--recipe", "dino", "-o", "sheet.png"], "no/such/store"),
        (["bench-data", "no/such/store", "--recipe", "mae"], "no recipe 'mae'"),
        (["bench-data", "no/such/store", "--recipe", "dino"], "no/such/store"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith(f"eosin {words[0]}: ") and message in lines[-1]
    assert "Traceback" not in "\n".join(lines)


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    words = ["pretrain", "dino", "--data", str(tmp_path), "--out", str(tmp_path / "file" / "run")]
    Image.new("RGB", (40, 40), (1, 2, 3)).save(tmp_path / "b.png")
    assert main([*words, "--batch-size", "2"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("eosin pretrain: ") and "file/run" in error


def _write_slides(folder: Path, count: int, seed: int) -> str:
    write_slides(folder, count=count, seed=seed, size_px=1024)
    return str(folder)


@pytest.mark.parametrize("name", GROUPS)
def test_a_word_chooses_among_the_commands_below(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # What eosin datasets is asked for first is what there is.
    assert main([name]) == (0 if name == "datasets" else 2)
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command.name} " in text for command in GROUPS[name])
    assert f"Example: eosin {name} " in text


def test_stores_are_merged_verified_shown_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("one", "two", "both", "exported", "folders", "sheet.png")
    one, two, both, exported, folders, sheet = (str(tmp_path / name) for name in names)
    for seed, out in enumerate((one, two)):
        slides = _write_slides(tmp_path / f"slides-{seed}" / str(seed), 2, seed)
        small = ["--tile-px", "128", "--workers", "1"]
        assert main(["tile", "--slides", str(Path(slides).parent), "--out", out, *small]) == 0
    assert main(["store", "merge", one, two, "--out", both]) == 0
    assert f"Next: eosin store verify {both}" in capsys.readouterr().out
    assert main(["store", "verify", one, both, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["stores"]
    assert [(each["slides"], each["problems"]) for each in found] == [(2, []), (4, [])]
    assert main(["store", "show", both, "-o", sheet, "--tiles", "12", "--sort", "blur"]) == 0
    assert f"12 of {found[1]['tiles']}" in capsys.readouterr().out
    with Image.open(sheet) as image:
        assert image.width > 500
    assert main(["store", "export", both, "--out", exported, "--where", "tissue>0.6"]) == 0
    assert main(["store", "export", exported, "--out", folders, "--format", "folder"]) == 0
    assert "Next: eosin pretrain" in capsys.readouterr().out
    (tmp_path / "exported" / "000000.tar").write_bytes(b"")
    assert main(["store", "verify", exported]) == 1
    assert "000000.tar" in capsys.readouterr().out


def test_weights_are_listed_for_people_and_machines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path))
    assert main(["weights", "list"]) == 0
    assert "vit_small_patch16.lunit_dino" in capsys.readouterr().out
    assert main(["weights", "list", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["weights"]) == 5


def test_the_commands_work_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pre-train, evaluate and report on a handful of drawn images, as a user would type it."""
    rng = np.random.default_rng(0)
    for label in ("dots", "stripes"):
        for index in range(12):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            pixels[:: 2 if label == "stripes" else 40] = 0
            folder = tmp_path / "images" / label
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    images, run, results = (str(tmp_path / name) for name in ("images", "run", "results"))
    train = ["pretrain", "barlow_twins_resnet10t_cpu", "--data", images, "--out", run]
    small = ["--encoder", "resnet10t", "--batch-size", "8", "--epochs", "1", "--workers", "0"]
    assert main([*train, *small, "--method.view-px", "32", "--method.projector", "16", "16"]) == 0
    assert f"{run}/encoder" in capsys.readouterr().out
    evaluate = ["evaluate", f"{run}/encoder", "--on", images, "--out", results, "--json"]
    assert main(evaluate) == 0
    # One encoder, its random twin and the histogram, by two tasks, on plain and shifted images.
    assert json.loads(capsys.readouterr().out)["rows"] == 12
    assert main(["report", results, "--out", str(tmp_path / "report")]) == 0
    page = (tmp_path / "report" / "index.html").read_text()
    for name in ("run", "random/resnet10t", "colour_histogram"):
        assert name in page


def test_python_m_eosin_is_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "eosin", "--version"], capture_output=True)
    assert done.returncode == 0 and done.stdout.startswith(b"eosin ")
