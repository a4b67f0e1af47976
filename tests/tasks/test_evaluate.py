from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from eosin.errors import InputError, TooFewImages, UsageError
from eosin.provenance import plain
from eosin.results.files import read_predictions, read_results, write_job
from eosin.tasks._evaluate import Config, evaluate
from tests.stripes import texture, write_encoder, write_labelled


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return write_labelled(tmp_path / "stripes")


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "run" / "encoder")


def config(exported: Path, labelled: Path, out: Path, **changes) -> Config:
    return Config(**{"encoders": (str(exported),), "on": (labelled,), "out": out, **changes})


def test_an_encoder_and_its_baselines_are_scored_and_written(
    exported: Path, labelled: Path, tmp_path: Path
) -> None:
    results = evaluate(config(exported, labelled, tmp_path / "out"))
    rows = {(row.encoder.name, row.task, row.data.shift): row for row in results}
    names = ("resnet10t.ours", "random/resnet10t", "colour_histogram")
    assert rows.keys() == {
        (name, task, shift)
        for name in names
        for task in ("linear", "knn")
        for shift in ("none", "stain-shift-v1")
    }
    assert rows["colour_histogram", "linear", "none"].metrics["accuracy"].value < 0.8
    assert rows["resnet10t.ours", "linear", "none"].metrics["accuracy"].value > 0.8
    read = {row.row_id: row for row in read_results(tmp_path / "out")}
    assert read.keys() == {row.row_id for row in results}
    for row in read.values():
        assert row.data.name == "stripes"
        assert (row.data.n_train, row.data.n_test) == (32, 16)
        predictions = read_predictions(row)
        groups = set(predictions.group.tolist())
        assert len(groups) == 8 and all("patient" in group for group in groups)
        hits = (predictions.label == predictions.predicted).mean()
        assert row.metrics["accuracy"].value == pytest.approx(hits)


