"""Compiled loops work wherever the package lies, also where nothing can be written."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import eosin

SCRIPT = """
import numpy as np
from eosin.images import compiling, resampling
assert compiling.__file__.startswith({root!r}), compiling.__file__
image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
print(resampling.crop_and_resize(image, (0, 0, 4, 4), 4, "bilinear").tolist() == image.tolist())
"""


def run_installed(root, home):
    """Resizes with a copy of the package in a new process whose home is `home`."""
    environment = {**os.environ, "PYTHONPATH": str(root), "HOME": str(home)}
    environment.pop("NUMBA_CACHE_DIR", None)
    environment.pop("XDG_CACHE_HOME", None)
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    script = SCRIPT.format(root=str(root))
    ran = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def copied_package(folder: Path) -> Path:
    """The package's images in a folder of their own, without what was compiled before."""
    source = Path(eosin.__file__).parent
    kept = folder / "eosin"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source / "images", kept / "images", ignore=ignored)
    for name in ("__init__.py", "errors.py", "atomic.py", "plugins.py", "provenance.py"):
        if (source / name).is_file():
            shutil.copy(source / name, kept / name)
    return folder


def test_a_package_that_cannot_be_written_to_compiles_for_the_user(tmp_path):
    root = copied_package(tmp_path / "site")
    # A file where the folder should be: permissions would not stop the superuser.
    (root / "eosin" / "images" / "__pycache__").write_text("")
    assert run_installed(root, tmp_path) == "True"
    assert list((tmp_path / ".cache").rglob("*.nbi"))


def test_where_nothing_can_be_written_each_process_compiles(tmp_path):
    root = copied_package(tmp_path / "site")
    (root / "eosin" / "images" / "__pycache__").write_text("")
    (tmp_path / "home").write_text("no folder")
    assert run_installed(root, tmp_path / "home") == "True"
    assert not list(tmp_path.rglob("*.nbi"))
