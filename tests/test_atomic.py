"""Files are whole or absent, and a folder has one writer."""

import subprocess
import sys
from pathlib import Path

import pytest

from eosin import atomic
from eosin.errors import InputError


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_folders_are_made_and_json_keeps_its_order(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "b" / "c.json", {"z": 1, "a": "µ"})
    assert (tmp_path / "b" / "c.json").read_text() == '{\n  "z": 1,\n  "a": "µ"\n}\n'


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".writing-1-x.tar").write_text("half")
    (tmp_path / "x.tar").write_text("whole")
    atomic.remove_leftovers(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.tar"]


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    attempt = (
        "from eosin import atomic; from pathlib import Path\n"
        f"with atomic.locked(Path({str(tmp_path)!r})): print('held')"
    )
    with atomic.locked(tmp_path):
        with pytest.raises(InputError, match="another run"), atomic.locked(tmp_path):
            pass
        refused = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True)
        assert "another run" in refused.stderr
    allowed = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True)
    assert allowed.stdout == "held\n"


def test_a_shared_lock_is_held_by_several_and_beside_no_other(tmp_path: Path) -> None:
    with (
        atomic.locked(tmp_path, is_shared=True),
        atomic.locked(tmp_path, is_shared=True),
        pytest.raises(InputError, match="another run"),
        atomic.locked(tmp_path),
    ):
        pass
    with (
        atomic.locked(tmp_path),
        pytest.raises(InputError, match="another run"),
        atomic.locked(tmp_path, is_shared=True),
    ):
        pass
