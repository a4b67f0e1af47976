import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from eosin.commands import results as command
from eosin.errors import InputError
from eosin.results.files import write_job
from eosin.results.statistics import measure
from eosin.results.verify import Config, verify


@pytest.fixture
def folder(tmp_path, make_predictions, make_result):
    """Two jobs of one row each, the second in a folder below, beside files that are no results."""
    for place, quality in (("", 1.0), ("below", 2.0)):
        predictions = make_predictions(quality)
        row = make_result(predictions, name=f"at {place}", metrics=measure(predictions))
        write_job(tmp_path / "results" / place, [(row, predictions)])
    (tmp_path / "results" / "embeddings").mkdir()
    (tmp_path / "results" / "embeddings" / f"{'a' * 16}.parquet").write_bytes(b"not of a row")
    (tmp_path / "results" / "log.jsonl").write_text("{}\n")
    return tmp_path / "results"


def deviations(folder):
    return verify(Config(folder=folder)).deviations


def first(folder) -> tuple[Path, dict]:
    (path,) = folder.glob("job-*.jsonl")
    return path, json.loads(path.read_text())


def test_results_as_they_were_written_are_right(folder):
    verified = verify(Config(folder=folder))
    assert (verified.rows, verified.deviations) == (2, ())


@pytest.mark.parametrize("part", ["value", "low", "high"])
def test_a_figure_that_was_changed_is_named(folder, part):
    path, content = first(folder)
    content["metrics"]["macro_f1"][part] += 1e-6
    path.write_text(json.dumps(content) + "\n")
    (said,) = deviations(folder)
    assert f"{path}, row {content['row_id']}: macro_f1 {part} is" in said


def test_metrics_that_are_not_there_or_not_defined_are_named(folder):
    path, content = first(folder)
    content["metrics"]["made_up"] = content["metrics"].pop("auroc")
    path.write_text(json.dumps(content) + "\n")
    said = deviations(folder)
    assert len(said) == 2
    assert "the predictions gives auroc and the row does not" in said[0]
    assert "the row gives made_up" in said[1]


def test_a_changed_prediction_is_found(folder):
    _, content = first(folder)
    file = folder / content["predictions"]
    table = pq.read_table(file)
    predicted = table["predicted"].to_numpy().copy()
    predicted[0] = (predicted[0] + 1) % 3
    index = table.schema.get_field_index("predicted")
    column = np.asarray(predicted, dtype=np.int32)
    pq.write_table(table.set_column(index, "predicted", [column]), file)
    assert any("accuracy value" in each for each in deviations(folder))


def test_an_edited_row_is_named(folder):
    path, content = first(folder)
    content["seed"] = 7
    path.write_text(json.dumps(content) + "\n")
    said = deviations(folder)
    assert f"{path}, line 1: row_id" in said[0] and "was edited" in said[0]
    assert "belongs to no row" in said[1]


def test_missing_and_orphaned_files_are_named(folder):
    _, content = first(folder)
    file = folder / content["predictions"]
    file.rename(folder / f"{'0' * 16}.parquet")
    said = deviations(folder)
    assert any(f"{file.name} is missing" in each for each in said)
    assert any(f"{'0' * 16}.parquet belongs to no row" in each for each in said)
    assert len(said) == 2


def test_a_row_that_was_taken_away_is_found(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    metrics = measure(predictions)
    rows = [
        (make_result(predictions, name=name, metrics=metrics), predictions) for name in ("a", "b")
    ]
    path = write_job(tmp_path, rows)
    path.write_text(path.read_text().splitlines()[0] + "\n")
    said = deviations(tmp_path)
    assert any("does not hold the rows that its name stands for" in each for each in said)
    assert any("belongs to no row" in each for each in said)


def test_of_a_repeated_measurement_the_newest_is_verified(tmp_path, make_predictions, make_result):
    old, new = make_predictions(1.0), make_predictions(2.0)
    other = make_result(old, name="other", metrics=measure(old))
    first_row = make_result(old, metrics=measure(old), created="2026-01-01")
    write_job(tmp_path, [(first_row, old), (other, old)])
    write_job(tmp_path, [(make_result(new, metrics=measure(new), created="2026-02-01"), new)])
    assert verify(Config(folder=tmp_path)).rows == 2
    assert deviations(tmp_path) == ()


def test_few_shot_rows_are_recomputed_from_shares(tmp_path, make_predictions, make_result):
    from dataclasses import replace

    made = make_predictions()
    shares = np.random.default_rng(0).dirichlet(np.ones(3), size=len(made.sample))
    shares = replace(made, scores=shares.astype(np.float32), is_share=True)
    row = make_result(made, task="few_shot_4", episodes=1000, metrics=measure(shares))
    write_job(tmp_path, [(row, shares)])
    assert set(row.metrics) == {"accuracy", "balanced_accuracy"}
    label = made.label
    expected = shares.scores[np.arange(len(label)), label].mean()
    assert row.metrics["accuracy"].value == pytest.approx(expected)
    assert deviations(tmp_path) == ()


def test_a_folder_without_results_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError):
            verify(Config(folder=path))


def test_the_command_exits_with_one_if_anything_is_wrong(folder):
    good = command.COMMAND.run(["verify", str(folder)])
    assert (good.exit_code, good.facts) == (0, {"rows": 2, "deviations": []})
    _, content = first(folder)
    (folder / content["predictions"]).unlink()
    bad = command.COMMAND.run(["verify", str(folder)])
    assert bad.exit_code == 1
    assert "2 rows" in bad.text and "1 wrong" in bad.text and "is missing" in bad.text
