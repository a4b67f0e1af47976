"""Fixtures that every test folder may use."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

pytest_plugins = ["tests.generated_slides"]

# Small tensors gain nothing from threads, and tests run side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# What is compiled when it is first called, or waits for a core, is late and not wrong.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public samples, or a skip where it is absent."""
    beside_checkout = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EOSIN_TEST_DATA", beside_checkout))
    if not (folder / "SHA256SUMS").is_file():
        pytest.skip(f"no real data at {folder} (set EOSIN_TEST_DATA to its folder)")
    return folder


@pytest.fixture(scope="session")
def reference() -> ModuleType:
    """The float64 references of `reference.py`, which lies beside this file and is no package."""
    path = Path(__file__).with_name("reference.py")
    spec = importlib.util.spec_from_file_location("reference", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
