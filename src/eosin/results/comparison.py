"""Which encoder is better on which test set, and whether the difference is real."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from eosin.results.files import read_predictions
from eosin.results.schema import EncoderStamp, Metric, Predictions, Result
from eosin.results.statistics import Difference, compare, measure_mean

COLOUR_BASELINE = "colour_histogram"
RANDOM_PREFIX = "random/"
DEFAULT_METRIC = "balanced_accuracy"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Family:
    """What two numbers must share to stand side by side, whatever was done to the test images."""

    data: str
    task: str
    protocol: str
    label_fraction: float
    manifest_sha256: str
    split_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One test set as one task and protocol see it: the numbers below it form one ranking."""

    family: Family
    shift: str
    n_test: int
    n_groups: int
    classes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One encoder in one column."""

    metric: Metric
    runs: int
    """Over how many seeds and label draws `metric` is the mean."""
    behind: Difference | None = None
    """The best encoder of the column minus this one; None for the best itself."""
    versus: dict[str, Difference] = field(default_factory=dict)
    """This encoder minus each baseline: the random one of its architecture, and colour."""
    versus_clean: Difference | None = None
    """On shifted images: minus the same encoder on the images as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Encoders (best on average first, baselines last) against columns."""

    metric: str
    encoders: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: dict[tuple[str, Column], Cell]

    def ranking(self, column: Column) -> list[tuple[str, Cell]]:
        """Returns the encoders that were measured in a column, best first."""
        measured = [(e, self.cells[e, column]) for e in self.encoders if (e, column) in self.cells]
        return sorted(measured, key=lambda each: -each[1].metric.value)


def is_baseline(encoder: str) -> bool:
    """Whether a row is there to be beaten: random weights or the colour histogram."""
    return encoder.startswith((RANDOM_PREFIX, COLOUR_BASELINE))


def compare_encoders(results: Sequence[Result], metric: str = DEFAULT_METRIC) -> Comparison:
    """Compares all encoders of the rows in every column, from their stored predictions.

    Rows of one encoder that differ in seed or label draw alone are averaged. Encoders of the same
    name that differ in anything else are told apart by it.

    Raises:
        InputError: predictions are missing, damaged, or not of the same samples.
    """
    labels = encoder_labels(results)
    by_family: dict[Family, list[Result]] = {}
    for result in results:
        if metric in result.metrics:
            by_family.setdefault(_family(result), []).append(result)
    cells: dict[tuple[str, Column], Cell] = {}
    for family in sorted(by_family):
        for column, encoders in _by_column(by_family[family], labels):
            cells.update(((label, column), cell) for label, cell in _cells(encoders, metric))
    return Comparison(
        metric=metric,
        encoders=_ordered(cells),
        columns=tuple(dict.fromkeys(column for _, column in cells)),
        cells=cells,
    )


def encoder_labels(results: Sequence[Result]) -> dict[str, str]:
    """Names the encoder of each row: `row_id` to its name, and what tells it from namesakes.

    A random encoder drawn with several seeds, or a method trained with several, is one encoder
    with several weights as long as each seed and draw occurs once.
    """
    labels: dict[str, str] = {}
    for name in {result.encoder.name for result in results}:
        rows = [result for result in results if result.encoder.name == name]
        repeats = [(_family(row), row.data.shift, row.seed, row.draw) for row in rows]
        is_one = len(set(repeats)) == len(repeats)
        stamps = list(dict.fromkeys(row.encoder for row in rows))
        for row in rows:
            labels[row.row_id] = name if is_one else name + _distinction(row.encoder, stamps)
    return labels


@dataclass(kw_only=True, slots=True)
class _Measured:
    """The predictions of one encoder in one column, and on the images as they are."""

    stamp: EncoderStamp
    runs: list[Predictions] = field(default_factory=list)
    clean: list[Predictions] = field(default_factory=list)


def _distinction(stamp: EncoderStamp, stamps: Sequence[EncoderStamp]) -> str:
    parts = [f"weights {stamp.weights_sha256[:8]}", stamp.transform, stamp.pooling, stamp.precision]
    others = [
        (each.weights_sha256, each.transform, each.pooling, each.precision) for each in stamps
    ]
    varying = [
        part
        for part, values in zip(parts, zip(*others, strict=True), strict=True)
        if len(set(values)) > 1
    ]
    return f" ({', '.join(varying)})"


def _family(result: Result) -> Family:
    return Family(
        data=result.data.name,
        task=result.task,
        protocol=f"{result.protocol.id} v{result.protocol.version}",
        label_fraction=result.label_fraction,
        manifest_sha256=result.data.manifest_sha256,
        split_sha256=result.data.split_sha256,
    )


def _by_column(
    results: Sequence[Result], labels: dict[str, str]
) -> Iterator[tuple[Column, dict[str, _Measured]]]:
    """Reads the predictions of one family, column by column, the images as they are first."""
    columns: dict[Column, dict[str, _Measured]] = {}
    clean: dict[str, list[Predictions]] = {}
    for result in sorted(results, key=lambda each: (each.data.shift != "none", each.data.shift)):
        predictions = read_predictions(result)
        column = Column(
            family=_family(result),
            shift=result.data.shift,
            n_test=result.data.n_test,
            n_groups=len(set(predictions.group)),
            classes=result.data.classes,
        )
        label = labels[result.row_id]
        encoders = columns.setdefault(column, {})
        measured = encoders.setdefault(label, _Measured(stamp=result.encoder))
        measured.runs.append(predictions)
        if result.data.shift == "none":
            clean.setdefault(label, []).append(predictions)
        else:
            measured.clean = clean.get(label, [])
    yield from columns.items()


def _cells(encoders: dict[str, _Measured], metric: str) -> Iterator[tuple[str, Cell]]:
    values = {label: measure_mean(each.runs, metric) for label, each in encoders.items()}
    best = max(values, key=lambda label: values[label].value)
    for label, each in encoders.items():
        baselines = {
            name: [
                run for other in encoders.values() if other.stamp.name == name for run in other.runs
            ]
            for name in (_random_baseline(each.stamp), COLOUR_BASELINE)
            if name != each.stamp.name
        }
        yield (
            label,
            Cell(
                metric=values[label],
                runs=len(each.runs),
                behind=None if label == best else compare(encoders[best].runs, each.runs, metric),
                versus={
                    name: compare(each.runs, runs, metric)
                    for name, runs in baselines.items()
                    if runs
                },
                versus_clean=compare(each.runs, each.clean, metric) if each.clean else None,
            ),
        )


def _random_baseline(stamp: EncoderStamp) -> str:
    named = stamp.name.removeprefix(RANDOM_PREFIX).removeprefix("timm/").partition(".")[0]
    return RANDOM_PREFIX + (stamp.architecture or named)


def _ordered(cells: dict[tuple[str, Column], Cell]) -> tuple[str, ...]:
    values: dict[str, list[float]] = {}
    for (encoder, _), cell in cells.items():
        values.setdefault(encoder, []).append(cell.metric.value)

    def place(encoder: str) -> tuple[bool, float, str]:
        return is_baseline(encoder), -sum(values[encoder]) / len(values[encoder]), encoder

    return tuple(sorted(values, key=place))
