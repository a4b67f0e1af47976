import pytest

from eosin.results.comparison import compare_encoders
from eosin.results.files import read_results, write_job
from eosin.results.published import find_published, read_published
from eosin.results.schema import DataStamp, ProtocolStamp
from eosin.results.statistics import CLASS_METRICS

LUNIT = "vit_small_patch16.lunit_dino"
DATA = {"bach", "crc", "crc_nonorm", "mhist", "patch_camelyon", "break_his", "consep"}


def test_every_row_is_sourced_and_of_a_data_set_of_ours():
    rows = read_published()
    assert len(rows) > 500
    for row in rows:
        assert row.source.count("@") == 1 and ":" in row.source
        assert row.dataset in DATA
        assert row.protocol and row.metric and row.task and row.split
        assert 0 <= row.value <= 1
        assert row.on in ("test", "valid", "unstated")


def test_one_source_gives_one_value_for_one_thing():
    keys = [
        (row.encoder, row.dataset, row.task, row.protocol, row.metric, row.on)
        for row in read_published()
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("dataset", "value"),
    [("bach", 0.783), ("crc", 0.940), ("mhist", 0.781), ("break_his", 0.742)],
)
def test_evas_values_of_lunits_encoder_are_found(dataset, value):
    (row,) = find_published(LUNIT, dataset, "eva-2025-03")
    assert (row.encoder, row.value, row.metric) == ("lunit_vits16", value, "balanced_accuracy")


def test_validation_and_test_are_told_apart():
    found = {row.on: row.value for row in find_published(LUNIT, "patch_camelyon", "eva-2025-03")}
    assert found == {"valid": 0.894, "test": 0.897}


def test_nothing_is_found_by_another_protocol():
    assert find_published(LUNIT, "bach", "strict") == []
    assert find_published("vit_small_patch8.lunit_dino", "bach", "eva-2025-03") == []
    assert {row.metric for row in find_published("uni", "bach", "thunder-0.2")} == {"macro_f1"}


@pytest.fixture
def beside(tmp_path, make_predictions, make_result):
    def compare(*rows):
        for number, changes in enumerate(rows):
            predictions = make_predictions(3.0, number)
            stamp = DataStamp(
                name=changes.pop("data", "bach"),
                manifest_sha256="m",
                split_sha256="s",
                n_train=1,
                n_test=len(predictions.sample),
                classes=("stroma", "gland", "fat"),
                shift=changes.pop("test_shift", "none"),
            )
            protocol = ProtocolStamp(id=changes.pop("protocol_id", "eva-2025-03"), version=1)
            fields = {"name": LUNIT, "data": stamp, "protocol": protocol, **changes}
            write_job(tmp_path, [(make_result(predictions, **fields), predictions)])
        return compare_encoders(read_results(tmp_path))

    return compare


def test_what_was_published_stands_beside_the_mean_over_seeds(beside):
    comparison = beside({"seed": 0}, {"seed": 1})
    (found,) = comparison.published
    assert (found.encoder, found.published.value, found.runs) == (LUNIT, 0.783, 2)
    (cell,) = comparison.cells.values()
    assert found.value == pytest.approx(cell.metric.value)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol_id": "strict"},
        {"name": "another"},
        {"data": "tissue"},
        {"task": "knn"},
        {"label_fraction": 0.1},
        {"test_shift": "stain-shift-v1"},
        {"metrics": {}},
    ],
)
def test_values_of_anything_else_are_not_shown(beside, change):
    assert beside(change).published == ()


def test_metrics_of_ours_are_called_as_ours():
    of_classification = {row.metric for row in read_published() if row.task in ("linear", "knn")}
    assert of_classification <= set(CLASS_METRICS)
