"""Work shared by processes that end with the run, however it ends, and may die without harm."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

import cv2

_Job = TypeVar("_Job")
_Note = TypeVar("_Note")
_Result = TypeVar("_Result")

_TRIES = 2


@dataclass(frozen=True, slots=True)
class Lost(Generic[_Job]):
    """A job whose process was killed each time it was tried."""

    job: _Job
    exit_code: int | None
    """That of the last process; minus the number of the signal, if one ended it."""


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    connection: Any
    number: int | None = None
    """Of the job it is at."""


def run(
    work: Callable[[_Job, Callable[[_Note], None]], _Result],
    jobs: Sequence[_Job],
    workers: int,
    report: Callable[[_Note], None],
) -> Generator[_Result | Lost[_Job], None, None]:
    """Yields the results as they come; if the generator is closed early, ends the workers at once.

    A worker is given one job at a time. If it is killed, another takes its place and the job is
    tried once more, so that one slide that crashes a decoder does not end a run over thousands.

    Args:
        work: does one job, and may call its second argument to say how far it is. With several
            workers it must be a module's function, since they are spawned: a forked one would
            inherit the threads and handles of its parent.
        jobs: what is to be done.
        workers: how many processes; a single one is this process itself.
        report: called in this process with what `work` says meanwhile.

    Raises:
        Exception: whatever `work` raises.
    """
    if min(workers, len(jobs)) <= 1:
        for job in jobs:
            yield work(job, report)
        return
    left, tries = deque(range(len(jobs))), dict.fromkeys(range(len(jobs)), 0)
    idle: list[_Worker] = []
    busy: dict[Any, _Worker] = {}
    try:
        while left or busy:
            while left and len(busy) < workers:
                worker = idle.pop() if idle else _start(work)
                worker.number = left.popleft()
                busy[worker.connection] = worker
                _send(worker.connection, jobs[worker.number])
            for connection in wait(list(busy)):
                worker = busy[connection]
                number = worker.number or 0
                kind, content = _receive(worker.connection)
                if kind == "report":
                    report(content)
                    continue
                del busy[connection]
                if kind == "died":
                    tries[number] += 1
                    if tries[number] < _TRIES:
                        left.appendleft(number)
                    else:
                        worker.process.join()
                        yield Lost(jobs[number], worker.process.exitcode)
                    continue
                idle.append(worker)
                if kind == "error":
                    raise content
                yield content
    finally:
        for worker in [*idle, *busy.values()]:
            worker.process.terminate()
        for worker in [*idle, *busy.values()]:
            worker.process.join()
            worker.connection.close()


def _start(work: Callable[..., Any]) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(work, there), daemon=True)
    process.start()
    # The pipe must break when the worker dies, so this process may not hold its end too.
    there.close()
    return _Worker(process, here)


def _send(connection: Any, job: Any) -> None:
    try:
        connection.send(job)
    except OSError:
        # It has died already, which is noticed when its answer is waited for.
        return


def _receive(connection: Any) -> tuple[str, Any]:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return "died", None


def _serve(work: Callable[..., Any], connection: Any) -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole process group; a worker has nothing to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    parent = multiprocessing.parent_process()
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        # A job may lie in the pipe of a run that was killed while this process still started.
        if parent is not None and not parent.is_alive():
            return
        try:
            answer = ("result", work(job, lambda note: connection.send(("report", note))))
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            answer = ("error", error)
        connection.send(answer)


def _die_with_parent() -> None:
    """Ends this worker when the run is killed, so that it never writes without the run's lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
