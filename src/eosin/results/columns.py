"""What two numbers must share to stand side by side."""

from dataclasses import dataclass

from eosin.results.schema import Result


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


def family_of(result: Result) -> Family:
    """Gives the family that a row belongs to."""
    return Family(
        data=result.data.name,
        task=result.task,
        protocol=f"{result.protocol.id} v{result.protocol.version}",
        label_fraction=result.label_fraction,
        manifest_sha256=result.data.manifest_sha256,
        split_sha256=result.data.split_sha256,
    )
