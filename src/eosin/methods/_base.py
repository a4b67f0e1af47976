"""The contract of a self-supervised method; the training loop calls it in this order.

A module of this folder has `Config`, `PRESETS` (configs by name: `official`, `vissl` and
`pathology`), `views(config)`, `build(config, encoder, plan)`, `ENCODER` (the paper's) and
`encoder_args(name)` (what the paper builds its encoder with).

For each update: schedules, `before_forward`, `forward` (the loss) and its gradient for each
micro-batch, `on_gradients`, the optimizer, `after_update`. An update is one optimizer step. With
several processes each has its share of the tiles; the gradient is the mean over the processes and
their micro-batches, and must be that of one process with the whole batch (see
`eosin.engine.distributed`).
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.engine.optimizers import OptimizerName
from eosin.engine.schedules import Schedule
from eosin.errors import UsageError
from eosin.images.presets import STAIN_P, Preset
from eosin.images.stain import load as load_stain
from eosin.images.views import Views


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The settings that every method has.

    Raises:
        UsageError: a value that makes no sense.
    """

    optimizer: OptimizerName
    """Optimizer; its settings are the method's."""
    views: Preset = "official"
    """Views as published, as in VISSL, or with vertical flips, weak jitter and RandStainNA."""
    vertical_flip: float | None = None
    """Probability of a vertical flip, instead of the preset's; tiles have no up, so 0.5 suits."""
    jitter: tuple[float, float, float, float] | None = None
    """Strengths of brightness, contrast, saturation and hue, instead of the preset's."""
    stain: str = ""
    """What RandStainNA draws from: a file of `eosin stain fit`, or crc-lab, crc-hsv, crc-hed."""
    stain_p: float | None = None
    """Probability of RandStainNA, instead of the preset's, which is 0.5 with a stain."""

    def __post_init__(self) -> None:
        for name in ("vertical_flip", "stain_p"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                option = name.replace("_", "-")
                raise UsageError(f"--method.{option} is {value}; it is a probability, 0 to 1.")
        if self.stain_p and not self.stain and self.views != "pathology":
            raise UsageError("--method.stain-p needs --method.stain, or --method.views pathology.")

    def adapted(self, views: Views) -> Views:
        """The preset's views with what the settings say instead.

        Raises:
            InputError: the stain's file cannot be used.
        """
        changes: dict[str, Any] = {}
        if self.vertical_flip is not None:
            changes["vflip_p"] = self.vertical_flip
        if self.jitter is not None:
            changes["jitter"] = self.jitter
        if self.stain:
            changes |= {"stain": load_stain(self.stain), "stain_p": STAIN_P}
        if self.stain_p is not None:
            changes["stain_p"] = self.stain_p
        return views.changed(**changes)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run is, which schedules need."""

    batch_size: int
    """Tiles per update, over all processes and micro-batches."""
    micro_batches: int = 1
    """Parts that each process's share of an update passes the network in, one after another."""
    updates: int
    """Updates of the whole run."""
    updates_per_epoch: int
    """Updates in which every tile is seen once."""


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A loss to minimise and what to log beside it."""

    total: Tensor
    """The scalar whose gradient is taken."""
    parts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Scalars that explain it."""


def refuse_accumulation(plan: Plan, method: str) -> None:
    """Refuses micro-batches where BatchNorm sees the whole batch, and they would change the method.

    Raises:
        UsageError: the plan has more than one micro-batch; the message says what to do instead.
    """
    if plan.micro_batches > 1:
        raise UsageError(
            f"{method} cannot accumulate gradients over {plan.micro_batches} micro-batches: its "
            "BatchNorm and its loss take the whole batch at once, and in parts it would be another "
            "method. Give a smaller --batch-size (the learning rate follows), or more processes."
        )


class Method(nn.Module, ABC):
    """A self-supervised method around an encoder; its `state_dict` holds all of its state."""

    @abstractmethod
    def views(self) -> Views:
        """The augmented crops of one tile, in the order in which `forward` takes them."""

    @abstractmethod
    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters to optimise, as groups with a `name` that `schedules` refers to."""

    @abstractmethod
    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """For each group by name, a schedule for each setting, such as `lr`."""

    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        """What precedes the forward passes: momentum update of a key encoder, prototype norm.

        Args:
            batch: the views of every micro-batch, as `forward` will get them.
            update: number of the update, counted from 0.
        """

    @abstractmethod
    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """The loss of a micro-batch.

        Args:
            views: one normalised tensor [B, 3, S, S] for each view.
            update: number of the update.
            micro: number of the micro-batch in the update.
        """

    def on_gradients(self, update: int) -> None:
        """What happens to the gradients before the optimizer: clipping, freezing."""

    def after_update(self, update: int) -> None:
        """What follows the optimizer: momentum update of a teacher, centre, queue."""

    @abstractmethod
    def export_encoder(self) -> Encoder:
        """The encoder to keep: the trained one, or the teacher's."""

    def chance_loss(self) -> float | None:
        """The loss of a collapsed model, which every input gives, where the method has one."""
        return None
