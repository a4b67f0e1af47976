"""Jobs are done one after the other; those whose labels are too few are left out and named."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from eosin import plugins
from eosin.engine import distributed
from eosin.errors import TooFewImages
from eosin.progress import Bar
from eosin.results.files import write_job
from eosin.results.schema import Result
from eosin.tasks._base import Inputs, Job
from eosin.tasks._grid import describe, finished_rows


@dataclass(frozen=True)
class Done:
    """What came of jobs.

    Attributes:
        rows: of all jobs that could be done, now or before.
        refused: why others could not: an error for each.
    """

    rows: list[Result] = field(default_factory=list[Result])
    refused: list[TooFewImages] = field(default_factory=list[TooFewImages])


def run_jobs(jobs: Sequence[Job], inputs: Inputs, out: Path, *, again: bool) -> Done:
    """Does the jobs with an encoder on a dataset, but for those that are done.

    A job that a protocol cannot do with so few labels stops no other: which ones these are, and
    why, is printed at the end.

    Args:
        jobs: what to do.
        inputs: with what.
        out: folder of the results.
        again: does finished jobs once more.

    Raises:
        InputError: an image cannot be read, or the embeddings are no numbers.
        Interrupted: the process was asked to stop.
    """
    done = Done()
    left: list[Job] = []
    for job in jobs:
        found = None if again else distributed.from_main(finished_rows(job, inputs, out))
        done.rows.extend(found or [])
        left += [job] if found is None else []
    title = f"{inputs.encoder_stamp.name} on {inputs.data_stamp.name}"
    with Bar(title, len(jobs), "jobs", done=len(jobs) - len(left), is_hidden=len(left) < 3) as bar:
        for job in left:
            started = time.perf_counter()
            try:
                rows = _run(job, inputs, out)
            except TooFewImages as error:
                done.refused.append(error)
                bar.advance(1, f"{describe(job)}: left out")
                continue
            done.rows.extend(rows)
            bar.advance(1, f"{describe(job)}: {time.perf_counter() - started:,.1f} s")
    if done.refused and distributed.is_main():
        print(_say(title, len(jobs), done.refused), file=sys.stderr)
    return done


def _run(job: Job, inputs: Inputs, out: Path) -> list[Result]:
    measured = plugins.load("tasks", job.task).run(job, inputs)
    if distributed.is_main():
        write_job(out, measured)
    return [replace(result, folder=out) for result, _ in measured]


def _say(title: str, count: int, refused: Sequence[TooFewImages]) -> str:
    """Names each reason once."""
    reasons = dict.fromkeys(str(error) for error in refused)
    return f"{title}: {len(refused)} of {count} jobs are left out. {' '.join(reasons)}"
