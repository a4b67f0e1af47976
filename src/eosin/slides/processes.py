"""Work shared by processes that end with the run, however it ends."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from eosin.errors import Interrupted

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


def available_cores() -> int:
    """Counts the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    work: Callable[[_Job], _Result], jobs: Sequence[_Job], workers: int
) -> Generator[_Result, None, None]:
    """Yields the results as they come; if the generator is closed early, ends the workers at once.

    A single worker is this process itself. Otherwise `work` must be a module's function, since the
    workers are spawned: a forked one would inherit the threads and handles of its parent.

    Raises:
        Interrupted: a worker was killed.
    """
    if min(workers, len(jobs)) <= 1:
        yield from map(work, jobs)
        return
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_prepare_worker)
    try:
        for future in as_completed([pool.submit(work, job) for job in jobs]):
            yield future.result()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise Interrupted(
                "A worker was killed, most likely for want of memory; the same command resumes,"
                " with fewer --workers if it happens again."
            ) from error
        raise
    pool.shutdown()


def _prepare_worker() -> None:
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole process group; a worker has nothing to say about it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Ends this worker when the run is killed, so that it never writes without the run's lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
