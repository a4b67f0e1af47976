from pathlib import Path

import pytest

from eosin import provenance
from eosin.datasets import _contents
from eosin.datasets._contents import hash_files


def test_hashes_come_in_order_and_each_file_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / str(number) for number in range(200)]
    for path in paths:
        path.write_text(path.name)
    read: list[Path] = []

    def counting(path: Path) -> str:
        read.append(path)
        return provenance.sha256_of_file(path)

    monkeypatch.setattr(_contents, "sha256_of_file", counting)
    hashes = hash_files(paths)
    assert hashes == [provenance.sha256_of_file(path) for path in paths]
    assert hash_files(paths[::-1]) == hashes[::-1] and len(read) == 200
    paths[7].write_text("8")  # as long as before
    assert hash_files(paths)[7] == hashes[8] and len(read) == 201
    assert hash_files([]) == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        hash_files([tmp_path / "absent"])


def test_many_files_show_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("a")
    hash_files([tmp_path / "a"])
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_contents, "_SHOWN_FROM", 1)
    hash_files([tmp_path / "a"])
    assert "hashing: 1/1 images" in capsys.readouterr().err