def test_a_second_run_reads_no_image_and_gives_the_same_rows(
    exported: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate(config(exported, labelled, tmp_path / "out", task=("knn",)))

    def refuse(*_: object) -> None:
        raise AssertionError("an image was read again")

    monkeypatch.setattr("eosin.datasets._files._read_one", refuse)
    again = evaluate(config(exported, labelled, tmp_path / "out", task=("knn",)))
    assert [row.row_id for row in again] == [row.row_id for row in first]
    assert [row.metrics for row in again] == [row.metrics for row in first]
    assert len(read_results(tmp_path / "out")) == len(first) == 6


def test_baselines_are_not_doubled(labelled: Path, tmp_path: Path) -> None:
    names = ("random/resnet10t", "colour_histogram")
    run = config(Path("unused"), labelled, tmp_path / "out", encoders=names, task=("knn",))
    results = evaluate(run)
    assert sorted({row.encoder.name for row in results}) == sorted(names)
    assert len(results) == 4


def test_the_shift_and_the_split_are_options(
    exported: Path, labelled: Path, tmp_path: Path
) -> None:
    run = config(exported, labelled, tmp_path / "out", task=("knn",), shift_test=False, seed=1)
    results = evaluate(run)
    assert {row.data.shift for row in results} == {"none"}
    assert {row.seed for row in results} == {1}
    clean = evaluate(config(exported, labelled, tmp_path / "out", task=("knn",)))
    assert {row.data.split_sha256 for row in clean} == {row.data.split_sha256 for row in results}


def test_official_splits_select_on_their_validation_part(exported: Path, tmp_path: Path) -> None:
    root = tmp_path / "pcam"
    root.mkdir()
    for number, split in enumerate(("train", "valid", "test")):
        labels = np.arange(16) % 2
        pixels = [texture(label, 50 * number + i) for i, label in enumerate(labels)]
        for kind, data in (("x", np.stack(pixels)), ("y", labels.reshape(-1, 1, 1, 1))):
            with h5py.File(root / f"camelyonpatch_level_2_split_{split}_{kind}.h5", "w") as file:
                file[kind] = data.astype(np.uint8)
    results = evaluate(config(exported, root, tmp_path / "out", task=("linear",)))
    assert {row.data.name for row in results} == {"patch_camelyon"}
    assert {row.selection["split"] for row in results} == {"validation split"}
    assert {row.data.n_train for row in results} == {16}


def test_a_job_with_too_few_labels_stops_no_other(
    labelled: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    few = config(
        Path("colour_histogram"),
        labelled,
        tmp_path / "out",
        task=("knn",),
        labels=(5.0, 100.0),
        draws=2,
        shift_test=False,
    )
    rows = evaluate(few)
    # Of one group a class nothing can be held out.
    assert [(row.label_fraction, row.draw) for row in rows] == [(1.0, 0)]
    said = capfd.readouterr().err
    assert "colour_histogram on stripes: 2 of 3 jobs are left out. stripes: the training" in said
    assert said.count("too few groups") == 1
    with pytest.raises(TooFewImages, match="too few groups"):
        evaluate(replace(few, labels=(5.0,)))
    # What a part of the work cannot do says nothing of the other parts.
    assert evaluate(replace(few, labels=(5.0,), shard="1/2")) == []


def test_what_does_not_exist_is_said_before_any_work(
    exported: Path, labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no encoder 'resnet51'"):
        evaluate(config(exported, labelled, out, encoders=("resnet51",)))
    with pytest.raises(InputError, match="absent does not exist"):
        evaluate(config(exported, tmp_path / "absent", out))
    with pytest.raises(UsageError, match="among the datasets"):
        evaluate(config(exported, labelled, out, dataset="imagenet"))
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoders": ()}, "at least one encoder"),
        ({"on": ()}, "--on, --task"),
        ({"task": ()}, "--task"),
        ({"task": ("guess",)}, "no task 'guess'; choose from: "),
        ({"task": ("knn",), "protocol": ("paper",)}, "--task knn"),
        ({"labels": (0.0,)}, "--labels 0"),
        ({"labels": (150.0,)}, "--labels 150"),
        ({"seeds": 0}, "at least 1"),
        ({"shard": "3/2"}, "--shard"),
        ({"why": True}, "name two"),
        ({"protocol": ("lenient",)}, "no protocol 'lenient'"),
        ({"on": (Path("a"), Path("b")), "dataset": "folder"}, "for one dataset"),
    ],
)
def test_senseless_options_are_refused(changes: dict, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        config(Path("e"), Path("d"), Path("o"), **changes)
    assert said in str(caught.value)


def test_two_runs_on_one_folder_do_not_mix(exported: Path, labelled: Path, tmp_path: Path) -> None:
    from eosin.atomic import locked

    with (
        locked(tmp_path / "out"),
        pytest.raises(InputError, match="being written by another run"),
    ):
        evaluate(config(exported, labelled, tmp_path / "out"))


def rows_without_time(out: Path) -> list[dict]:
    rows = [row for row in read_results(out)]
    kept = [plain(replace(row, seconds=0.0, provenance={}, folder=None)) for row in rows]
    return sorted(kept, key=lambda row: row["row_id"])


def test_shards_do_the_work_of_one_run(exported: Path, labelled: Path, tmp_path: Path) -> None:
    grid = {"labels": (50.0, 100.0), "draws": 2, "protocol": ("strict", "uni-linear")}
    grid |= {"task": ("knn",), "shift_test": False}
    evaluate(config(exported, labelled, tmp_path / "one", **grid))
    for part in ("2/3", "1/3", "3/3"):
        evaluate(config(exported, labelled, tmp_path / "parts", shard=part, **grid))
    whole = rows_without_time(tmp_path / "one")
    assert whole == rows_without_time(tmp_path / "parts")
    # Three encoders, two protocols, 2 + 1 parts of the labels.
    assert len(whole) == 3 * 2 * 3


def test_a_run_that_is_killed_goes_on_to_the_same_rows(
    exported: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"labels": (50.0, 100.0), "draws": 1, "shift_test": False}
    evaluate(config(exported, labelled, tmp_path / "whole", **grid))
    done: list[object] = []

    def killed(folder: Path, rows: list) -> Path:
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(rows)
        return write_job(folder, rows)

    monkeypatch.setattr("eosin.tasks._running.write_job", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config(exported, labelled, tmp_path / "killed", **grid))
    count = len(list((tmp_path / "killed").glob("job-*.jsonl")))
    assert count == 5
    written: list[object] = []
    monkeypatch.setattr(
        "eosin.tasks._running.write_job",
        lambda folder, rows: written.append(rows) or write_job(folder, rows),
    )
    evaluate(config(exported, labelled, tmp_path / "killed", **grid))
    assert len(written) == 3 * 2 * 2 - 5
    assert rows_without_time(tmp_path / "killed") == rows_without_time(tmp_path / "whole")


def test_a_run_waits_for_no_shard_and_no_shard_for_a_run(
    exported: Path, labelled: Path, tmp_path: Path
) -> None:
    from eosin.atomic import locked

    with (
        locked(tmp_path / "out"),
        pytest.raises(InputError, match="being written by another run"),
    ):
        evaluate(config(exported, labelled, tmp_path / "out", shard="1/2"))


def test_a_folder_for_unfinished_work_stays_no_longer_than_the_work(
    exported: Path, labelled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "unfinished").mkdir(parents=True)
    evaluate(config(exported, labelled, out, task=("knn",), shift_test=False))
    assert not (out / "unfinished").exists()
    kept = out / "unfinished" / "job" / "checkpoint"
    kept.mkdir(parents=True)
    evaluate(config(exported, labelled, out, task=("knn",), shift_test=False))
    assert kept.exists()
