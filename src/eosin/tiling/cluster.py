"""Work shared by a Ray cluster: one task per job, on nodes that see the same files."""

import contextlib
import importlib
import io
import logging
import os
import platform
import re
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2

from eosin.errors import InputError, UsageError
from eosin.provenance import available_cores
from eosin.tiling.processes import Lost

_Job = TypeVar("_Job")
_Note = TypeVar("_Note")
_Result = TypeVar("_Result")

_TRIES = 2
_TASKS_PER_CPU = 2
_SECONDS_BETWEEN_NOTES = 1.0
_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_START = 60.0
_ADDRESS = re.compile(r"(ray://)?(?P<host>[^/\s]+):(?P<port>\d{1,5})")

# Nobody asked to send statistics home, and its forecast of a change is of no use to our users.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def run(
    work: Callable[[_Job, Callable[[_Note], None]], _Result],
    jobs: Sequence[_Job],
    address: str,
    report: Callable[[_Note], None],
    shared: Path | None = None,
) -> Generator[_Result | Lost[_Job], None, None]:
    """Yields the results as they come; if the generator is closed early, ends the tasks at once.

    Each task takes one CPU, and starts in this process's working folder, so that relative paths
    and the messages that quote them are the same everywhere. Twice as many tasks as the cluster
    has CPUs are handed to it at any time, also while it grows. A job whose process or node dies is
    tried once more. `processes.run` is the same on one machine.

    Args:
        work: does one job, and may call its second argument to say how far it is; a function of a
            module that the nodes have too.
        jobs: what is to be done.
        address: `auto` for the cluster that this machine belongs to, `host:port` or
            `ray://host:port` for another one, `local` to start one on this machine.
        report: called in this process with what `work` says meanwhile.
        shared: a folder that every node must see.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        InputError: there is no such cluster, or a node lacks a folder or Eosin.
        Exception: whatever `work` raises.
    """
    if not jobs:
        return
    ray = _import_ray()
    with _connected(ray, address):
        notes = ray.remote(_Notes).options(num_cpus=0, max_restarts=-1).remote()
        inbox = _Inbox(ray, notes, report)
        # On a busy machine it takes long to start, and tasks wait only so long to be heard.
        inbox.empty(_SECONDS_TO_START)
        task = ray.remote(_do).options(num_cpus=1, max_retries=0)
        folders = [Path.cwd(), *([shared] if shared is not None else [])]
        left, tries = deque(range(len(jobs))), [0] * len(jobs)
        running: dict[Any, int] = {}
        try:
            while left or running:
                while left and len(running) < _room(ray):
                    number = left.popleft()
                    running[task.remote(work, jobs[number], folders, notes)] = number
                ready, _ = ray.wait(list(running), timeout=_SECONDS_BETWEEN_NOTES)
                inbox.empty(_SECONDS_TO_ANSWER)
                for reference in ready:
                    number = running.pop(reference)
                    result = _result_of(ray, reference, jobs[number])
                    tries[number] += 1
                    if isinstance(result, Lost) and tries[number] < _TRIES:
                        left.appendleft(number)
                    else:
                        yield result
            inbox.empty(_SECONDS_TO_ANSWER)
        finally:
            _cancel(ray, list(running))


class _Notes:
    """Lives in the cluster and holds what the tasks say until the run asks for it."""

    def __init__(self) -> None:
        self._notes: list[Any] = []

    def add(self, note: Any) -> None:
        self._notes.append(note)

    def take(self) -> list[Any]:
        notes, self._notes = self._notes, []
        return notes


class _Inbox:
    """Fetches what the tasks said; what comes late is passed on the next time, and never lost."""

    def __init__(self, ray: Any, notes: Any, report: Callable[[Any], None]) -> None:
        self._ray = ray
        self._notes = notes
        self._report = report
        self._asked: Any = None

    def empty(self, timeout_s: float) -> None:
        """Passes on what there is, if it comes within the time."""
        if self._asked is None:
            self._asked = self._notes.take.remote()
        ready, _ = self._ray.wait([self._asked], timeout=timeout_s)
        if not ready:
            return
        try:
            taken = self._ray.get(self._asked)
        except self._ray.exceptions.RayError:
            # The node that held them has died; they go on at another.
            taken = []
        self._asked = None
        for note in taken:
            self._report(note)


