"""Which encoder is better on which test set, and whether the difference is real."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from eosin.results.columns import Column, Family, family_of, metric_of
from eosin.results.files import read_predictions
from eosin.results.label_curves import LabelCurves, label_curves
from eosin.results.names import COLOUR_BASELINE, encoder_labels, is_baseline, random_baseline
from eosin.results.pairs import Measured, Tested, compare_pairs
from eosin.results.published import Beside, values_beside
from eosin.results.rankings import Ranking, rank_over_data
from eosin.results.resolution import Resolution
from eosin.results.schema import Measurable, Metric, Result
from eosin.results.statistics import Difference

DEFAULT_METRIC = "balanced_accuracy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One encoder in one column."""

    metric: Metric
    runs: int
    """Over how many seeds and label draws `metric` is the mean."""
    letters: str = ""
    """Shared with the encoders of the column that it was not told apart from."""
    behind: Difference | None = None
    """The best encoder of the column minus this one; None for the best itself."""
    versus: dict[str, Difference] = field(default_factory=dict)
    """This encoder minus each baseline: the random one of its architecture, and colour."""
    versus_clean: Difference | None = None
    """On shifted images: minus the same encoder on the images as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Encoders (best on average first, baselines last) against columns.

    Attributes:
        metric: what is compared.
        encoders: best first by the first column's task and protocol.
        columns: test sets, each by a task and a protocol.
        cells: what was measured.
        resolutions: what each column can resolve.
        rankings: ranks over several data sets, one task and protocol each.
        curves: the metric against the part of the labels that was used.
        published: values that others published for the same encoder, data set and protocol.
    """

    metric: str
    encoders: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: dict[tuple[str, Column], Cell]
    resolutions: Mapping[Column, Resolution] = field(default_factory=dict[Column, Resolution])
    rankings: tuple[Ranking, ...] = ()
    curves: tuple[LabelCurves, ...] = ()
    published: tuple[Beside, ...] = ()

    def ranking(self, column: Column) -> list[tuple[str, Cell]]:
        """Returns the encoders that were measured in a column, best first."""
        measured = [(e, self.cells[e, column]) for e in self.encoders if (e, column) in self.cells]
        return sorted(measured, key=lambda each: -each[1].metric.value)


def compare_encoders(results: Sequence[Result], metric: str = DEFAULT_METRIC) -> Comparison:
    """Compares all encoders of the rows in every column, from their stored predictions.

    Rows of one encoder that differ in seed or label draw alone are averaged. Encoders of the same
    name that differ in anything else are told apart by it. Rows of instances are compared by PQ
    where the metric is one of classes.

    Raises:
        InputError: predictions are missing, damaged, or not of the same samples.
    """
    labels = encoder_labels(results)
    by_family: dict[Family, list[Result]] = {}
    for result in results:
        if used := metric_of(result, metric):
            by_family.setdefault(family_of(result, used), []).append(result)
    tested: dict[Column, Tested] = {}
    for family in sorted(by_family):
        for column, encoders in _by_column(family, by_family[family], labels):
            tested[column] = compare_pairs(encoders, family.metric)
    cells = {
        (label, column): cell
        for column, of_column in tested.items()
        for label, cell in _cells(of_column)
    }
    used = {family.metric for family in by_family}
    return Comparison(
        metric=used.pop() if len(used) == 1 else metric,
        encoders=_ordered(cells),
        columns=tuple(tested),
        cells=cells,
        resolutions={
            column: of_column.resolution(column.n_test, column.family.metric)
            for column, of_column in tested.items()
        },
        rankings=tuple(
            rank_over_data(
                {column: each.sampled for column, each in tested.items()},
                {column: each.labels for column, each in tested.items()},
            )
        ),
        curves=tuple(label_curves(results, labels, metric)),
        published=tuple(values_beside(results, labels)),
    )


def _by_column(
    family: Family, results: Sequence[Result], labels: Mapping[str, str]
) -> Iterator[tuple[Column, dict[str, Measured]]]:
    """Reads the predictions of one family, column by column, the images as they are first."""
    columns: dict[Column, dict[str, Measured]] = {}
    clean: dict[str, list[Measurable]] = {}
    shared: list[Measurable] = []
    for result in sorted(results, key=lambda each: (each.data.shift != "none", each.data.shift)):
        predictions = _sharing_names(read_predictions(result), shared)
        column = Column(
            family=family,
            shift=result.data.shift,
            n_test=result.data.n_test,
            n_groups=len(np.unique(predictions.group)),
            classes=result.data.classes,
        )
        label = labels[result.row_id]
        encoders = columns.setdefault(column, {})
        measured = encoders.setdefault(label, Measured(stamp=result.encoder))
        measured.runs.append(predictions)
        if result.data.shift == "none":
            clean.setdefault(label, []).append(predictions)
        else:
            measured.clean = clean.get(label, [])
    yield from columns.items()


def _sharing_names(predictions: Measurable, shared: list[Measurable]) -> Measurable:
    """Keeps the names of samples and groups once, which are most of the predictions' memory."""
    if not shared:
        shared.append(predictions)
    first = shared[0]
    names = {
        name: getattr(first, name)
        for name in ("sample", "group", "label")
        if hasattr(predictions, name) and hasattr(first, name)
        if np.array_equal(getattr(first, name), getattr(predictions, name))
    }
    return replace(predictions, **names)


def _cells(tested: Tested) -> Iterator[tuple[str, Cell]]:
    best = tested.labels[0]
    for label, measured in tested.encoders.items():
        baselines = {
            name: other
            for name in (random_baseline(measured.stamp), COLOUR_BASELINE)
            if name != measured.stamp.name and (other := tested.find_baseline(name, measured.stamp))
        }
        yield (
            label,
            Cell(
                metric=tested.metric(label),
                runs=len(measured.runs),
                letters=tested.letters[label],
                behind=None if label == best else tested.difference(best, label),
                versus={name: tested.difference(label, other) for name, other in baselines.items()},
                versus_clean=tested.versus_clean.get(label),
            ),
        )


def _ordered(cells: Mapping[tuple[str, Column], Cell]) -> tuple[str, ...]:
    """Orders by the mean over the columns of one task and protocol: others are no measure of it."""
    if not cells:
        return ()
    families = [column.family for _, column in cells]
    leading = families[0].task, families[0].protocol
    values: dict[str, list[float]] = {}
    for (encoder, column), cell in cells.items():
        of_encoder = values.setdefault(encoder, [])
        if (column.family.task, column.family.protocol) == leading:
            of_encoder.append(cell.metric.value)

    def place(encoder: str) -> tuple[bool, float, str]:
        found = values[encoder]
        return is_baseline(encoder), -sum(found) / len(found) if found else 0.0, encoder

    return tuple(sorted(values, key=place))
