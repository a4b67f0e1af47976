"""What the user of `eosin embed` says: which encoder embeds what, and what becomes of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from eosin.embeddings import extract
from eosin.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which encoder embeds what, and where the embeddings go."""

    encoder: Annotated[str, tyro.conf.Positional]
    """A folder with an exported encoder, or a name that `eosin.load_encoder` takes."""
    data: tuple[str, ...]
    """Tile stores, folders of images, lists of images, HDF5 files or labelled datasets."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the embeddings; the same command on it goes on where it was stopped."""
    layout: Literal["matrix", "trident"] = "matrix"
    """matrix: one safetensors file with Parquet rows; trident: an HDF5 file a slide, as tools for
    whole slides read them."""
    dataset: str | None = None
    """Layout that labels are read by (folder: one folder a class), where the content does not
    tell."""
    pooling: str | None = None
    """How tokens become one vector: cls, mean or cls+mean; by default the encoder's own way."""
    dtype: Literal["float32", "float16"] = "float32"
    """Number format of the files."""
    limit: int | None = None
    """Only the first so many images; with the trident layout, whole slides until there are as
    many."""
    max_unreadable: float = 0.05
    """Share of the images that may be unreadable; with more of them, the run stops."""
    ray: str | None = None
    """Work on a Ray cluster: its address, or auto for the one that this machine belongs to."""
    plan: bool = False
    """Only say how many embeddings there would be, how large, and how long it would take."""
    embedding: Annotated[extract.Config, tyro.conf.OmitArgPrefixes] = field(
        default_factory=extract.Config
    )

    def __post_init__(self) -> None:
        """Refuses values that make no sense."""
        if not self.data:
            raise UsageError("--data is missing; give tile stores, folders of images or files.")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} must be at least 1.")
        if not 0 <= self.max_unreadable <= 1:
            raise UsageError(f"--max-unreadable {self.max_unreadable} must be between 0 and 1.")
