"""Hashes of many files, by threads, and once for each file that stays as it is."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from eosin.progress import Bar
from eosin.provenance import available_cores, sha256_of_file

_SHOWN_FROM = 5_000  # files
_AT_ONCE = 64

_Known = tuple[str, int, int]
_known: dict[_Known, str] = {}
_lock = threading.Lock()


def hash_files(paths: Sequence[Path]) -> list[str]:
    """Hashes the bytes of files, in their order.

    Within a process no file is read twice that keeps its size and its time of change, since every
    command loads the splits of a dataset more than once. Of many files progress is shown.

    Raises:
        OSError: a file cannot be read.
    """
    parts = [paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE)]
    hashes: list[str] = []
    with (
        Bar("hashing", len(paths), "images", is_hidden=len(paths) < _SHOWN_FROM) as bar,
        ThreadPoolExecutor(min(2 * available_cores(), 16)) as pool,
    ):
        for some in pool.map(_hash_some, parts):
            hashes += some
            bar.advance(len(some))
    return hashes


def _hash_some(paths: Sequence[Path]) -> list[str]:
    return [_hash(path) for path in paths]


def _hash(path: Path) -> str:
    facts = path.stat()
    key = (str(path.absolute()), facts.st_size, facts.st_mtime_ns)
    with _lock:
        known = _known.get(key)
    if known is None:
        known = sha256_of_file(path)
        with _lock:
            _known[key] = known
    return known
