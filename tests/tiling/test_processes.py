import importlib
import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eosin.errors import InputError
from eosin.tiling import processes
from eosin.tiling.processes import Lost

_SQUARES = """
import os
import signal
from pathlib import Path

from eosin.errors import InputError


def square(number, report):
    if number < 0:
        raise InputError(f"{number} is negative")
    if number == 13 or (number == 7 and not Path(__file__).with_name("seen").exists()):
        Path(__file__).with_name("seen").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    report(number)
    return number**2
"""

Square = Callable[[int, Callable[[int], None]], int]


@pytest.fixture
def square(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Square]:
    """A function that spawned processes can import.

    -1 is an error, 13 kills the process each time, and 7 the first time.
    """
    (tmp_path / "squares.py").write_text(_SQUARES)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("squares").square
    del sys.modules["squares"]


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once_and_says_how_far_it_is(square: Square, workers: int) -> None:
    said: list[int] = []
    assert sorted(processes.run(square, range(5), workers, said.append)) == [0, 1, 4, 9, 16]
    assert sorted(said) == [0, 1, 2, 3, 4]
    assert multiprocessing.active_children() == []


def test_an_error_of_the_work_comes_out(square: Square) -> None:
    with pytest.raises(InputError, match="-1 is negative"):
        list(processes.run(square, [1, 2, -1], 2, print))
    assert multiprocessing.active_children() == []


def test_a_job_whose_worker_was_killed_is_tried_again(square: Square) -> None:
    results = list(processes.run(square, [1, 7, 2, 3], 2, print))
    assert sorted(results) == [1, 4, 9, 49]


def test_a_job_that_kills_its_worker_twice_is_given_up_and_the_rest_is_done(
    square: Square,
) -> None:
    results = list(processes.run(square, [1, 13, 2, 3], 2, print))
    lost = [result for result in results if isinstance(result, Lost)]
    assert lost == [Lost(13, -signal.SIGKILL)]
    assert sorted(result for result in results if not isinstance(result, Lost)) == [1, 4, 9]


def test_workers_end_when_nobody_wants_more_results(square: Square) -> None:
    results = processes.run(square, range(50), 2, print)
    next(results)
    results.close()
    assert multiprocessing.active_children() == []


_SLEEPERS = """
import signal
import sys
import time
from pathlib import Path

from eosin.tiling import processes


def sleep(path, report):
    path.touch()
    time.sleep(600)


if __name__ == "__main__":
    # Whoever starts tests in the background may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        list(processes.run(sleep, [Path(sys.argv[1]), Path(sys.argv[2])], 2, print))
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
