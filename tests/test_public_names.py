"""The public names, and that importing them stays light."""

import subprocess
import sys

import pytest

import eosin


def test_public_names_are_pinned() -> None:
    assert eosin.__all__ == [
        "InputError",
        "TileStore",
        "embed_images",
        "evaluate",
        "export_encoder",
        "load_encoder",
        "open_slide",
        "pretrain_encoder",
        "tile",
        "write_report",
    ]


@pytest.mark.parametrize("name", eosin.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(eosin, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        eosin.no_such_name  # noqa: B018


def test_importing_eosin_or_its_help_does_not_import_torch() -> None:
    script = (
        "import sys, eosin, eosin.cli; eosin.cli.main(['--help']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 0
