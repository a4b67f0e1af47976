from dataclasses import replace

from eosin.results.columns import Column, Family
from eosin.results.comparison import Cell, Comparison
from eosin.results.findings import describe, describe_rankings, summarise
from eosin.results.rankings import MeanRank, Ranking
from eosin.results.resolution import Resolution
from eosin.results.schema import Metric
from eosin.results.statistics import Difference

FAMILY = Family(
    data="tissue",
    task="linear",
    protocol="strict v1",
    label_fraction=1.0,
    manifest_sha256="m",
    split_sha256="s",
    metric="balanced_accuracy",
)
REAL = Difference(value=0.1, low=0.05, high=0.15)
OPEN = Difference(value=0.01, low=-0.02, high=0.04)
LOST = Difference(value=-0.1, low=-0.15, high=-0.05)


def column(shift="none", groups=100):
    return Column(family=FAMILY, shift=shift, n_test=500, n_groups=groups, classes=("a", "b"))


def cell(value, **fields):
    return Cell(metric=Metric(value=value, low=value - 0.05, high=value + 0.05), runs=1, **fields)


def comparison(cells):
    return Comparison(
        metric="balanced_accuracy",
        encoders=tuple(dict.fromkeys(encoder for encoder, _ in cells)),
        columns=tuple(dict.fromkeys(place for _, place in cells)),
        cells=cells,
    )


def said(cells):
    return " ".join(describe(FAMILY, comparison(cells)))


def test_a_real_lead_is_called_real():
    text = said({("a", column()): cell(0.9), ("b", column()): cell(0.8, behind=REAL)})
    assert "a has the highest balanced accuracy: 0.900 [0.850, 0.950]." in text
    assert "Its lead over b, +0.100 [+0.050, +0.150], is real." in text


def test_an_unresolved_lead_is_called_so_for_all_that_are_tied():
    text = said(
        {
            ("a", column()): cell(0.9),
            ("b", column()): cell(0.89, behind=OPEN),
            ("c", column()): cell(0.88, behind=OPEN),
            ("d", column()): cell(0.8, behind=REAL),
        }
    )
    assert (
        "Its lead over b, +0.010 [-0.020, +0.040], is not resolved. Nor is its lead over c." in text
    )


def test_an_encoder_that_does_not_beat_a_baseline_is_named():
    text = said(
        {
            ("a", column()): cell(0.9, versus={"colour_histogram": REAL, "random/r": REAL}),
            ("b", column()): cell(
                0.8, behind=REAL, versus={"colour_histogram": LOST, "random/r": OPEN}
            ),
            ("random/r", column()): cell(0.7, behind=REAL, versus={"colour_histogram": LOST}),
        }
    )
    assert "Not shown to be better than the colour histogram: b." in text
    assert "Not shown to be better than random weights of the same architecture: b." in text


def test_what_a_shift_costs_is_said():
    shifted = column("stain-shift-v1")
    text = said(
        {
            ("a", column()): cell(0.9),
            ("a", shifted): cell(0.8, versus_clean=LOST),
            ("colour_histogram", shifted): cell(0.79, behind=OPEN, versus_clean=OPEN),
        }
    )
    assert "What stain-shift-v1 changes: a -0.100 [-0.150, -0.050], " in text
    assert "colour_histogram +0.010 [-0.020, +0.040] (not resolved)." in text


def test_few_groups_are_pointed_out():
    assert "only 6 test groups" in said({("a", column(groups=6)): cell(0.9)})
    assert "test groups" not in said({("a", column(groups=60)): cell(0.9)})


def test_images_without_known_groups_are_pointed_out():
    assert "group of its own" in said({("a", column(groups=500)): cell(0.9)})
    assert "group of its own" not in said({("a", column(groups=60)): cell(0.9)})


def test_the_summary_counts_columns():
    shifted = column("stain-shift-v1")
    lines = summarise(
        comparison(
            {
                ("a", column()): cell(0.9, versus={"random/r": REAL, "colour_histogram": REAL}),
                ("a", shifted): cell(
                    0.8, behind=OPEN, versus={"random/r": REAL, "colour_histogram": LOST}
                ),
                ("random/r", shifted): cell(0.81),
            }
        )
    )
    assert lines == [
        "a is best or tied with the best in 2 of 2 columns; really better than random weights of "
        "its architecture in 2 of 2; really better than the colour histogram in 1 of 2 and really "
        "worse in 1."
    ]


def test_protocols_are_summed_up_one_by_one():
    other = replace(column(), family=replace(FAMILY, protocol="eva-2025-03 v1"))
    lines = summarise(
        comparison(
            {
                ("a", column()): cell(0.9),
                ("b", column()): cell(0.8, behind=REAL),
                ("a", other): cell(0.7),
            }
        )
    )
    assert lines == [
        "By strict v1, a is best or tied with the best in 1 of 1 column.",
        "By strict v1, b is best or tied with the best in 0 of 1 column.",
        "By eva-2025-03 v1, a is best or tied with the best in 1 of 1 column.",
    ]


def test_the_corrected_test_decides_and_not_the_interval():
    corrected = replace(REAL, p=0.02, p_adjusted=0.2)
    text = said({("a", column()): cell(0.9), ("b", column()): cell(0.8, behind=corrected)})
    assert "is not resolved" in text
    text = said({("a", column()): cell(0.9, versus={"colour_histogram": corrected})})
    assert "Not shown to be better than the colour histogram: a." in text


def resolved(groups, encoders, found):
    where = column(groups=groups)
    cells = {(name, where): cell(0.9) for name in encoders}
    whole = replace(comparison(cells), resolutions={where: found})
    return " ".join(describe(FAMILY, whole))


def test_what_the_test_set_resolves_is_said():
    found = Resolution(before=0.05, observed=0.031)
    text = resolved(100, "ab", found)
    assert "on 500 images in 100 groups shows a difference of 0.031 in four of five" in text
    assert "0.050 was to be expected" in text
    assert "four of five" not in resolved(100, "a", Resolution(before=0.05, observed=None))


def test_too_few_groups_to_show_anything_are_pointed_out():
    found = Resolution(before=0.05, observed=0.3)
    # Ten pairs, each with a p-value of 2^-7 at best.
    assert "8 test groups and 10 pairs of encoders no difference" in resolved(8, "abcde", found)
    assert "no difference" not in resolved(8, "abc", found)


def test_ranks_over_data_sets_are_summed_up_for_all_that_come_first():
    ranks = tuple(
        MeanRank(encoder=name, value=value, low=1.0, high=value)
        for name, value in (("a", 1.5), ("b", 1.5), ("c", 3.0))
    )
    found = Ranking(
        task="knn",
        protocol="strict v1",
        label_fraction=0.1,
        shift="stain-shift-v1",
        data=("bach", "crc"),
        ranks=ranks,
        friedman=0.1,
        critical=2.3,
        bars=(),
    )
    whole = replace(comparison({("a", column()): cell(0.9)}), rankings=(found,))
    assert describe_rankings(whole) == [
        "By knn, strict v1, 0.1 of the labels, stain-shift-v1, a and b have the best mean rank "
        "over 2 data sets, 1.50 [1.00, 1.50] of 3."
    ]


def test_a_metric_that_no_row_gives_is_said_so():
    assert summarise(comparison({})) == ["No row gives the balanced accuracy."]


def test_baselines_alone_are_not_summed_up():
    assert summarise(comparison({("random/r", column()): cell(0.5)})) == [
        "Only baselines were measured."
    ]
