"""Downloads from a local https server, whole and with faults."""

import errno
import hashlib
import os
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eosin.downloads import partial_file
from eosin.downloads.download import Patience, Source, download
from eosin.errors import InputError
from tests.downloads.release_server import Release, make_certificate, serving, tunnelling

CONTENT = bytes(hashlib.shake_256(b"weights").digest(300_001))
HASTE = Patience(attempts=3, timeout_s=5.0, pause_s=0.0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def release(certificate: Path) -> Generator[Release]:
    with serving(certificate, CONTENT) as release:
        yield release


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


def source(release: Release, **changes: Any) -> Source:
    given = {"url": f"{release.url}/w.torch", "hosts": [release.host], "patience": HASTE}
    return Source(**{**given, "context": release.context(), **changes})


def check(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise InputError("these are not the bytes")


def fetch(release: Release, path: Path, **changes: Any) -> bool:
    return download(source(release, **changes), path, verify=check, shows_progress=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_once(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "w.torch"
    assert download(source(release), path, verify=check)
    assert path.read_bytes() == CONTENT and names(path.parent) == ["w.torch"]
    assert "w.torch: 0/1 MB, " in capsys.readouterr().err
    assert not download(source(release), path, verify=check)
    assert len(release.requests) == 1 and "Range" not in release.requests[0][1]
    assert capsys.readouterr().err == ""


def test_a_cut_connection_goes_on_where_it_was(release: Release, tmp_path: Path) -> None:
    release.faults = [100_000]
    assert fetch(release, tmp_path / "w.torch")
    assert (tmp_path / "w.torch").read_bytes() == CONTENT
    asked = release.requests[1][1]
    assert asked["Range"] == "bytes=100000-" and asked["If-Range"] == '"v1"'


def test_another_call_goes_on_where_the_first_was(release: Release, tmp_path: Path) -> None:
    path = tmp_path / "w.torch"
    release.faults = [100_000, 503, 503]
    with pytest.raises(InputError, match=r"3 attempts: the server answered 503.*100,000 bytes are"):
        fetch(release, path)
    assert names(tmp_path) == ["w.torch.part", "w.torch.part.version"]
    assert fetch(release, path)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["w.torch"]
    assert release.requests[-1][1]["Range"] == "bytes=100000-"


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, 200_000), max_size=2))
def test_cuts_anywhere_change_nothing(cuts: list[int], release: Release, tmp_path: Path) -> None:
    # Numbers that would be taken for a status.
    release.faults = [cut + 600 for cut in cuts]
    (tmp_path / "w.torch").unlink(missing_ok=True)
    assert fetch(release, tmp_path / "w.torch")
    assert (tmp_path / "w.torch").read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["no-range", "wrong-range", "old-range"])
def test_a_server_that_gives_another_part_is_not_believed(
    fault: str, release: Release, tmp_path: Path
) -> None:
    release.faults = [100_000, fault]
    if fault == "old-range":  # the file changes, and the server goes on with the new one
        (tmp_path / "w.torch.part").write_bytes(b"x" * 50_000)
        (tmp_path / "w.torch.part.version").write_text('"v0"')
        release.faults = ["old-range"]
    assert fetch(release, tmp_path / "w.torch")
    assert (tmp_path / "w.torch").read_bytes() == CONTENT


@pytest.mark.parametrize("version", [None, '"v0"'])
def test_parts_of_another_or_an_unknown_version_are_not_used(
    version: str | None, release: Release, tmp_path: Path
) -> None:
    (tmp_path / "w.torch.part").write_bytes(b"x" * 50_000)
    if version is not None:
        (tmp_path / "w.torch.part.version").write_text(version)
    assert fetch(release, tmp_path / "w.torch")
    assert len(release.requests) == 1 and names(tmp_path) == ["w.torch"]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_version_a_download_begins_anew(
    etag: str | None, release: Release, tmp_path: Path
) -> None:
    release.etag, release.faults = etag, [100_000]
    assert fetch(release, tmp_path / "w.torch")
    assert all("Range" not in headers for _, headers in release.requests)


def test_a_complete_part_is_only_verified(release: Release, tmp_path: Path) -> None:
    (tmp_path / "w.torch.part").write_bytes(CONTENT)
    (tmp_path / "w.torch.part.version").write_text('"v1"')
    assert fetch(release, tmp_path / "w.torch")
    assert len(release.requests) == 1 and names(tmp_path) == ["w.torch"]


def test_a_part_that_is_too_long_is_dropped(release: Release, tmp_path: Path) -> None:
    (tmp_path / "w.torch.part").write_bytes(CONTENT + b"more")
    (tmp_path / "w.torch.part.version").write_text('"v1"')
    assert fetch(release, tmp_path / "w.torch")
    assert (tmp_path / "w.torch").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("faults", "message", "requests"),
    [
        ([404], "answered 404", 1),
        ([403], "answered 403", 1),
        (["no-length"], "does not say how long", 1),
        ([503, 429, 500], "3 attempts: the server answered 500", 3),
        (["too-long", "too-long", "too-long"], "300,001 of 300,008 bytes", 3),
    ],
)
def test_servers_that_fail(
    faults: list[Any], message: str, requests: int, release: Release, tmp_path: Path
) -> None:
    release.faults = list(faults)
    with pytest.raises(InputError, match=message):
        fetch(release, tmp_path / "w.torch")
    assert len(release.requests) == requests
    assert not (tmp_path / "w.torch").exists()
    kept = ["w.torch.part", "w.torch.part.version"]
    assert names(tmp_path) == (kept if "too-long" in faults else [])


