"""Plug-in folders list themselves and explain unknown names."""

from pathlib import Path

import pytest

from eosin import plugins
from eosin.errors import UsageError


def test_a_folder_lists_its_modules_but_not_its_private_ones() -> None:
    names = plugins.names("methods")
    assert {"barlow_twins", "dino"} <= set(names)
    assert not [name for name in names if name.startswith("_")]


def test_a_name_gives_its_module() -> None:
    assert plugins.load("methods", "dino").__name__ == "eosin.methods.dino"


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(UsageError, match=r"'byol'.*barlow_twins.*dino"):
        plugins.load("methods", "byol")


def test_a_file_from_outside_is_a_plugin(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("ANSWER = 42\n")
    assert plugins.load("methods", f"file:{tmp_path / 'mine.py'}").ANSWER == 42


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no_such"):
        plugins.load("methods", f"file:{tmp_path / 'no_such.py'}")


def test_not_a_plugin_folder() -> None:
    with pytest.raises(ValueError, match="nothing"):
        plugins.names("nothing")
