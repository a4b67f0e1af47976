"""What the user of `eosin audit` says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from eosin.audit.duplicates import CORRELATION
from eosin.datasets._base import Options
from eosin.embeddings import extract
from eosin.errors import UsageError

DEFAULT_ENCODER = "random/resnet18"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which datasets are audited, and against what."""

    on: tuple[Path, ...]
    """Folders of labelled data sets, or names of those below EOSIN_DATA."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder for audit.json, sheets of the closest pairs, and embeddings."""
    store: tuple[str, ...] = ()
    """Tile stores or folders of images that encoders were pre-trained on."""
    encoder: str | None = None
    """Folder of an exported encoder, or a name, whose score is explained; random/resnet18 where
    none is given."""
    dataset: str | None = None
    """Name of the dataset's layout, where its content does not tell."""
    grouping: Annotated[Options, tyro.conf.OmitArgPrefixes] = field(default_factory=Options)
    correlation: float = CORRELATION
    """Agreement of fine structure from which two images are near-duplicates."""
    scores: bool = True
    """Measure with probes what colour and leaks add to a score, which needs embeddings."""
    probe_images: int = 20_000
    """Images of each split that probes see at most, drawn at random by whole groups."""
    seed: int = 0
    """Seed of what is drawn."""
    embedding: Annotated[extract.Config, tyro.conf.OmitArgPrefixes] = field(
        default_factory=extract.Config
    )

    def __post_init__(self) -> None:
        """Refuses values that make no sense."""
        if not self.on:
            raise UsageError("Give at least one dataset with --on.")
        if len(self.on) > 1 and (self.grouping.groups or self.dataset):
            raise UsageError("--groups and --dataset are for one dataset; give --on one folder.")
        for option, given in (
            ("--on", [each.resolve() for each in self.on]),
            ("--store", self.store),
        ):
            if len(set(given)) < len(given):
                raise UsageError(f"{option} names the same folder twice; give each once.")
        if not 0 < self.correlation < 1:
            raise UsageError(f"--correlation {self.correlation} must lie between 0 and 1.")
        if self.probe_images < 10:
            raise UsageError(f"--probe-images {self.probe_images} must be at least 10.")
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed} must be 0 or more.")
        if self.encoder is not None and not self.scores:
            raise UsageError("--encoder is of no effect with --no-scores; leave one of them out.")
