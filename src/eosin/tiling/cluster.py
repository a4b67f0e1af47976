"""Work shared by a Ray cluster: one task per job, on nodes that see the same files."""

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2

from eosin.ray_cluster import as_cause, connected, enter_folder, import_ray
from eosin.tiling.processes import Lost

_Job = TypeVar("_Job")
_Note = TypeVar("_Note")
_Result = TypeVar("_Result")

_TRIES = 2
_TASKS_PER_CPU = 2
_SECONDS_BETWEEN_NOTES = 1.0
_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_START = 60.0


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
    ray = import_ray()
    with connected(ray, address):
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
                ended = [(running.pop(reference), reference) for reference in ready]
                results = [_result_of(ray, reference, jobs[number]) for number, reference in ended]
                inbox.empty(_SECONDS_TO_ANSWER)
                for (number, _), result in zip(ended, results, strict=True):
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


def _do(
    work: Callable[..., Any], job: Any, folders: list[Path], notes: Any
) -> tuple[Any, list[Any]]:
    """Does one job, in a process of the cluster; returns its result and its last note, if any."""
    enter_folder(folders, "Slides, store")
    cv2.setNumThreads(1)
    last: list[Any] = []

    def add(note: Any) -> None:
        last[:] = [notes.add.remote(note)]

    # Whoever waits for the last note here is taken to need no CPU, and a job too many is begun.
    return work(job, add), last


def _room(ray: Any) -> int:
    return _TASKS_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 0)))


def _result_of(ray: Any, reference: Any, job: object) -> Any:
    """What a task returned, once its last note has arrived, or Lost if its process died.

    Raises:
        InputError: the task could not be run.
        Exception: whatever the work raised.
    """
    try:
        result, last = ray.get(reference)
        # A result must not overtake what was said before it.
        if last:
            ray.wait(last, timeout=_SECONDS_TO_ANSWER)
        return result
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.LocalRayletDiedError,
        ray.exceptions.OutOfMemoryError,
    ):
        return Lost(job, None)
    except ray.exceptions.RayError as error:
        raise as_cause(ray, error) from None


def _cancel(ray: Any, running: list[Any]) -> None:
    """Ends tasks and waits until they have ended, so that nobody writes after the run."""
    for reference in running:
        with contextlib.suppress(ray.exceptions.RayError, ValueError):
            ray.cancel(reference, force=True)
    if running:
        ray.wait(running, num_returns=len(running), timeout=_SECONDS_TO_ANSWER)
