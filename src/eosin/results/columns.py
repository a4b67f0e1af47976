"""What two numbers must share to stand side by side."""

from dataclasses import dataclass

from eosin.results.schema import Result
from eosin.results.statistics import CLASS_METRICS


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Family:
    """What two numbers must share to stand side by side, whatever was done to the test images."""

    data: str
    task: str
    protocol: str
    label_fraction: float
    manifest_sha256: str
    split_sha256: str
    metric: str = ""
    """By which they are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One test set as one task and protocol see it: the numbers below it form one ranking."""

    family: Family
    shift: str
    n_test: int
    n_groups: int
    classes: tuple[str, ...]


_OF_INSTANCES = "pq"


def metric_of(result: Result, metric: str) -> str | None:
    """Gives what a row is compared by: the metric, or PQ where classes' metrics say nothing."""
    if metric in result.metrics:
        return metric
    is_counted = metric in CLASS_METRICS and _OF_INSTANCES in result.metrics
    return _OF_INSTANCES if is_counted else None


def family_of(result: Result, metric: str = "") -> Family:
    """Gives the family that a row belongs to when it is compared by a metric."""
    return Family(
        data=result.data.name,
        task=result.task,
        protocol=f"{result.protocol.id} v{result.protocol.version}",
        label_fraction=result.label_fraction,
        manifest_sha256=result.data.manifest_sha256,
        split_sha256=result.data.split_sha256,
        metric=metric,
    )
