"""Archives come out whole, inside their folder and within limits, or not at all."""

import gzip
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eosin.datasets._base import Archive
from eosin.datasets._unpacking import unpack
from eosin.errors import InputError


def archive(**changes: Any) -> Archive:
    given = {
        "url": "https://localhost/files/a.zip?download=1",
        "hosts": ("localhost",),
        "checksum": "md5:0",
        "gives": "top",
        "most_bytes": 10_000,
    }
    return Archive(**{**given, **changes})


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def unzip(tmp_path: Path, members: dict[str, bytes], **changes: Any) -> Path:
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    file = write_zip(tmp_path / "a.zip", members)
    unpack(archive(**changes), file, root, shows_progress=False)
    return root


def test_a_zip_comes_out_whole(tmp_path: Path) -> None:
    members = {"top/": b"", "top/a/1.tif": b"one", "top/b.txt": b"", "more.txt": b"2"}
    root = unzip(tmp_path, members)
    assert names(root) == ["more.txt", "top", "top/a", "top/a/1.tif", "top/b.txt"]
    assert (root / "top/a/1.tif").read_bytes() == b"one"


def test_what_is_left_out_is_not_unpacked(tmp_path: Path) -> None:
    members = {"top/WSI/big.svs": bytes(50_000), "top/x": b"x", "__MACOSX/top/._x": b"junk"}
    assert names(unzip(tmp_path, members, leaves_out=("top/WSI/",))) == ["top", "top/x"]


@pytest.mark.parametrize("name", ["../out", "top/../../out", "/etc/out", "top\\..\\out", "top/.."])
def test_members_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="leads elsewhere"):
        unzip(tmp_path, {"top/x": b"x", name: b"y"})
    assert names(tmp_path) == ["a.zip", "root"]


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("top/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc")
    (tmp_path / "root").mkdir()
    with pytest.raises(InputError, match="leads elsewhere"):
        unpack(archive(), tmp_path / "a.zip", tmp_path / "root", shows_progress=False)
    assert names(tmp_path / "root") == []


def test_more_than_the_archive_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than 10,000 bytes unpacked"):
        unzip(tmp_path, {"top/x": bytes(10_001)})
    assert names(tmp_path / "root") == []
    packed = tmp_path / "top.h5.gz"
    packed.write_bytes(gzip.compress(bytes(3_000_000)))
    with pytest.raises(InputError, match="more than 2,000,000 bytes unpacked"):
        unpack(
            archive(gives="top.h5", most_bytes=2_000_000),
            packed,
            tmp_path / "root",
            shows_progress=False,
        )
    assert names(tmp_path / "root") == []


def test_a_gz_comes_out_under_its_name(tmp_path: Path) -> None:
    packed = tmp_path / "top.h5.gz"
    packed.write_bytes(gzip.compress(b"content"))
    unpack(archive(gives="top.h5"), packed, tmp_path, shows_progress=False)
    assert (tmp_path / "top.h5").read_bytes() == b"content"


def test_other_files_stay_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "meta.csv").write_text("wsi\n")
    root = tmp_path / "root"
    unpack(archive(gives="meta.csv"), tmp_path / "meta.csv", root, shows_progress=False)
    assert (root / "meta.csv").read_text() == "wsi\n"


def test_an_archive_of_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no top; it is another archive"):
        unzip(tmp_path, {"bottom/x": b"x"})


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "root" / "top").mkdir(parents=True)
    (tmp_path / "root" / "top" / "mine").write_text("mine")
    with pytest.raises(InputError, match="is there already and is not complete; move it away"):
        unzip(tmp_path, {"top/inner/x": b"x"}, gives="top/inner")
    assert names(tmp_path / "root") == ["top", "top/mine"]


def test_what_a_killed_run_left_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "root" / ".unpacking" / "top").mkdir(parents=True)
    (tmp_path / "root" / ".unpacking" / "top" / "half").write_text("")
    assert names(unzip(tmp_path, {"top/x": b"x"})) == ["top", "top/x"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.integers(0, 2_000), how=st.sampled_from(["cut", "flip"]), kind=st.booleans())
def test_damage_is_an_error_or_changes_nothing(
    place: int, how: str, kind: bool, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4
    file = tmp_path / ("a.zip" if kind else "top.gz")
    if kind:
        write_zip(file, {"top": content})
    else:
        file.write_bytes(gzip.compress(content, mtime=0))
    whole = file.read_bytes()
    place %= len(whole)
    flipped = whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]
    file.write_bytes(whole[:place] if how == "cut" else flipped)
    root = tmp_path / "root"
    root.mkdir(exist_ok=True)
    try:
        unpack(archive(), file, root, shows_progress=False)
    except InputError as error:
        assert str(file) in str(error)
    for path in root.iterdir():
        assert path.read_bytes() == content
        path.unlink()
