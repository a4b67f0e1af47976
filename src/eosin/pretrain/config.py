"""The settings of a pre-training run."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from eosin import plugins
from eosin.engine.precision import Precision
from eosin.errors import UsageError
from eosin.images.views import Views
from eosin.methods._base import MethodConfig


@dataclass(frozen=True, kw_only=True)
class Config:
    """Pre-trains an encoder on tiles without labels."""

    method: MethodConfig
    """Settings of the method."""
    data: tuple[str | Path, ...] = ()
    """Tile stores, image folders (nested or not) and HDF5 files; exported stores also by URL."""
    data_weights: tuple[float, ...] = ()
    """Share of each of --data; by default its share of the tiles."""
    out: Path = Path("runs/pretrain")
    """Folder of the run: config, log, checkpoints and the exported encoder."""
    encoder: str = ""
    """Encoder to train from scratch: resnet18, vit_small_patch16, timm/NAME and so on."""
    init: str = ""
    """Encoder to continue from instead: a released name or a folder."""
    batch_size: int = 256
    """Tiles per update."""
    epochs: float = 100.0
    """How often every tile is seen."""
    tiles_seen: int | None = None
    """Length of the run in tiles, instead of --epochs: 256,000,000 is the paper's."""
    seed: int = 0
    """Seed of the initial weights, of the order of tiles and of the views."""
    workers: int | None = None
    """Threads that read tiles and make views; one per core, at most 8, if not given."""
    threads: int = 0
    """Threads of the training process on a CPU; 0 leaves PyTorch's choice."""
    precision: Precision = "auto"
    """Number format: bf16 where the hardware has it, or fp32."""
    checkpoint_every: int = 200
    """Updates between checkpoints."""
    log_every: int = 20
    """Updates between lines of the log."""

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 2.")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"--workers is {self.workers}; it must be 0 or more.")
        if self.epochs <= 0 or (self.tiles_seen is not None and self.tiles_seen <= 0):
            raise UsageError("--epochs and --tiles-seen must be above 0.")
        if self.data_weights and len(self.data_weights) != len(self.data):
            raise UsageError(
                f"--data-weights has {len(self.data_weights)} values, --data {len(self.data)}."
            )

    @property
    def method_module(self) -> ModuleType:
        """The plug-in that the method's settings belong to."""
        return sys.modules[type(self.method).__module__]

    @property
    def method_name(self) -> str:
        """The name of the method."""
        return self.method_module.__name__.rpartition(".")[2]

    def views(self) -> Views:
        """The views that the method makes of a tile.

        Raises:
            InputError: the file of `--method.stain` cannot be used.
        """
        return self.method_module.views(self.method)


def default_config(method: str) -> Config:
    """The settings of a method's own plug-in, by the method's name."""
    module = plugins.load("methods", method)
    return Config(method=module.Config(), encoder=module.ENCODER, out=Path("runs") / method)
