"""One dataset, by its name or its folder, against what is published of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from eosin.datasets._base import Options, find_dataset, resolve_root
from eosin.datasets._findings import KINDS, Finding
from eosin.datasets._verify import by_kind

_TOLD = 20  # findings of a kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is verified."""

    on: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|FOLDER")]
    """A name that `eosin datasets` lists, or a folder."""
    dataset: str | None = None
    """How the folder lies, if its content does not tell."""
    root: Path | None = None
    """Folder of data sets. By default $EOSIN_DATA, or ./data where that is not set."""
    grouping: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What came out.

    Attributes:
        dataset: name of the dataset.
        root: its folder.
        findings: all deviations.
    """

    dataset: str
    root: Path
    findings: Sequence[Finding]


def verify(config: Config) -> Verified:
    """Verifies a dataset; every image is decoded.

    Raises:
        InputError: it is not there, or its tree is another one altogether.
        UsageError: there is no dataset of that name.
    """
    root = resolve_root(config.on, config.root)
    module = find_dataset(root, config.dataset or _named(config.on, root))
    findings = module.verify(root, config.grouping)
    return Verified(dataset=module.__name__.rpartition(".")[2], root=root, findings=findings)


def lines_of(verified: Verified) -> list[str]:
    """Deviations as lines of text, the first of each kind."""
    place = f"{verified.dataset} in {verified.root}"
    if not verified.findings:
        return [f"{place}: no deviations."]
    lines: list[str] = []
    for kind, found in by_kind(verified.findings).items():
        lines.append(f"{KINDS[kind]} ({len(found):,}):")
        lines += [f"  {each.sentence}" for each in found[:_TOLD]]
        if len(found) > _TOLD:
            lines.append(f"  … {len(found) - _TOLD:,} more; all of them with --json")
    return [*lines, f"{place}: {len(verified.findings):,} deviations."]


def _named(on: str, root: Path) -> str | None:
    """Gives the dataset's name where the user typed that and no path."""
    return on if Path(on) != root else None
