"""The settings of a pre-training run."""

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

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
    """Tiles per update, over all processes."""
    micro_batch_size: int | None = None
    """Tiles that a process passes through the network at once, to save memory; all if not given."""
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
    """Number format: bf16 where the hardware has it and fp32 elsewhere, if auto."""
    compile: bool = False
    """Compiles the encoder with torch.compile, which takes a minute or two at the start."""
    checkpoint_every: int = 200
    """Updates between checkpoints."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept, beside the best."""
    log_every: int = 20
    """Updates between lines of the log."""
    most_skipped: int = 10
    """Updates of 100 in a row that may be skipped, since their loss was not finite."""
    monitor_every: int | None = None
    """Updates between looks at the embeddings; as --checkpoint-every if not given."""
    monitor_on: Path | None = None
    """Folder of a labelled data set, for a kNN and a linear score on the way."""
    monitor_groups: Path | None = None
    """CSV with the patient, slide or source image of each of its files, as for eosin evaluate."""
    monitor_images: int = 2000
    """Images of it that are used at most, of either part."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Where metrics go beside log.jsonl."""
    plan: bool = False
    """Prints the plan with a measured warm-up, and writes nothing."""

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise UsageError(f"--batch-size is {self.batch_size}; it must be at least 2.")
        if self.workers is not None and self.workers < 0:
            raise UsageError(f"--workers is {self.workers}; it must be 0 or more.")
        if self.micro_batch_size is not None and self.micro_batch_size < 2:
            raise UsageError(
                f"--micro-batch-size is {self.micro_batch_size}; it must be at least 2."
            )
        for name in ("checkpoint_every", "keep_checkpoints", "log_every", "monitor_every"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
        measured = self.monitor_every or self.checkpoint_every
        if self.monitor_on is not None and measured % self.checkpoint_every:
            raise UsageError(
                f"--monitor-every {measured} must be a multiple of --checkpoint-every "
                f"{self.checkpoint_every} with --monitor-on, so that the best can be kept."
            )
        if self.monitor_images < 2:
            raise UsageError(f"--monitor-images is {self.monitor_images}; it must be at least 2.")
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


def preset_config(name: str) -> Config:
    """The settings of a method's preset, by the names of both: `dino/vissl`; `dino` is official.

    Raises:
        UsageError: there is no such method or preset.
    """
    method, _, preset = name.partition("/")
    module = plugins.load("methods", method)
    presets = getattr(module, "PRESETS", {"official": module.Config()})
    if (preset or "official") not in presets:
        raise UsageError(f"{method} has no preset {preset!r}; it has {', '.join(presets)}.")
    out = Path("runs") / name.replace("/", "_")
    return Config(method=presets[preset or "official"], encoder=module.ENCODER, out=out)
