from dataclasses import replace

import pytest

from eosin.results.label_curves import label_curves
from eosin.results.schema import Metric


@pytest.fixture
def curves(make_predictions, make_result):
    """Curves of rows given as (encoder, fraction, draw, value) and changes."""
    predictions = make_predictions(samples=12)

    def draw(*rows):
        results = [
            make_result(
                predictions,
                name=name,
                label_fraction=fraction,
                draw=draw,
                metrics={"auroc": Metric(value=value, low=0, high=1)},
                **changes,
            )
            for name, fraction, draw, value, changes in rows
        ]
        names = {row.row_id: row.encoder.name for row in results}
        return list(label_curves(results, names, "auroc"))

    return draw


def test_points_are_means_over_draws_with_their_spread(curves):
    (found,) = curves(
        ("one", 0.01, 0, 0.4, {}),
        ("one", 0.01, 1, 0.6, {}),
        ("one", 0.1, 0, 0.7, {}),
        ("one", 1.0, 0, 0.9, {}),
    )
    assert found.fractions == (0.01, 0.1, 1.0)
    (curve,) = found.curves
    first, second, third = curve.points
    assert (first.mean, first.runs) == (pytest.approx(0.5), 2)
    assert first.spread == pytest.approx(0.2 / 2**0.5)
    assert (second.spread, third.runs) == (0.0, 1)
    # Equal steps of the logarithm: the trapezoids (0.5 + 0.7) / 2 and (0.7 + 0.9) / 2.
    assert curve.area == pytest.approx(0.7)


def test_a_flat_curve_has_its_height_as_area(curves):
    (found,) = curves(*(("one", fraction, 0, 0.8, {}) for fraction in (0.01, 0.05, 0.3, 1.0)))
    assert found.curves[0].area == pytest.approx(0.8)


def test_curves_with_gaps_have_no_area_and_come_last(curves):
    (found,) = curves(
        ("gap", 0.1, 0, 0.9, {}),
        ("low", 0.1, 0, 0.1, {}),
        ("low", 1.0, 0, 0.2, {}),
        ("high", 0.1, 0, 0.5, {}),
        ("high", 1.0, 0, 0.6, {}),
    )
    assert [(each.encoder, each.area is None) for each in found.curves] == [
        ("high", False),
        ("low", False),
        ("gap", True),
    ]


def test_tasks_and_shifts_have_charts_of_their_own_and_one_fraction_has_none(curves):
    rows = [
        ("one", fraction, 0, 0.5, changes)
        for fraction in (0.1, 1.0)
        for changes in ({}, {"task": "knn"}, {"shift": "stain-shift-v1"})
    ]
    assert [(each.family.task, each.shift) for each in curves(*rows)] == [
        ("knn", "none"),
        ("linear", "none"),
        ("linear", "stain-shift-v1"),
    ]
    assert curves(("one", 1.0, 0, 0.5, {}), ("two", 1.0, 0, 0.5, {})) == []
    assert replace(curves(*rows)[0].family).label_fraction == 1.0
