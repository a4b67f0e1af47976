"""The stamp on every artefact: which versions, which machine, when; and content hashes."""

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_REPORTED_PACKAGES = (
    "eosin",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "numba",
    "opencv-python-headless",
    "scikit-learn",
    "openslide-python",
)


def stamp() -> dict[str, Any]:
    """Describes the software and the machine that make an artefact; imports none of it."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "hardware": hardware(),
    }


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def hardware() -> str:
    """Names the processor and the number of cores this process may use."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{model}, {available_cores()} cores"


def available_cores() -> int:
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sha256_of_file(path: Path) -> str:
    """Hashes a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of(content: Any) -> str:
    """Hashes anything that `plain` can turn into JSON; equal content gives an equal hash."""
    text = json.dumps(plain(content), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def plain(content: Any) -> Any:
    """Turns a config (nested dataclasses, tuples, paths) into what JSON can hold."""
    if is_dataclass(content) and not isinstance(content, type):
        return {field.name: plain(getattr(content, field.name)) for field in fields(content)}
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [plain(value) for value in content]
    if isinstance(content, Path):
        return str(content)
    return content