def test_a_fault_that_passes_is_forgotten(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release.faults = [503]
    assert download(source(release), tmp_path / "w.torch", verify=check)
    assert "503 Service Unavailable; attempt 2 of 3 follows" in capsys.readouterr().err


def test_a_file_of_another_length_or_content_leaves_nothing(
    release: Release, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="has 300,001 bytes, expected are 5"):
        fetch(release, tmp_path / "w.torch", size_bytes=5)
    release.content = b"another file"
    with pytest.raises(InputError, match="not the bytes"):
        fetch(release, tmp_path / "w.torch")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://{host}/w", "is not https"),
        ("file:///etc/hostname", "is not https"),
        ("ftp://{host}/w", "is not https"),
        ("https://localhost/w", "none of the hosts"),
        ("https://{host}@localhost/w", "none of the hosts"),
        ("https://{host}.localhost/w", "none of the hosts"),
        ("https://127.0.0.1/w", "none of the hosts"),
    ],
)
def test_addresses_and_redirects_that_are_refused(
    url: str, message: str, release: Release, tmp_path: Path
) -> None:
    url = url.format(host=release.host)
    with pytest.raises(InputError, match=message):
        fetch(release, tmp_path / "w.torch", url=url)
    assert release.requests == []
    release.faults = [url]
    with pytest.raises(InputError, match=f"redirects.*{message}|302.*is not allowed"):
        fetch(release, tmp_path / "w.torch")
    assert len(release.requests) == 1 and names(tmp_path) == []


def test_redirects_to_allowed_hosts_are_followed(release: Release, tmp_path: Path) -> None:
    release.faults = [f"{release.url}/elsewhere?signature=1", 100_000, f"{release.url}/again"]
    assert fetch(release, tmp_path / "w.torch")
    paths = [path for path, _ in release.requests]
    assert paths == ["/w.torch", "/elsewhere?signature=1", "/w.torch", "/again"]
    assert release.requests[-1][1]["Range"] == "bytes=100000-"
    release.faults = [f"{release.url}/loop"] * 20
    with pytest.raises(InputError, match="302"):
        fetch(release, tmp_path / "x.torch")


def test_an_unknown_certificate_is_refused(release: Release, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"certificate is not trusted \(self.signed"):
        fetch(release, tmp_path / "w.torch", context=None)
    assert names(tmp_path) == []


def test_a_server_that_is_not_there(release: Release, tmp_path: Path) -> None:
    place = {"url": "https://127.0.0.1:9/w", "hosts": ["127.0.0.1:9"]}
    with pytest.raises(InputError, match=r"in 3 attempts: .*refused.*https_proxy"):
        fetch(release, tmp_path / "w.torch", **place)
    assert names(tmp_path) == []


def test_a_full_disk_keeps_what_has_come(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, write = [100_000], os.write

    def writes(descriptor: int, block: Any) -> int:
        fitting = block[: free[0]]
        if not fitting:
            raise OSError(errno.ENOSPC, "No space left on device")
        free[0] -= len(fitting)
        return write(descriptor, fitting)

    with monkeypatch.context() as patched:
        patched.setattr(partial_file.os, "write", writes)
        with pytest.raises(InputError, match=r"is full\. Make room; what has come is kept"):
            fetch(release, tmp_path / "w.torch")
    assert (tmp_path / "w.torch.part").stat().st_size == 100_000
    assert fetch(release, tmp_path / "w.torch")
    assert release.requests[-1][1]["Range"] == "bytes=100000-"


def test_short_writes_lose_nothing(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(partial_file.os, "write", lambda to, block: write(to, block[:7_000]))
    assert fetch(release, tmp_path / "w.torch")
    assert (tmp_path / "w.torch").read_bytes() == CONTENT and len(release.requests) == 1


def test_a_disk_without_room_is_told_before_the_first_byte(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5))
    with pytest.raises(InputError, match="no room: 300,001 bytes are to come, 5 are free"):
        fetch(release, tmp_path / "w.torch")
    assert names(tmp_path) == []


def test_of_several_at_once_one_downloads(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: fetch(release, tmp_path / "w.torch"), range(4)))
    assert sorted(done) == [False, False, False, True]
    assert len(release.requests) == 1 and names(tmp_path) == ["w.torch"]


def test_one_that_waited_for_a_failure_downloads_itself(
    release: Release, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun, waiting = threading.Event(), threading.Event()

    def refuse(path: Path) -> None:
        begun.set()
        assert waiting.wait(5)
        time.sleep(0.1)  # until the other one asks for the lock
        raise InputError("not this one")

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            lambda: download(
                source(release), tmp_path / "w.torch", verify=refuse, shows_progress=False
            )
        )
        assert begun.wait(5)
        waiting.set()
        assert fetch(release, tmp_path / "w.torch")
        with pytest.raises(InputError, match="not this one"):
            first.result()
    assert (tmp_path / "w.torch").read_bytes() == CONTENT and names(tmp_path) == ["w.torch"]
    assert "Waiting for another process" in capsys.readouterr().err


def test_a_proxy_is_taken_from_the_environment(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tunnelling() as (address, tunnels):
        monkeypatch.setenv("https_proxy", address)
        assert fetch(release, tmp_path / "w.torch")
    assert tunnels == [release.host]
