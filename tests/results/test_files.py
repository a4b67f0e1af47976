import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from eosin.errors import InputError
from eosin.results.files import read_predictions, read_results, write_job


def test_a_job_is_read_as_it_was_written(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    rows = [
        (make_result(predictions, shift=shift), predictions) for shift in ("none", "stain-shift-v1")
    ]
    path = write_job(tmp_path, rows)

    read = read_results(tmp_path)

    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(
        [path.name, *(f"{result.row_id}.parquet" for result, _ in rows)]
    )
    assert [replace(result, predictions="") for result in read] == [result for result, _ in rows]
    for result in read:
        again = read_predictions(result)
        for name in ("sample", "group", "label", "predicted", "scores"):
            np.testing.assert_array_equal(getattr(again, name), getattr(predictions, name))


def test_the_parquet_file_has_the_documented_columns(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    write_job(tmp_path, [(make_result(predictions), predictions)])
    (file,) = tmp_path.glob("*.parquet")
    expected = ["sample", "group", "label", "predicted", "score_0", "score_1", "score_2"]
    assert pq.read_table(file).column_names == expected


def test_the_same_job_again_replaces_its_files(tmp_path, make_predictions, make_result):
    for quality in (1.0, 2.0):
        predictions = make_predictions(quality)
        write_job(tmp_path, [(make_result(predictions), predictions)])
    (result,) = read_results(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(read_predictions(result).scores, make_predictions(2.0).scores)


def test_of_a_repeated_measurement_the_newest_is_kept(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    for folder, created in (("b", "2026-02-01"), ("a", "2026-03-01"), ("c", "2026-01-01")):
        row = make_result(predictions, created=created)
        write_job(tmp_path / folder, [(row, predictions)])
    (kept,) = read_results(tmp_path)
    assert kept.provenance["created"] == "2026-03-01"
    assert kept.folder == tmp_path / "a"


def test_a_name_may_hold_what_python_takes_for_a_line_end(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    write_job(tmp_path, [(make_result(predictions, name="a\u2028b\x85c\nd"), predictions)])
    assert read_results(tmp_path)[0].encoder.name == "a\u2028b\x85c\nd"


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "job-1.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"job-1\.jsonl cannot be read"):
        read_results(tmp_path)


def test_folders_and_files_are_merged(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    first = write_job(tmp_path / "x", [(make_result(predictions, name="one"), predictions)])
    write_job(tmp_path / "y", [(make_result(predictions, name="two"), predictions)])
    merged = read_results([first, tmp_path / "y"])
    assert {result.encoder.name for result in merged} == {"one", "two"}


def test_logs_beside_the_rows_are_not_taken_for_rows(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    write_job(tmp_path, [(make_result(predictions), predictions)])
    (tmp_path / "log.jsonl").write_text('{"update": 1, "loss": 2.0}\n')
    assert len(read_results(tmp_path)) == 1


def test_a_source_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_results(tmp_path / "nowhere")


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(InputError, match=f"no results in {tmp_path}"):
        read_results(tmp_path)


def test_a_damaged_line_is_named(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    path = write_job(tmp_path, [(make_result(predictions), predictions)])
    path.write_text(path.read_text() + '{"schema_version": 1}\n')
    with pytest.raises(InputError, match=f"{path.name}, line 2"):
        read_results(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "cut", "other columns", "too few"])
def test_predictions_that_do_not_fit_their_row_are_named(
    tmp_path, make_predictions, make_result, damage
):
    predictions = make_predictions()
    write_job(tmp_path, [(make_result(predictions), predictions)])
    (result,) = read_results(tmp_path)
    file = tmp_path / result.predictions
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "other columns":
        pq.write_table(pq.read_table(file).drop_columns("score_2"), file)
    else:
        pq.write_table(pq.read_table(file).slice(0, 10), file)
    with pytest.raises(InputError, match=file.name):
        read_predictions(result)


def test_predictions_outside_the_folder_are_refused(tmp_path, make_predictions, make_result):
    predictions = make_predictions()
    path = write_job(tmp_path, [(make_result(predictions), predictions)])
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "predictions": "../secret.parquet"}) + "\n")
    (result,) = read_results(tmp_path)
    with pytest.raises(InputError, match="leave the folder"):
        read_predictions(result)


def test_no_row_is_left_when_writing_fails(tmp_path, make_predictions, make_result, monkeypatch):
    predictions = make_predictions()

    def fail(*_args, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        write_job(tmp_path, [(make_result(predictions), predictions)])
    assert list(tmp_path.iterdir()) == []
