import pytest

from eosin.results.comparison import compare_encoders
from eosin.results.files import read_results, write_job
from eosin.results.schema import DataStamp


@pytest.fixture
def ranked(tmp_path, make_predictions, make_result):
    """Rankings of rows given as (encoder, data set, quality) and changes."""

    def rank(*rows):
        for number, (name, data, quality, changes) in enumerate(rows):
            predictions = make_predictions(quality, number)
            stamp = DataStamp(
                name=data,
                manifest_sha256=f"files of {data}",
                split_sha256=changes.pop("split", "split"),
                n_train=1,
                n_test=len(predictions.sample),
                classes=("stroma", "gland", "fat"),
            )
            row = make_result(predictions, name=name, data=stamp, **changes)
            write_job(tmp_path, [(row, predictions)])
        return compare_encoders(read_results(tmp_path)).rankings

    return rank


def both(name, first, second, **changes):
    return [(name, "bach", first, {**changes}), (name, "crc", second, {**changes})]


def test_encoders_are_ranked_over_data_sets(ranked):
    (found,) = ranked(*both("good", 5.0, 5.0), *both("bad", 0.2, 0.2), *both("middle", 1.8, 1.8))
    assert found.data == ("bach", "crc")
    assert [(each.encoder, each.value) for each in found.ranks] == [
        ("good", 1.0),
        ("middle", 2.0),
        ("bad", 3.0),
    ]
    assert all(1 <= each.low <= each.value <= each.high <= 3 for each in found.ranks)
    assert found.ranks[0].high == 1.0
    assert found.critical > 2 and found.bars == ((1.0, 3.0),)
    assert found.friedman == pytest.approx(0.135, abs=0.001)


def test_protocols_tasks_and_shifts_are_never_ranked_together(ranked):
    found = ranked(
        *both("one", 2.0, 2.0),
        *both("two", 1.0, 1.0),
        *both("one", 2.0, 2.0, task="knn"),
        *both("two", 1.0, 1.0, task="knn"),
    )
    assert [each.task for each in found] == ["knn", "linear"]
    assert ranked(("three", "bach", 1.0, {"label_fraction": 0.1})) == found


def test_baselines_take_no_part_and_gaps_are_named(ranked):
    (found,) = ranked(
        *both("one", 2.0, 2.0),
        *both("two", 1.0, 1.0),
        *both("colour_histogram", 1.0, 1.0),
        ("three", "bach", 3.0, {}),
    )
    assert [each.encoder for each in found.ranks] == ["one", "two"]
    assert found.left_out == ("three",)
    assert found.friedman is None


def test_one_data_set_or_one_encoder_makes_no_ranking(ranked):
    assert ranked(("one", "bach", 1.0, {}), ("two", "bach", 2.0, {})) == ()
    assert ranked(("one", "crc", 1.0, {})) == ()


def test_a_data_set_with_two_divisions_does_not_count_twice(ranked):
    rows = [
        (name, "bach", quality, {"split": split})
        for name, quality in (("one", 1.0), ("two", 2.0))
        for split in ("s", "t")
    ]
    assert ranked(*rows) == ()
