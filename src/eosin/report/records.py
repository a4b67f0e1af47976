"""The small print of a report: what was measured with what, as tables of text."""

from collections.abc import Sequence
from typing import Any

from eosin.results.more_tables import TextTable
from eosin.results.names import encoder_labels
from eosin.results.schema import Result
from eosin.results.wording import CALIBRATION_NAMES, METRIC_NAMES, interval_text

HASH_DIGITS = 12


def list_records(results: Sequence[Result]) -> list[TextTable]:
    """Returns the encoders, the data, every measurement, and the software with the machine."""
    return [_encoders(results), _data(results), _measurements(results), _machines(results)]


def _encoders(results: Sequence[Result]) -> TextTable:
    labels = encoder_labels(results)
    rows = {
        (
            labels[result.row_id],
            result.encoder.weights_sha256[:HASH_DIGITS],
            str(result.encoder.embed_dim),
            result.encoder.pooling,
            result.encoder.precision,
            result.encoder.transform,
        )
        for result in results
    }
    return TextTable(
        title="Encoders",
        headings=("encoder", "weights sha256", "dim", "pooling", "precision", "transform"),
        rows=tuple(sorted(rows)),
    )


def _data(results: Sequence[Result]) -> TextTable:
    rows = {
        (
            result.data.name,
            f"{result.data.n_train:,}",
            f"{result.data.n_test:,}",
            ", ".join(result.data.classes),
            result.data.manifest_sha256[:HASH_DIGITS],
            result.data.split_sha256[:HASH_DIGITS],
        )
        for result in results
    }
    return TextTable(
        title="Data",
        headings=("data", "train", "test", "classes", "manifest sha256", "split sha256"),
        rows=tuple(sorted(rows)),
    )


def _measurements(results: Sequence[Result]) -> TextTable:
    labels = encoder_labels(results)
    names = {**METRIC_NAMES, **CALIBRATION_NAMES}
    metrics = [name for name in names if any(name in each.metrics for each in results)]
    rows = [
        (
            labels[result.row_id],
            result.data.name,
            result.data.shift,
            f"{result.task}, {result.protocol.id} v{result.protocol.version}",
            *(
                interval_text(result.metrics[name]) if name in result.metrics else "–"
                for name in metrics
            ),
            f"{result.label_fraction:.3g}",
            str(result.draw),
            str(result.seed),
            ", ".join(f"{key} {_brief(value)}" for key, value in result.selection.items()),
            f"{result.seconds:.1f}",
            result.row_id,
        )
        for result in results
    ]
    return TextTable(
        title="Measurements",
        headings=(
            "encoder",
            "data",
            "shift",
            "task, protocol",
            *(names[name] for name in metrics),
            "labels",
            "draw",
            "seed",
            "selected by",
            "seconds",
            "row id",
        ),
        rows=tuple(sorted(rows)),
    )


def _brief(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _machines(results: Sequence[Result]) -> TextTable:
    created: dict[tuple[str, str], list[str]] = {}
    for result in results:
        stamp = result.provenance
        versions = ", ".join(f"{name} {each}" for name, each in stamp.get("versions", {}).items())
        key = (str(stamp.get("hardware", "unknown")), versions)
        created.setdefault(key, []).append(str(stamp.get("created", "unknown")))
    rows = [(*key, min(times), max(times)) for key, times in created.items()]
    return TextTable(
        title="Software and machine",
        headings=("hardware", "versions", "first row", "last row"),
        rows=tuple(sorted(rows)),
    )
