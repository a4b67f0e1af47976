"""How a metric grows with the part of the labels that is used."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import log
from statistics import fmean, stdev

from eosin.results.columns import Family, family_of, metric_of
from eosin.results.schema import Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """The mean over draws of the labels and seeds, and their standard deviation (0 for one)."""

    fraction: float
    mean: float
    spread: float
    runs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCurve:
    """One encoder; `area` is the mean height over the logarithm of the fraction.

    It is None where the encoder was not measured at every fraction.
    """

    encoder: str
    points: tuple[Point, ...]
    area: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelCurves:
    """The curves of one data set, task and protocol, the highest first."""

    family: Family
    """Its `label_fraction` is 1 and says nothing."""
    shift: str
    fractions: tuple[float, ...]
    curves: tuple[LabelCurve, ...]


def label_curves(
    results: Sequence[Result], labels: Mapping[str, str], metric: str
) -> Iterator[LabelCurves]:
    """Draws together the rows that differ in encoder, part of the labels, draw and seed alone.

    Args:
        results: the rows; what has one fraction is passed over.
        labels: name of the encoder of each row, by row id.
        metric: which metric; of instances PQ, where it is one of classes.
    """
    places: dict[tuple[Family, str], dict[str, dict[float, list[float]]]] = {}
    for result in results:
        if used := metric_of(result, metric):
            place = replace(family_of(result, used), label_fraction=1.0), result.data.shift
            of_encoder = places.setdefault(place, {}).setdefault(labels[result.row_id], {})
            of_encoder.setdefault(result.label_fraction, []).append(result.metrics[used].value)
    for family, shift in sorted(places, key=lambda each: (each[0], each[1] != "none", each[1])):
        encoders = places[family, shift]
        fractions = sorted({fraction for values in encoders.values() for fraction in values})
        if len(fractions) > 1:
            curves = [_curve(name, values, fractions) for name, values in encoders.items()]
            curves.sort(key=lambda each: -(each.area or 0.0))
            yield LabelCurves(
                family=family, shift=shift, fractions=tuple(fractions), curves=tuple(curves)
            )


def _curve(
    encoder: str, values: Mapping[float, Sequence[float]], fractions: Sequence[float]
) -> LabelCurve:
    points = tuple(
        Point(
            fraction=fraction,
            mean=fmean(values[fraction]),
            spread=stdev(values[fraction]) if len(values[fraction]) > 1 else 0.0,
            runs=len(values[fraction]),
        )
        for fraction in sorted(values)
    )
    is_whole = len(points) == len(fractions)
    return LabelCurve(encoder=encoder, points=points, area=_area(points) if is_whole else None)


def _area(points: Sequence[Point]) -> float:
    """Trapezoids over the logarithm of the fraction, divided by its range."""
    total = sum(log(b.fraction / a.fraction) * (a.mean + b.mean) / 2 for a, b in pairwise(points))
    return total / log(points[-1].fraction / points[0].fraction)
