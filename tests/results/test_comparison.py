from dataclasses import replace

import pytest

from eosin.results.comparison import compare_encoders
from eosin.results.files import read_results, write_job
from eosin.results.names import encoder_labels, is_baseline
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


def untested(difference):
    """A difference with its interval alone."""
    assert 0 < difference.p <= difference.p_adjusted <= 1
    return replace(difference, p=None, p_adjusted=None)


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
    assert {name: untested(each) for name, each in cell.versus.items()} == {
        RANDOM: compare([method], [random], "balanced_accuracy"),
        COLOUR: compare([method], [colour], "balanced_accuracy"),
    }
    behind = comparison.cells[RANDOM, column].behind
    assert untested(behind) == compare([method], [random], "balanced_accuracy")
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
    assert untested(comparison.cells[METHOD, shifted].versus_clean) == compare(
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


def test_letters_and_verdicts_come_from_the_same_corrected_tests(compared):
    comparison = compared(
        (3.0, 1, {"name": "best"}),
        (2.9, 2, {"name": "near"}),
        (1.2, 3, {"name": "far"}),
        (1.1, 4, {"name": COLOUR}),
    )
    (column,) = comparison.columns
    ranking = comparison.ranking(column)
    leader = ranking[0][1]
    assert leader.letters.startswith("a")
    for name, cell in ranking[1:]:
        shares_a_letter = bool(set(leader.letters) & set(cell.letters))
        assert shares_a_letter == (not cell.behind.is_real), name
        assert cell.behind.is_real == (cell.behind.p_adjusted < 0.05)
        # Six pairs were tested.
        assert cell.behind.p <= cell.behind.p_adjusted <= min(1, 6 * cell.behind.p)
    assert {ranking[2][1].letters, ranking[3][1].letters} == {"b"}


def test_correction_makes_a_borderline_difference_unresolved(compared):
    pair = ((2.0, 1, {"name": "m"}), (1.6, 2, {"name": "n"}))
    others = tuple((1.8 + 0.01 * i, 10 + i, {"name": f"o{i}"}) for i in range(8))
    alone = compared(*pair)
    (column,) = alone.columns
    p = next(cell.behind.p for _, cell in alone.ranking(column) if cell.behind)
    many = compared(*pair, *others)
    worst = many.cells[next(n for n, c in alone.ranking(column) if c.behind), column]
    assert worst.behind.p_adjusted >= min(1, 2 * p)


def test_what_a_column_resolves_is_known(compared):
    comparison = compared((3.0, 1, {"name": METHOD}), (2.9, 2, {"name": "other"}))
    (column,) = comparison.columns
    found = comparison.resolutions[column]
    assert 0.02 < found.observed < 0.3
    assert 0.02 < found.before < 0.3
    by_area = compared(metric="auroc")
    assert [each.before for each in by_area.resolutions.values()] == [None]
    alone = compared((3.0, 1, {"name": METHOD, "task": "knn"}))
    assert {c.family.task: r.observed for c, r in alone.resolutions.items()}["knn"] is None


def test_encoders_are_ordered_by_one_protocol_and_never_by_a_mixture(compared):
    comparison = compared(
        (3.0, 1, {"name": "one", "task": "knn"}),
        (2.0, 2, {"name": "two", "task": "knn"}),
        (0.2, 3, {"name": "one", "task": "linear"}),
        (9.0, 4, {"name": "two", "task": "linear"}),
    )
    assert comparison.columns[0].family.task == "knn"
    assert comparison.encoders == ("one", "two")


def test_baselines_are_known_by_their_names():
    assert is_baseline(RANDOM) and is_baseline(COLOUR)
    assert not is_baseline(METHOD)
