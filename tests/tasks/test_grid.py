import functools
import operator
from pathlib import Path

import pytest

from eosin import plugins
from eosin.errors import UsageError
from eosin.protocols._base import find_protocol
from eosin.results.files import write_job
from eosin.tasks._base import Job
from eosin.tasks._grid import Shard, check_offers, describe, finished_rows, make_jobs
from tests.tasks.blobs import embed, inputs_of


def jobs(tasks, protocols, fractions=(1.0,), draws=5, seeds=(0, 1, 2)) -> list[Job]:
    return list(make_jobs(tasks, protocols, fractions, draws=draws, seeds=seeds))


def test_what_is_not_random_is_not_repeated() -> None:
    assert len(jobs(["linear"], ["strict"])) == 1
    assert len(jobs(["linear"], ["strict"], fractions=(0.1, 1.0))) == 6
    assert len(jobs(["linear"], ["eva-2025-03"])) == 3
    assert len(jobs(["linear"], ["eva-2025-03"], fractions=(0.1, 1.0))) == 18
    assert {job.seed for job in jobs(["knn"], ["strict"], seeds=(7, 8))} == {7}


def test_a_task_that_a_protocol_does_not_settle_is_left_out() -> None:
    found = {(job.task, job.protocol.name) for job in jobs(["linear", "knn"], ["strict", "paper"])}
    assert found == {("linear", "strict"), ("knn", "strict"), ("linear", "paper")}
    with pytest.raises(UsageError, match="--task knn: paper"):
        check_offers(["linear", "knn"], ["paper"])
    with pytest.raises(UsageError, match=r"no task 'guess'; choose from: .*knn, linear"):
        check_offers(["guess"], ["strict"])


def test_parts_of_the_work_are_all_of_it_and_none_twice() -> None:
    shards = [Shard.parse(f"{number}/3") for number in (1, 2, 3)]
    taken = [[place for place in range(10) if shard.takes(place)] for shard in shards]
    assert sorted(functools.reduce(operator.iadd, taken, [])) == list(range(10))


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", ""])
def test_senseless_shards_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--shard"):
        Shard.parse(text)


def test_a_job_is_done_when_all_its_files_are_there(tmp_path: Path) -> None:
    inputs = inputs_of(embed())
    job = Job(task="knn", protocol=find_protocol("strict"))
    assert finished_rows(job, inputs, tmp_path) is None
    rows = plugins.load("tasks", "knn").run(job, inputs)
    write_job(tmp_path, rows)
    found = finished_rows(job, inputs, tmp_path)
    assert found is not None and [row.metrics for row in found] == [row.metrics for row, _ in rows]
    other = Job(task="knn", protocol=find_protocol("strict"), label_fraction=0.5)
    assert finished_rows(other, inputs, tmp_path) is None
    (tmp_path / f"{rows[0][0].row_id}.parquet").unlink()
    assert finished_rows(job, inputs, tmp_path) is None


def test_a_job_has_a_name() -> None:
    job = Job(task="knn", protocol=find_protocol("strict"), label_fraction=0.01, draw=2, seed=5)
    assert describe(job) == "knn, strict, 1 % of the labels (draw 2), seed 5"
