"""The jobs of an evaluation: which there are, which are done, and which are this process's."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from eosin import plugins
from eosin.errors import InputError, UsageError
from eosin.protocols._base import Protocol, find_protocol
from eosin.results.files import job_path, read_results
from eosin.results.schema import Result
from eosin.tasks._base import Inputs, Job, blank_row

_SHARD = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of the work a process does: the `number`-th of `count`, from 1."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Reads `2/8`.

        Raises:
            UsageError: it is no such thing.
        """
        match = _SHARD.fullmatch(text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"--shard is {text!r}; it must be such as 2/8, the second of eight.")
        return cls(number=int(match[1]), count=int(match[2]))

    def takes(self, number: int) -> bool:
        """Whether the piece of work of this number, from 0, is in this part."""
        return number % self.count == self.number - 1


def make_jobs(
    tasks: Sequence[str],
    protocols: Sequence[str],
    fractions: Sequence[float],
    *,
    draws: int,
    seeds: Sequence[int],
) -> Iterator[Job]:
    """Yields the jobs on one dataset with one encoder.

    What is not random is not repeated: all of the labels are one draw, and a task without
    randomness is done with the first seed alone. A task that a protocol does not settle is left
    out.

    Raises:
        UsageError: there is no such task or protocol, or no protocol settles a task.
    """
    for protocol in [find_protocol(name) for name in protocols]:
        for task in tasks:
            module = plugins.load("tasks", task)
            if not module.offers(protocol):
                continue
            for fraction in fractions:
                for draw in range(draws if fraction < 1 else 1):
                    for seed in seeds if module.is_random(protocol) else seeds[:1]:
                        yield Job(
                            task=task,
                            protocol=protocol,
                            label_fraction=fraction,
                            draw=draw,
                            seed=seed,
                        )


def check_offers(tasks: Sequence[str], protocols: Sequence[str]) -> None:
    """Refuses a task that none of the protocols settles.

    Raises:
        UsageError: it names the protocols that do.
    """
    for task in tasks:
        if task not in plugins.names("tasks"):
            choices = ", ".join(plugins.names("tasks"))
            raise UsageError(f"There is no task {task!r}; choose from: {choices}.")
        module = plugins.load("tasks", task)
        given: list[Protocol] = [find_protocol(name) for name in protocols]
        if not any(module.offers(protocol) for protocol in given):
            raise UsageError(
                f"--task {task}: {' and '.join(protocols)} say nothing of it; see eosin evaluate "
                "--list for the protocols that do."
            )


def row_ids(job: Job, inputs: Inputs) -> list[str]:
    """Gives the ids of the rows that a job will write, before it is done."""
    module = plugins.load("tasks", job.task)
    return [
        blank_row(name, job, inputs.encoder_stamp, replace(inputs.data_stamp, shift=shift)).row_id
        for name in module.row_names(job, inputs.splits)
        for shift in inputs.shifts
    ]


def finished_rows(job: Job, inputs: Inputs, out: Path) -> list[Result] | None:
    """Reads the rows of a job that is done, or gives `None`."""
    ids = row_ids(job, inputs)
    path = job_path(out, ids)
    if not path.is_file():
        return None
    try:
        rows = read_results(path)
    except InputError:
        # Of another version; it is measured again.
        return None
    has_all = {row.row_id for row in rows} == set(ids)
    is_whole = all((out / row.predictions).is_file() for row in rows)
    return rows if has_all and is_whole else None


def describe(job: Job) -> str:
    """Names a job on a line: `linear, strict, 10 % of the labels (draw 2), seed 0`."""
    words = f"{job.task}, {job.protocol.name}"
    if job.label_fraction < 1:
        words += f", {100 * job.label_fraction:g} % of the labels (draw {job.draw})"
    return f"{words}, seed {job.seed}"
