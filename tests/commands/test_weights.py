"""`eosin weights` as it is typed; downloads come from a local https server."""

import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from eosin.cli import main
from eosin.weights import RELEASED, load_encoder
from tests.downloads.release_server import Release, make_certificate, serving
from tests.weights import made_up_release as made_up
from tests.weights.made_up_release import RESNET, VIT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def release(
    certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[Release]:
    """A server that has a small ViT, whose row names it and whose certificate is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made_up.make_small(VIT, monkeypatch)
    content = made_up.write_small(VIT, tmp_path / "release.torch").read_bytes()
    with serving(certificate, content) as release:
        place = {"release_url": f"{release.url}/download", "hosts": (release.host,)}
        made_up.make_small(VIT, monkeypatch, **place)
        yield release


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[str, str]:
    assert main(["weights", *words]) == code
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return captured.out, captured.err


def facts(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    return json.loads(run(capsys, *words, "--json")[0])


def test_a_file_is_fetched_once_its_licence_is_accepted(
    release: Release, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run(capsys, "get", VIT, code=1)
    assert "non-commercial" in err and release.requests == [] and not folder.exists()
    assert err.splitlines()[-1].startswith("eosin weights: ")
    assert err.splitlines()[-1].endswith(f"type: eosin weights get {VIT} --accept-licence")
    out, err = run(capsys, "get", VIT, "--accept-licence")
    assert "non-commercial" in err and " MB, " in err
    path = RELEASED[VIT].path
    assert f"is downloaded and verified: {path}" in out and "Nobody has published" in out
    assert "Next: eosin evaluate vit_small_patch16.lunit_dino" in out
    assert path.read_bytes() == release.content
    assert sorted(each.name for each in folder.iterdir()) == sorted(
        [".lock", "checksums.json", "licences.json", path.name]
    )
    assert load_encoder(VIT).embed_dim == 64
    out, err = run(capsys, "get", VIT)
    assert "was there already and verified" in out and "(recorded)" in out and err == ""
    # What was accepted and recorded holds for the next download.
    path.unlink()
    assert facts(capsys, "get", VIT) == {
        **{"name": VIT, "path": str(path), "origin": "downloaded", "note": ""},
        **{"checksum": "recorded", "sha256": facts(capsys, "info", VIT)["sha256"]},
    }


def test_a_cut_download_is_resumed_by_the_same_command(
    release: Release, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.faults = [1_000, 404]
    _, err = run(capsys, "get", VIT, "--accept-licence", code=1)
    assert "answered 404" in err.splitlines()[-1]
    assert (folder / f"{RELEASED[VIT].file}.part").stat().st_size == 1_000
    run(capsys, "get", VIT)
    assert RELEASED[VIT].path.read_bytes() == release.content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>log in first</html>", "cannot be read as a checkpoint"),
        (None, "dino_vit_small_patch16_ep200.torch"),
    ],
)
def test_what_is_not_the_file_leaves_nothing(
    content: bytes | None,
    message: str,
    release: Release,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release.content = content or release.content[:-100]
    _, err = run(capsys, "get", VIT, "--accept-licence", code=1)
    assert message in err.splitlines()[-1]
    assert [path.name for path in folder.iterdir()] in (
        [".lock", "licences.json"],
        [*("licences.json", ".lock")],
    )


def test_a_wrong_checksum_names_both_and_leaves_nothing(
    release: Release, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    place = {"release_url": release.url, "hosts": (release.host,)}
    made_up.make_small(RESNET, monkeypatch, **place)
    _, err = run(capsys, "get", RESNET, "--accept-licence", code=1)
    assert RELEASED[RESNET].sha256 in err and "its sha256 is " in err
    assert not [path for path in folder.iterdir() if RELEASED[RESNET].file in path.name]


def test_a_file_that_is_here_is_imported(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "release.torch"
    _, err = run(capsys, "import", str(path), code=2)
    assert "Say which it is: --name" in err
    words = ["import", str(path), "--name", VIT]
    _, err = run(capsys, *words, code=1)
    assert err.rstrip().endswith(f"type: eosin weights import {path} --accept-licence --name {VIT}")
    out, _ = run(capsys, *words, "--accept-licence")
    assert f"is copied and verified: {RELEASED[VIT].path}" in out
    assert facts(capsys, "import", str(path))["origin"] == "present"
    assert release.requests == []


def test_all_there_is_to_know_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, row in RELEASED.items():
        known = facts(capsys, "info", name)
        assert known["sha256_is"] == ("published" if row.sha256 else "unknown")
        assert known["mean"] == [0.70322989, 0.53606487, 0.66096631]
        assert known["path"] == f"{folder}/{row.file}" and known["url"] == row.url
        assert known["state"] == "absent" and known["bytes"] is None
        assert known["load"] == f'eosin.load_encoder("{name}")'
        lines = run(capsys, "info", name)[0].splitlines()
        shown = dict(re.split("  +", line, maxsplit=1) for line in lines)
        assert len(shown) == len(known)
        assert shown["sha256"] == known["sha256"] and shown["licence accepted"] == "not yet"
        assert shown["mean"] == "0.70322989, 0.53606487, 0.66096631"
        assert shown["mean and std from"] == "release notes"
    (folder / row.file).parent.mkdir()
    (folder / row.file).write_bytes(b"12345")
    assert facts(capsys, "info", name)["bytes"] == 5


def test_the_list_has_the_released_and_those_of_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.mkdir()
    (folder / "bt_rn50_ep200.torch").write_bytes(b"x" * 2_500_000)
    out, _ = run(capsys, "list")
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert rows["resnet50.lunit_bt"].endswith("bt_rn50_ep200.torch                 present, 2.5 MB")
    assert rows[VIT].endswith("absent")
    assert "gated" in rows["uni"] and "MahmoodLab/UNI" in rows["uni"]
    listed = facts(capsys, "list")
    assert {row["name"] for row in listed["weights"]} == set(RELEASED)
    assert {row["name"]: row["gated"] for row in listed["others"]}["uni"] is True
    assert facts(capsys, "info", "uni")["repo"] == "MahmoodLab/UNI"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["info", "resnet50.lunit_moco"], "Did you mean resnet50.lunit_mocov2"),
        (["info", "x"], "no row for 'x'; see eosin weights list"),
        (["get", "uni", "--accept-licence"], "--accept-licence is for resnet50.lunit_bt"),
        (["import", "no/such/file"], "no/such/file is not a file"),
        (["import", ".", "--name", "uni"], "--name uni is none of resnet50.lunit_bt"),
        (["polish"], "eosin weights --help"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run(capsys, *words, code=1 if "no/such/file" in words else 2)
    assert len(err.splitlines()) == 1 and message in err


def test_the_commands_below(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run(capsys, "--help")
    for word in ("list", "info", "get", "import", "export", "push"):
        assert f"  weights {word} " in out


def test_lists_need_no_torch() -> None:
    code = (
        "import sys; from eosin.cli import main; "
        "assert main(['weights', 'list']) == 0 and main(['weights', 'info', 'resnet50.lunit_bt']) "
        "== 0; assert not {'torch', 'timm'} & set(sys.modules), 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
