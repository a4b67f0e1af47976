"""Licences: shown once, accepted once, recorded."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from eosin.errors import InputError
from eosin.weights.licences import LUNIT, Licence, accepted_on, require_acceptance
from eosin.weights.local_records import add_record, read_records

OTHER = Licence(key="x", title="X", short="X", version="1", url="https://x", terms=("Be kind.",))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def test_without_acceptance_one_error_names_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"not accepted yet.*type: eosin weights get it"):
        require_acceptance(LUNIT, accept=False, command="eosin weights get it")
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("non-commercial", "names Lunit Inc.", "patent"))
    assert "revocable" in shown and LUNIT.url in shown
    assert not folder.exists() and accepted_on(LUNIT) is None


def test_it_is_shown_and_asked_for_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_acceptance(LUNIT, accept=True, command="")
    shown = capsys.readouterr().err
    assert "non-commercial" in shown and f"recorded in {folder}/licences.json" in shown
    for accept in (False, True):
        require_acceptance(LUNIT, accept=accept, command="")
    assert capsys.readouterr().err == ""
    record = json.loads((folder / "licences.json").read_text())[LUNIT.key]
    assert record["version"] == LUNIT.version and record["url"] == LUNIT.url
    assert record["accepted"] == accepted_on(LUNIT) and record["accepted"].startswith("20")


def test_another_licence_or_version_is_accepted_on_its_own(folder: Path) -> None:
    require_acceptance(LUNIT, accept=True, command="")
    for licence in (OTHER, replace(LUNIT, version="commit abc")):
        with pytest.raises(InputError, match=f"The {licence.title}"):
            require_acceptance(licence, accept=False, command="")
    require_acceptance(OTHER, accept=True, command="")
    assert set(json.loads((folder / "licences.json").read_text())) == {LUNIT.key, "x"}


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', "\xff"])
def test_a_damaged_record_is_named_and_kept(content: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "licences.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"licences\.json .*repair or delete it"):
        require_acceptance(LUNIT, accept=True, command="")
    assert (folder / "licences.json").read_bytes() == content.encode("latin-1")


def test_records_that_are_added_at_once_are_all_kept(folder: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add_record("r.json", str(number), {"n": number}), range(40)))
    assert read_records("r.json") == {str(number): {"n": number} for number in range(40)}
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "r.json"]