def _do(work: Callable[..., Any], job: Any, folders: list[Path], notes: Any) -> Any:
    """Does one job, in a process of the cluster that does one at a time."""
    _enter(folders)
    cv2.setNumThreads(1)
    last: list[Any] = []

    def add(note: Any) -> None:
        last[:] = [notes.add.remote(note)]

    result = work(job, add)
    # A result must not overtake what was said before it; but notes are not worth a failure.
    with contextlib.suppress(Exception):
        importlib.import_module("ray").get(last, timeout=_SECONDS_TO_ANSWER)
    return result


def _enter(folders: list[Path]) -> None:
    try:
        os.chdir(folders[0])
        for folder in folders:
            # Without this, a node would make the folder, and its work would be lost there.
            folder.stat()
    except OSError as error:
        raise InputError(
            f"The Ray node {platform.node()} does not see {error.filename} ({error.strerror})."
            " Slides, store and the folder in which the command is given must lie on a file system"
            " that all nodes share, under the same paths."
        ) from error


def _import_ray() -> Any:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            f'--ray needs Ray, which cannot be imported ({error}): pip install "eosin[ray]"'
        ) from error


@contextlib.contextmanager
def _connected(ray: Any, address: str) -> Generator[None]:
    """Joins the cluster, unless the caller has joined one before."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": available_cores(), "include_dashboard": False}
    elif address != "auto":
        _check_answers(address)
    try:
        ray.init(address, **options)
    except (
        ConnectionError,
        RuntimeError,
        ValueError,
        ImportError,
        ray.exceptions.RayError,
    ) as error:
        raise InputError(_why_not_joined(address, error)) from error
    quiet: Any = _WithoutRay(sys.stdout)
    with contextlib.redirect_stdout(quiet):
        try:
            yield
        finally:
            # At its end, Ray writes from this thread what it has held back to be counted.
            with contextlib.redirect_stdout(io.StringIO()):
                ray.shutdown()


def _why_not_joined(address: str, error: Exception) -> str:
    if address == "auto" and isinstance(error, ConnectionError):
        return (
            "--ray auto: this machine belongs to no Ray cluster; start one with `ray start --head`,"
            " give the host:port of one, or use --ray local."
        )
    return (
        f"--ray {address}: this Ray cluster cannot be joined ({_lines(error)[0]}); give the"
        " host:port of a cluster that this machine belongs to, or the ray://host:port of another"
        ' one (pip install "ray[client]").'
    )


class _WithoutRay:
    """Standard output without the pages that a thread of Ray writes there when a process dies."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _check_answers(address: str) -> None:
    """Refuses an address where nobody listens; Ray itself would try for minutes."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UsageError(
            f"--ray is {address!r}; it must be auto, local, host:port or ray://host:port."
        )
    try:
        host, port = parts["host"].strip("[]"), int(parts["port"])
        socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--ray {address}: nothing answers there ({error}); `ray status` on the head node tells"
            " its address."
        ) from error


def _room(ray: Any) -> int:
    return _TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 0)))


def _result_of(ray: Any, reference: Any, job: object) -> Any:
    """What a task returned, or Lost if its process died.

    Raises:
        InputError: the task could not be run.
        Exception: whatever the work raised.
    """
    try:
        return ray.get(reference)
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.LocalRayletDiedError,
        ray.exceptions.OutOfMemoryError,
    ):
        return Lost(job, None)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception) and not isinstance(
            error.cause, ray.exceptions.RayError
        ):
            error.cause.add_note(str(error))
            raise error.cause from None
        raise InputError(_why_not_run(_lines(error)[-1])) from error
    except ray.exceptions.RayError as error:
        raise InputError(_why_not_run(_lines(error)[0])) from error


def _why_not_run(reason: str) -> str:
    return (
        f"The Ray cluster cannot run the work ({reason}); every node needs the same versions of"
        " Python, Ray and Eosin, and whatever else the command names."
    )


def _cancel(ray: Any, running: list[Any]) -> None:
    """Ends tasks and waits until they have ended, so that nobody writes after the run."""
    for reference in running:
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.cancel(reference, force=True)
    if running:
        ray.wait(running, num_returns=len(running), timeout=_SECONDS_TO_ANSWER)


def _lines(error: BaseException) -> list[str]:
    lines = str(error).strip().splitlines()
    return [line.strip().rstrip(".") for line in lines] or [type(error).__name__]
