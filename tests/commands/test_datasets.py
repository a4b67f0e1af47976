"""`eosin datasets` as it is typed."""

import json
from pathlib import Path
from typing import Any

import pytest

from eosin import cli
from eosin.commands import datasets
from tests.datasets import trees


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EOSIN_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(cli.COMMANDS, "datasets", datasets.COMMAND)
    return tmp_path / "data"


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert cli.main(["datasets", *words]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out, captured.err


def facts(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    return json.loads(run(capsys, *words, "--json", code=code)[0])


def test_the_list_tells_what_is_installed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.bach(folder / "bach", 0.02, (8, 6))
    out, _ = run(capsys)
    assert f"in {folder / 'bach'}" in out and "CC BY-NC-ND 4.0" in out
    assert "absent, 12.5 GB to fetch" in out and "absent, 354 MB by hand" in out
    rows = {row["name"]: row for row in facts(capsys, "list")["datasets"]}
    assert rows["bach"]["state"] == "installed" and rows["bach"]["images"] == 400
    assert rows["crc"]["state"] == "absent" and rows["crc"]["path"] is None
    assert rows["mhist"]["access"] == "by hand" and rows["crc"]["access"] == "fetched"
    assert rows["folder"]["state"] == "yours"
    empty = facts(capsys, "--root", str(folder / "elsewhere"))["datasets"]
    assert {row["state"] for row in empty} == {"absent", "yours"}


def test_one_is_described(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "info", "crc")
    assert "11,557 LYM" in out and "md5:6fd702d11df6292bc054397ae038a464" in out
    assert "NCT-CRC-HE-100K/" in out and "0.5" in out
    assert facts(capsys, "info", "mhist")["images"] == {"train": 2175, "test": 977}
    _, err = run(capsys, "info", "bahc", code=2)
    assert "Did you mean bach?" in err


def test_nuclei_are_listed_described_and_verified(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.pannuke(folder / "pannuke", 0.001, 12)
    rows = {row["name"]: row for row in facts(capsys, "list")["datasets"]}
    assert rows["pannuke"]["state"] == "installed" and rows["consep"]["access"] == "by hand"
    out, _ = run(capsys, "info", "pannuke")
    assert "holds: outlined nuclei" in out and "nuclei: 189,744 in all" in out
    out, _ = run(capsys, "get", "monuseg", code=1)
    assert "https://monuseg.grand-challenge.org/Data/" in out and str(folder / "monuseg") in out
    found = facts(capsys, "verify", "pannuke", "--fold-split", "3", code=1)["findings"]
    assert {each["kind"] for each in found} == {"count", "size"}
    assert "2,722 images are published, 3 here" in found[0]["sentence"]


def test_forms_are_explained(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "get", "mhist", code=1)
    assert "1. Fill in the form" in out and str(folder / "mhist") in out
    _, err = run(capsys, "get", "imagenet", code=2)
    assert "There is no 'imagenet'" in err


def test_deviations_are_told_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trees.bach(folder / "bach", 0.02, (2048, 1536))  # 9 images
    out, _ = run(capsys, "verify", "bach", code=1)
    assert "missing (" in out and "more; all of them with --json" in out
    assert f"bach in {folder / 'bach'}: " in out
    found = facts(capsys, "verify", str(folder / "bach"), code=1)
    assert found["dataset"] == "bach"
    assert {each["kind"] for each in found["findings"]} == {"missing", "count"}
    assert len([e for e in found["findings"] if e["kind"] == "missing"]) == 391


def test_a_tree_without_deviations_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        trees.write_image(tmp_path / "own" / "ab"[number % 2] / f"{number}.png", number, (4, 4))
    out, _ = run(capsys, "verify", str(tmp_path / "own"))
    assert out == f"folder in {tmp_path / 'own'}: no deviations.\n"


def test_what_is_not_there_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = run(capsys, "verify", "crc", code=1)
    assert f"crc is not in {folder}" in err and "eosin datasets get crc" in err
    _, err = run(capsys, "verify", str(folder / "absent"), code=1)
    assert "does not exist" in err
    _, err = run(capsys, "check", code=2)
    assert "there is no 'datasets check'" in err


def test_help_names_every_word(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "--help")
    assert all(command.name in out for command in datasets.COMMAND.below)
