"""`eosin embed` as it is typed."""

import json
from pathlib import Path

import pytest

from eosin.cli import main
from tests.embeddings.drawn_images import HISTOGRAM, draw_images
from tests.store.small_stores import make_store


def test_images_become_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = draw_images(tmp_path / "images", 6), tmp_path / "emb"
    words = ["embed", HISTOGRAM, "--data", str(images), "-o", str(out)]
    assert main([*words, "--plan"]) == 0
    text = capsys.readouterr().out
    assert "6 images give embeddings of 512 values" in text and "Next: the same command" in text
    assert main(words) == 0
    captured = capsys.readouterr()
    assert "6 embeddings of 512 values" in captured.out
    assert "6/6 images" in captured.err
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["embeddings"], facts["done"], facts["embed_dim"]) == (6, 0, 512)
    # The next command that is named really runs.
    code = captured.out.splitlines()[-1].partition('-c "')[2].rstrip('"')
    exec(code, {})
    assert "part-0/0000.png" in capsys.readouterr().out


def test_unreadable_images_are_told_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = draw_images(tmp_path / "images", 6)
    (images / "part-0" / "0000.png").write_bytes(b"junk")
    words = ["embed", HISTOGRAM, "--data", str(images), "-o", str(tmp_path / "emb")]
    assert main(words) == 1
    assert "--max-unreadable 0.05 allows" in capsys.readouterr().err
    assert main([*words, "--max-unreadable", "0.2"]) == 3
    assert "Unreadable: part-0/0000.png: " in capsys.readouterr().out


def test_slides_become_files_for_mil_tools(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles = make_store(tmp_path / "tiles", {"one-00000001": 3})
    words = ["embed", HISTOGRAM, "--data", str(tiles), "-o", str(tmp_path / "emb")]
    assert main([*words, "--layout", "trident", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (folder,) = facts["files"]
    assert (Path(folder) / "one-00000001.h5").is_file()


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["no/such/encoder", "--data", "."], 1, "no/such/encoder"),
        ([HISTOGRAM, "--data", "no/such/tiles"], 1, "no/such/tiles does not exist"),
        ([HISTOGRAM, "--data", ".", "--backend", "tpu"], 2, "--backend tpu"),
        ([HISTOGRAM, "--data", ".", "--batch-size", "0"], 2, "--batch-size 0"),
        ([HISTOGRAM, "--data"], 2, "--data is missing"),
        ([HISTOGRAM, "--data", ".", "--pooling", "max"], 2, "max"),
        ([HISTOGRAM, "--data", "."], 1, "holds no images"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["embed", *words, "-o", "emb"]) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("eosin embed: ") and message in lines[-1]
    assert not (tmp_path / "emb").exists()
