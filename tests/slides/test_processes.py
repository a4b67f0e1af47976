import importlib
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eosin.errors import InputError, Interrupted
from eosin.slides import processes

_SQUARES = """
import os
import signal

from eosin.errors import InputError


def square(number):
    if number < 0:
        raise InputError(f"{number} is negative")
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2
"""


@pytest.fixture
def square(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[int], int]]:
    """A function that spawned processes can import; -1 is an error, 13 kills the process."""
    (tmp_path / "squares.py").write_text(_SQUARES)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("squares").square
    del sys.modules["squares"]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once(square: Callable[[int], int], workers: int) -> None:
    assert sorted(processes.run(square, range(5), workers)) == [0, 1, 4, 9, 16]
    assert multiprocessing.active_children() == []


def test_an_error_of_the_work_comes_out(square: Callable[[int], int]) -> None:
    with pytest.raises(InputError, match="-1 is negative"):
        list(processes.run(square, [1, 2, -1], 2))


def test_a_killed_worker_is_an_interruption(square: Callable[[int], int]) -> None:
    with pytest.raises(Interrupted, match="worker was killed"):
        list(processes.run(square, [1, 13, 2], 2))


def test_the_cores_of_this_process_are_counted() -> None:
    assert processes.available_cores() >= 1


_SLEEPERS = """
import sys
import time
from pathlib import Path

from eosin.slides import processes


def sleep(path):
    path.touch()
    time.sleep(600)


if __name__ == "__main__":
    try:
        list(processes.run(sleep, [Path(sys.argv[1]), Path(sys.argv[2])], 2))
    except KeyboardInterrupt:
        print("stopped")
"""


def test_ctrl_c_ends_busy_workers_at_once(tmp_path: Path) -> None:
    (tmp_path / "sleepers.py").write_text(_SLEEPERS)
    begun = [tmp_path / "one", tmp_path / "two"]
    command = [sys.executable, str(tmp_path / "sleepers.py"), *map(str, begun)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as run:
        deadline = time.monotonic() + 60
        while not all(path.exists() for path in begun) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(signal.SIGINT)
        # Both pipes end only when the workers, who hold them too, have ended.
        output, errors = run.communicate(timeout=60)
    assert (run.returncode, output, errors) == (0, "stopped\n", "")
