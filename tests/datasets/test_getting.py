"""Data sets fetched from a local https server, whole and with faults."""

import gzip
import hashlib
import io
import zipfile
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from eosin.datasets import bach, mhist
from eosin.datasets import patch_camelyon as pcam
from eosin.datasets._base import Options
from eosin.datasets._getting import Config, check, get
from eosin.downloads.download import Patience
from eosin.errors import InputError, UsageError
from tests.datasets import trees
from tests.downloads.release_server import Release, make_certificate, serving

HASTE = Patience(attempts=2, timeout_s=5.0, pause_s=0.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def packed_bach(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    root = trees.bach(tmp_path_factory.mktemp("bach"), 0.05, (8, 6))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for path in sorted(root.rglob("*.tif")):
            file.write(path, path.relative_to(root))
        file.writestr("ICIAR2018_BACH_Challenge/WSI/A01.svs", bytes(1000))
    return made.getvalue()


@pytest.fixture
def release(
    certificate: Path, packed_bach: bytes, monkeypatch: pytest.MonkeyPatch
) -> Generator[Release]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(certificate, packed_bach) as release:
        yield release


@pytest.fixture
def published(release: Release, monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], None]:
    """Makes the server's content the first archive of a dataset."""

    def publish(module: ModuleType, first: int = 0) -> None:
        archive = module.INFO.archives[first]
        archive = replace(
            archive,
            url=f"{release.url}/files/{archive.name}?download=1",
            hosts=(release.host,),
            checksum=f"md5:{hashlib.md5(release.content).hexdigest()}",
            size_bytes=len(release.content),
        )
        monkeypatch.setattr(module, "INFO", replace(module.INFO, archives=(archive,)))

    return publish


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fetch(name: str, root: Path) -> str:
    return get(Config(name=name, root=root), patience=HASTE, shows_progress=False).state


def test_a_dataset_is_fetched_once_with_its_licence_shown(
    published: Callable[[ModuleType], None],
    release: Release,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    published(bach)
    got = get(Config(name="bach", root=tmp_path), patience=HASTE, shows_progress=False)
    assert (got.state, got.files) == ("fetched", ("ICIAR2018_BACH_Challenge.zip",))
    told = capsys.readouterr().err
    assert "CC BY-NC-ND 4.0" in told and "To cite: Aresta et al." in told
    assert names(tmp_path / "bach") == [".lock", "ICIAR2018_BACH_Challenge"]
    assert names(tmp_path / "bach" / "ICIAR2018_BACH_Challenge") == ["Photos"]
    assert len(bach.load(got.root, "test", Options())) == 7
    assert fetch("bach", tmp_path) == "present"
    assert len(release.requests) == 1
    assert release.requests[0][0] == "/files/ICIAR2018_BACH_Challenge.zip?download=1"


def test_what_was_cut_off_is_resumed_by_the_same_command(
    published: Callable[[ModuleType], None], release: Release, tmp_path: Path
) -> None:
    published(bach)
    release.faults = [1_000, 503, 503]
    with pytest.raises(InputError, match="1,000 bytes are kept"):
        fetch("bach", tmp_path)
    assert not (tmp_path / "bach" / "ICIAR2018_BACH_Challenge").exists()
    release.faults = []
    assert fetch("bach", tmp_path) == "fetched"
    assert release.requests[-1][1]["Range"] == "bytes=1000-"


def test_an_archive_with_another_checksum_leaves_nothing(
    published: Callable[[ModuleType], None], release: Release, tmp_path: Path
) -> None:
    published(bach)
    release.content = b"x" * len(release.content)
    with pytest.raises(InputError, match=r"is not the published archive .* published is "):
        fetch("bach", tmp_path)
    assert names(tmp_path / "bach" / ".fetched") == []
    assert not (tmp_path / "bach" / "ICIAR2018_BACH_Challenge").exists()


def test_an_archive_that_is_there_is_not_fetched(
    published: Callable[[ModuleType], None], release: Release, tmp_path: Path
) -> None:
    published(bach)
    own = tmp_path / "bach" / "ICIAR2018_BACH_Challenge.zip"
    own.parent.mkdir()
    own.write_bytes(b"another")
    with pytest.raises(InputError, match=f"{own} is not the published archive"):
        fetch("bach", tmp_path)
    own.write_bytes(release.content)
    got = get(Config(name="bach", root=tmp_path), shows_progress=False)
    assert (got.state, got.files) == ("unpacked", ()) and release.requests == []
    assert own.is_file() and len(bach.load(got.root, "test", Options())) == 7


def test_an_archive_that_cannot_be_unpacked_stays_for_the_next_time(
    published: Callable[[ModuleType], None], release: Release, tmp_path: Path
) -> None:
    published(bach)
    (tmp_path / "bach" / "ICIAR2018_BACH_Challenge").mkdir(parents=True)
    with pytest.raises(InputError, match="move it away and repeat"):
        fetch("bach", tmp_path)
    (tmp_path / "bach" / "ICIAR2018_BACH_Challenge").rmdir()
    assert fetch("bach", tmp_path) == "unpacked"
    assert len(release.requests) == 1


def test_a_packed_file_is_unpacked_under_its_name(
    published: Callable[[ModuleType], None], release: Release, tmp_path: Path
) -> None:
    trees.patch_camelyon(tmp_path / "made", 0.0001, 8)
    labels = (tmp_path / "made" / f"{trees.PCAM_STEM}train_y.h5").read_bytes()
    release.content = gzip.compress(labels)
    published(pcam)
    assert pcam.INFO.archives[0].gives == f"{trees.PCAM_STEM}train_y.h5"
    assert fetch("patch_camelyon", tmp_path) == "fetched"
    assert names(tmp_path / "patch_camelyon") == [".lock", f"{trees.PCAM_STEM}train_y.h5"]
    assert (tmp_path / "patch_camelyon" / f"{trees.PCAM_STEM}train_y.h5").read_bytes() == labels


def test_a_form_is_told_and_nothing_is_asked_for(release: Release, tmp_path: Path) -> None:
    got = get(Config(name="mhist", root=tmp_path))
    assert got.state == "by hand" and not list(tmp_path.iterdir())
    assert "#accessing-dataset" in got.steps[0]
    assert str(tmp_path / "mhist") in got.steps[-1]
    trees.mhist(tmp_path / "mhist", 0.002, (8, 6))
    assert fetch("mhist", tmp_path) == "present"
    assert release.requests == [] and mhist.recognises(got.root)


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is for images of your own"):
        fetch("folder", tmp_path)
    with pytest.raises(UsageError, match="There is no 'imagenet'"):
        fetch("imagenet", tmp_path)


def test_checksums_of_both_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"content")
    for kind in ("md5", "sha256"):
        digest = hashlib.new(kind, b"content").hexdigest()
        check(path, f"{kind}:{digest}")
        with pytest.raises(InputError, match=f"its {kind} is {digest}, published is 0"):
            check(path, f"{kind}:0")
