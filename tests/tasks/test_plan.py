"""What a plan counts, before, between and after the work."""

from pathlib import Path

import pytest

from eosin.errors import InputError
from eosin.results.files import read_results
from eosin.tasks import _plan
from eosin.tasks._evaluate import Config, evaluate
from tests.stripes import write_encoder, write_labelled

NAMES = ["resnet10t.ours", "random/resnet10t", "colour_histogram"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        encoders=("colour_histogram",),
        on=(write_labelled(tmp_path / "stripes"),),
        out=tmp_path / "out",
        task=("linear", "knn"),
        labels=(50.0, 100.0),
        draws=2,
    )


def changed(config: Config, **changes) -> Config:
    values = {name: getattr(config, name) for name in Config.__dataclass_fields__}
    return Config(**{**values, **changes})


def test_it_counts_what_is_left_and_writes_nothing(config: Config, tmp_path: Path) -> None:
    config = changed(config, encoders=(str(write_encoder(tmp_path / "encoder")),))
    works = _plan.plan(config)
    assert [work.encoder for work in works] == NAMES
    for work in works:
        # Two tasks, on two draws of half of the labels and on all of them.
        assert (work.dataset, work.jobs, work.done) == ("stripes", 6, 0)
        # The test images a second time with shifted stains.
        assert work.images == 32 + 2 * 16
        assert work.embed_s > 0 and work.jobs_s is None
    assert not config.out.exists()
    said = _plan.lines(works)
    assert said[0].startswith("resnet10t.ours on stripes: 64 images to embed, about ")
    assert said[0].endswith("; 6 jobs, 0 done, time unknown")
    assert said[-1].startswith("In all 18 jobs, 0 done; left: about ")
    assert said[-1].endswith("besides jobs of a kind that was not done before.")


def test_fine_tuning_needs_no_embeddings(config: Config, tmp_path: Path) -> None:
    encoder = str(write_encoder(tmp_path / "encoder"))
    works = _plan.plan(changed(config, encoders=(encoder,), task=("finetune",), labels=(100.0,)))
    assert [(work.encoder, work.jobs > 0, work.images, work.embed_s) for work in works] == [
        ("resnet10t.ours", True, 0, 0.0),
        ("random/resnet10t", True, 0, 0.0),
        ("colour_histogram", False, 0, 0.0),
    ]


def test_what_is_done_is_not_done_again(config: Config) -> None:
    evaluate(config)
    works = _plan.plan(config)
    assert [(work.done, work.images, work.embed_s, work.jobs_s) for work in works] == [
        (6, 0, 0.0, 0.0)
    ]
    said = _plan.lines(works)
    assert said[0] == "colour_histogram on stripes: nothing to embed; 6 jobs, 6 done"
    assert said[-1] == "In all 6 jobs, 6 done; left: about 0 s."


def test_time_is_that_of_jobs_of_the_same_kind(config: Config) -> None:
    once = changed(config, labels=(50.0,), draws=1, shift_test=False)
    evaluate(once)
    # Of another draw nothing is known but that it takes as long as the first.
    (work,) = _plan.plan(changed(once, draws=3))
    assert (work.jobs, work.done, work.images) == (6, 2, 0)
    rows = read_results(config.out)
    assert len(rows) == 2
    assert work.jobs_s == pytest.approx(2 * sum(row.seconds for row in rows))
    said = _plan.lines([work])[0]
    assert said.startswith("colour_histogram on stripes: nothing to embed; 6 jobs, 2 done")
    # One more part of the labels is another kind of job.
    (other,) = _plan.plan(changed(once, labels=(50.0, 100.0)))
    assert other.jobs_s is None


def test_shards_share_the_jobs(config: Config) -> None:
    shards = [_plan.plan(changed(config, shard=f"{number}/4")) for number in (1, 2, 3, 4)]
    assert sorted(work.jobs for (work,) in shards) == [1, 1, 2, 2]


def test_what_is_not_there_is_said(config: Config, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent does not exist"):
        _plan.plan(changed(config, on=(tmp_path / "absent",)))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "time unknown"),
        (0.2, "about 0 s"),
        (119.0, "about 119 s"),
        (120.0, "about 2 min"),
        (7_140.0, "about 119 min"),
        (9_000.0, "about 2.5 h"),
    ],
)
def test_time_is_written_in_its_unit(seconds: float | None, said: str) -> None:
    work = _plan.Work(
        encoder="e", dataset="d", jobs=2, done=1, images=0, embed_s=0.0, jobs_s=seconds
    )
    assert _plan.lines([work])[0] == f"e on d: nothing to embed; 2 jobs, 1 done, {said}"
