from dataclasses import replace

import pytest

from eosin.results.columns import Column, Family
from eosin.results.comparison import Cell, Comparison
from eosin.results.schema import Metric
from eosin.results.statistics import Difference
from eosin.results.wording import column_lines, difference_text, interval_text, standing

FAMILY = Family(
    data="tissue",
    task="knn",
    protocol="strict v1",
    label_fraction=1.0,
    manifest_sha256="a" * 64,
    split_sha256="b" * 64,
    metric="accuracy",
)
COLUMN = Column(family=FAMILY, shift="none", n_test=9, n_groups=3, classes=("x", "y"))
METRIC = Metric(value=0.5, low=0.4, high=0.6)


def lines(column, *others):
    comparison = Comparison(metric="accuracy", encoders=("e",), columns=(column, *others), cells={})
    return column_lines(column, comparison)


def changed(**changes):
    return replace(COLUMN, family=replace(FAMILY, **changes))


def test_figures_have_three_decimals_and_differences_a_sign():
    assert interval_text(METRIC) == "0.500 [0.400, 0.600]"
    assert difference_text(Difference(value=0.1, low=-0.02, high=0.2)) == (
        "+0.100 [-0.020, +0.200]"
    )


def test_a_column_names_its_protocol_and_its_shift():
    assert lines(COLUMN) == ("tissue", "knn, strict v1", "images as they are")
    assert lines(replace(COLUMN, shift="stain-shift-v1"))[2] == "stain-shift-v1"
    assert lines(changed(label_fraction=0.1))[1] == "knn, strict v1, 0.1 of the labels"


def test_namesakes_of_a_data_set_are_told_apart_by_a_hash():
    assert lines(COLUMN, changed(split_sha256="c" * 64))[0] == "tissue (split bbbbbbbb)"
    assert lines(COLUMN, changed(manifest_sha256="c" * 64))[0] == "tissue (files aaaaaaaa)"
    assert lines(COLUMN, changed(task="linear"))[0] == "tissue"


@pytest.mark.parametrize(
    ("behind", "word"),
    [
        (None, "best"),
        (Difference(value=0.1, low=-0.1, high=0.2), "tied"),
        (Difference(value=0.1, low=0.05, high=0.2), ""),
    ],
)
def test_a_cell_is_best_tied_or_neither(behind, word):
    assert standing(Cell(metric=METRIC, runs=1, behind=behind)) == word
