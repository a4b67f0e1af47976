import pytest

from eosin.results.comparison import compare_encoders, encoder_labels, is_baseline
from eosin.results.files import read_results, write_job
from eosin.results.statistics import compare, measure_mean

METHOD, RANDOM, COLOUR = "resnet18.barlow_twins", "random/resnet18", "colour_histogram"


@pytest.fixture
def compared(tmp_path, make_predictions, make_result):
    """Writes rows, given as (quality, seed of the noise, settings of the row), and compares."""

    def write_and_compare(*rows, metric="balanced_accuracy"):
        for quality, noise, settings in rows:
            predictions = make_predictions(quality, noise)
            write_job(tmp_path, [(make_result(predictions, **settings), predictions)])
        return compare_encoders(read_results(tmp_path), metric)

    return write_and_compare


def test_cells_hold_what_the_statistics_say(compared, make_predictions):
    comparison = compared(
        (3.0, 1, {"name": METHOD}), (1.0, 2, {"name": RANDOM}), (1.4, 3, {"name": COLOUR})
    )
    (column,) = comparison.columns
    method, random, colour = (
        make_predictions(quality, seed) for quality, seed in ((3.0, 1), (1.0, 2), (1.4, 3))
    )
    cell = comparison.cells[METHOD, column]
    assert cell.metric == measure_mean([method], "balanced_accuracy")
    assert cell.behind is None
    assert cell.versus == {
        RANDOM: compare([method], [random], "balanced_accuracy"),
        COLOUR: compare([method], [colour], "balanced_accuracy"),
    }
    behind = comparison.cells[RANDOM, column].behind
    assert behind == compare([method], [random], "balanced_accuracy")
    assert list(comparison.cells[RANDOM, column].versus) == [COLOUR]
    assert comparison.cells[COLOUR, column].versus == {}


def test_encoders_come_best_first_and_baselines_last(compared):
    comparison = compared(
        (9.0, 1, {"name": COLOUR}),
        (1.0, 2, {"name": "worse"}),
        (3.0, 3, {"name": "better"}),
        (2.0, 4, {"name": RANDOM}),
    )
    assert comparison.encoders == ("better", "worse", COLOUR, RANDOM)
    ranking = comparison.ranking(comparison.columns[0])
    assert [encoder for encoder, _ in ranking] == [COLOUR, "better", RANDOM, "worse"]


@pytest.mark.parametrize(
    ("name", "architecture", "found"),
    [
        ("runs/first", "resnet18", True),
        ("resnet18", "", True),
        ("timm/resnet18.a1_in1k", "", True),
        ("resnet18.moco", "", True),
        ("resnet34.moco", "", False),
        ("resnet18.moco", "resnet34", False),
    ],
)
def test_the_random_baseline_is_that_of_the_same_architecture(compared, name, architecture, found):
    comparison = compared(
        (2.0, 1, {"name": name, "architecture": architecture}), (1.0, 2, {"name": RANDOM})
    )
    versus = comparison.cells[name, comparison.columns[0]].versus
    assert list(versus) == ([RANDOM] if found else [])


def test_shifted_images_are_a_column_of_their_own_and_compared_with_the_clean_ones(
    compared, make_predictions
):
    comparison = compared(
        (1.0, 2, {"name": METHOD, "shift": "stain-shift-v1"}), (2.0, 1, {"name": METHOD})
    )
    clean, shifted = comparison.columns
    assert (clean.shift, shifted.shift) == ("none", "stain-shift-v1")
    assert clean.family == shifted.family
    assert comparison.cells[METHOD, clean].versus_clean is None
    assert comparison.cells[METHOD, shifted].versus_clean == compare(
        [make_predictions(1.0, 2)], [make_predictions(2.0, 1)], "balanced_accuracy"
    )


def test_other_splits_tasks_and_label_fractions_are_never_ranked_together(compared):
    comparison = compared(
        (1.0, 1, {"name": METHOD}),
        (1.0, 1, {"name": METHOD, "split": "c" * 64}),
        (1.0, 1, {"name": METHOD, "task": "knn"}),
        (1.0, 1, {"name": METHOD, "label_fraction": 0.1}),
    )
    assert len(comparison.columns) == 4
    assert all(len(comparison.ranking(column)) == 1 for column in comparison.columns)


def test_seeds_and_draws_are_averaged(compared, make_predictions):
    runs = [(1.0 + seed, seed, {"name": METHOD, "seed": seed}) for seed in range(3)]
    comparison = compared(*runs)
    cell = comparison.cells[METHOD, comparison.columns[0]]
    predictions = [make_predictions(quality, seed) for quality, seed, _ in runs]
    assert cell.runs == 3
    assert cell.metric == measure_mean(predictions, "balanced_accuracy")


def test_methods_trained_with_several_seeds_are_one_encoder(compared):
    comparison = compared(
        *((1.0, seed, {"name": METHOD, "seed": seed, "weights": f"w{seed}"}) for seed in range(2))
    )
    assert comparison.encoders == (METHOD,)


def test_namesakes_with_other_weights_are_told_apart(compared):
    comparison = compared(
        (1.0, 1, {"name": METHOD, "weights": "1" * 64}),
        (2.0, 2, {"name": METHOD, "weights": "2" * 64}),
    )
    assert comparison.encoders == (
        f"{METHOD} (weights 22222222)",
        f"{METHOD} (weights 11111111)",
    )


def test_every_row_has_a_label(make_predictions, make_result):
    predictions = make_predictions()
    rows = [make_result(predictions, name=name) for name in (METHOD, RANDOM)]
    assert encoder_labels(rows) == {rows[0].row_id: METHOD, rows[1].row_id: RANDOM}


def test_rows_without_the_metric_are_left_out(compared):
    comparison = compared((1.0, 1, {"name": METHOD, "metrics": {}}), (1.0, 2, {"name": RANDOM}))
    assert comparison.encoders == (RANDOM,)


def test_the_metric_can_be_chosen(compared, make_predictions):
    comparison = compared((1.0, 1, {"name": METHOD}), metric="auroc")
    cell = comparison.cells[METHOD, comparison.columns[0]]
    assert cell.metric == measure_mean([make_predictions(1.0, 1)], "auroc")


def test_baselines_are_known_by_their_names():
    assert is_baseline(RANDOM) and is_baseline(COLOUR)
    assert not is_baseline(METHOD)
