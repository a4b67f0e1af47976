"""Embedding on a Ray cluster: actors that hold the encoder, blocks of batches as their tasks.

There is an actor for each GPU, or for each share of the CPUs on nodes without. A block whose actor
or node dies goes to another; the results go to the process that started the run, which writes.
"""

import contextlib
import importlib
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eosin.embeddings.extract import Batch, Config, Extractor
from eosin.embeddings.sources import Given
from eosin.encoders import Encoder
from eosin.errors import InputError
from eosin.ray_cluster import as_cause, connected, enter_folder, import_ray

_CPUS_OF_AN_ACTOR = 4
_MOST_BATCHES_OF_A_BLOCK = 16
_BLOCKS_AN_ACTOR = 4
_TRIES = 3
_SECONDS_BETWEEN_LOOKS = 2.0

Block = list[range]


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What every actor holds."""

    encoder: Encoder
    given: Given
    """The images, which each actor opens for itself."""
    config: Config
    expected: int | None = None
    """How many images there are in all; see `Extractor`."""


class Worker:
    """Lives in a process of the cluster, and embeds a block at a time."""

    def __init__(self, job: Job, folders: list[Path], threads: int) -> None:
        enter_folder(folders, "The images")
        importlib.import_module("torch").set_num_threads(threads)
        self._extractor = Extractor(
            job.encoder,
            job.given.open(),
            job.config,
            skips_unreadable=True,
            expected=job.expected,
        )

    def is_ready(self) -> bool:
        """Answers when the encoder is loaded."""
        return True

    def embed(self, block: Block) -> list[Batch]:
        """Embeds the batches of a block."""
        return list(self._extractor.run(block))


def run(job: Job, batches: Sequence[range], address: str) -> Generator[Batch]:
    """Yields batches as they come; if the generator is closed early, ends the actors at once.

    Actors are added while the cluster grows. They start in this process's working folder, so that
    relative paths are the same everywhere.

    Args:
        job: what embeds what.
        batches: numbers of images that go through the encoder together.
        address: `auto`, `local`, `host:port` or `ray://host:port`; see `ray_cluster.connected`.

    Raises:
        UsageError: Ray is not installed, or the address is none.
        InputError: there is no such cluster, a node lacks a folder or Eosin, a block was lost three
            times, or whatever the work raised.
    """
    if not batches:
        return
    ray = import_ray()
    with connected(ray, address):
        crew = _Crew(ray, job, _cut(batches, _count_shares(ray)))
        try:
            while crew.is_busy():
                yield from crew.next_results()
        finally:
            crew.dismiss()


def _cut(batches: Sequence[range], actors: int) -> list[Block]:
    """Cuts batches into blocks, small enough that all actors end at about the same time."""
    size = len(batches) // (_BLOCKS_AN_ACTOR * actors)
    size = max(1, min(_MOST_BATCHES_OF_A_BLOCK, size))
    return [list(batches[start : start + size]) for start in range(0, len(batches), size)]


@dataclass(frozen=True, slots=True)
class _Share:
    """What one actor takes of a node."""

    cpus: int
    gpus: int


def _shares(ray: Any) -> list[_Share]:
    """What actors the living nodes have room for."""
    found: list[_Share] = []
    for node in ray.nodes():
        resources = node["Resources"] if node["Alive"] else {}
        cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        if gpus:
            found += [_Share(max(1, cpus // gpus), 1)] * gpus
        elif cpus:
            size = min(_CPUS_OF_AN_ACTOR, cpus)
            found += [_Share(size, 0)] * (cpus // size)
    # A cluster that has GPUs is waited for there: a CPU would come last by far.
    with_gpu = [share for share in found if share.gpus]
    return with_gpu or found


def _count_shares(ray: Any) -> int:
    return max(1, len(_shares(ray)))


@dataclass(eq=False)
class _Actor:
    handle: Any
    share: _Share
    is_ready: bool = False


@dataclass
class _Crew:
    """The actors, what each is at, and the blocks that are left."""

    ray: Any
    job: Job
    blocks: list[Block]
    actors: list[_Actor] = field(default_factory=list[_Actor])
    running: dict[Any, tuple[_Actor, int | None]] = field(
        default_factory=dict[Any, tuple[_Actor, int | None]]
    )
    failed_starts: int = 0

    def __post_init__(self) -> None:
        self.left = deque(range(len(self.blocks)))
        self.tries = [0] * len(self.blocks)
        # Sent to each node once, however many actors it has.
        self.held = self.ray.put(self.job)

    def is_busy(self) -> bool:
        """Whether a block is left or at work."""
        return bool(self.left) or any(number is not None for _, number in self.running.values())

    def next_results(self) -> list[Batch]:
        """Hands out blocks, waits a little, and gives what came back."""
        self._hire()
        ready, _ = self.ray.wait(list(self.running), timeout=_SECONDS_BETWEEN_LOOKS)
        results: list[Batch] = []
        for reference in ready:
            actor, number = self.running.pop(reference)
            try:
                answer = self.ray.get(reference)
            except _lost(self.ray):
                self._mourn(actor, number)
                continue
            except self.ray.exceptions.RayError as error:
                raise as_cause(self.ray, error) from None
            if number is None:
                actor.is_ready = True
            else:
                results += answer
            self._hand_out(actor)
        return results

    def _hire(self) -> None:
        """Starts the actors that the cluster has room for and that are not there yet."""
        wanted = _shares(self.ray) if self.left else []
        for actor in self.actors:
            if actor.share in wanted:
                wanted.remove(actor.share)
        worker = self.ray.remote(Worker)
        for share in wanted[: max(0, len(self.blocks) - len(self.actors))]:
            options = worker.options(num_cpus=share.cpus, num_gpus=share.gpus, max_restarts=0)
            actor = _Actor(options.remote(self.held, [Path.cwd()], share.cpus), share)
            self.actors.append(actor)
            # It may have to wait for its place; blocks go to those that have theirs.
            self.running[actor.handle.is_ready.remote()] = (actor, None)

    def _hand_out(self, actor: _Actor) -> None:
        """Gives an actor its next block; where none is left, its place becomes free."""
        if not self.left:
            self.ray.kill(actor.handle)
            self.actors.remove(actor)
            return
        number = self.left.popleft()
        self.tries[number] += 1
        self.running[actor.handle.embed.remote(self.blocks[number])] = (actor, number)

    def _mourn(self, actor: _Actor, number: int | None) -> None:
        """Takes back the block of an actor that died.

        Raises:
            InputError: it has died with every actor that had it, or actors die before they work.
        """
        if actor in self.actors:
            self.actors.remove(actor)
        if number is None:
            self.failed_starts += 1
        if (number is None and self.failed_starts >= _TRIES) or (
            number is not None and self.tries[number] >= _TRIES
        ):
            raise InputError(
                f"The processes of the Ray cluster that embed were killed {_TRIES} times, for want "
                "of memory or with their nodes; lower --batch-size, or give the nodes more memory. "
                "The same command goes on."
            )
        if number is not None:
            self.left.appendleft(number)

    def dismiss(self) -> None:
        """Ends all actors."""
        for actor in self.actors:
            with contextlib.suppress(self.ray.exceptions.RayError, ValueError):
                self.ray.kill(actor.handle)
        self.actors.clear()


def _lost(ray: Any) -> tuple[type[Exception], ...]:
    """What tells that an actor or its node is gone, rather than that its work failed."""
    errors = ray.exceptions
    return (
        errors.ActorDiedError,
        errors.ActorUnavailableError,
        errors.WorkerCrashedError,
        errors.NodeDiedError,
        errors.OutOfMemoryError,
    )
