"""Barlow Twins: two views' embeddings agree, and their dimensions do not repeat one another.

Zbontar et al. 2021, arXiv 2103.03230; constants from main.py of the official code at 8e8d284, and
from VISSL at 09270ed2, whose settings are in barlow_twins_4node_resnet.yaml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.encoders.resnet import is_resnet
from eosin.engine.batch_norm import synchronise
from eosin.engine.schedules import Schedule, constant, cosine, warmup_cosine
from eosin.errors import UsageError
from eosin.images import presets
from eosin.images.views import Views
from eosin.methods._base import Loss, Method, MethodConfig, Plan, refuse_accumulation
from eosin.methods._cross_correlation import barlow_twins_loss
from eosin.methods._heads import barlow_projector

ENCODER = "resnet50"
"""The encoder of the paper."""


def encoder_args(name: str) -> dict[str, Any]:
    """How the paper builds its encoder beyond the defaults (main.py line 191)."""
    return {"zero_init_last": True} if is_resnet(name) else {}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Settings of Barlow Twins; the defaults are those of the official code."""

    optimizer: Literal["lars", "adamw"] = "lars"
    """LARS is the paper's; AdamW suits runs of a few hundred updates."""
    view_px: int = 224
    """Side of both views."""
    scale: tuple[float, float] | None = None
    """Share of the tile's area that a view covers, least and most, instead of the preset's."""
    projector: tuple[int, ...] = (8192, 8192, 8192)
    """Widths of the projector's layers (main.py line 41)."""
    lambd: float = 0.0051
    """Weight of the redundancy term, off-diagonal (main.py line 39)."""
    loss_scale: float = 1.0
    """Factor of the loss; VISSL has 0.024 (line 76) and one learning rate for all parameters."""
    lr_per_256: float = 0.2
    """Learning rate of weights for a batch of 256; scaled linearly (main.py lines 33 and 158)."""
    lr_biases_per_256: float = 0.0048
    """Learning rate of biases and BatchNorm for a batch of 256, used by LARS (main.py line 35)."""
    reference_world_size: int = 32
    """Processes of the published run, whose gradient is the true one divided by their number.

    The published settings hold for that gradient. With LARS, ours, the true one, therefore has the
    learning rate of biases and BatchNorm divided by this number, and the weight decay that LARS
    adds to the gradient of weights multiplied with it: the updates are those of the published run.
    The paper has 32 GPUs (section 2.2), and so has VISSL; the README of the official code names 16
    for the same command. 1 takes the settings as they are.
    """
    final_lr: float = 0.001
    """Share of the learning rate that is left at the end (main.py line 165); VISSL has 0.01."""
    warmup: float = 0.01
    """Share of the run that warms up: 10 of 1,000 epochs (main.py lines 29 and 157)."""
    warmup_from: float = 0.0
    """Share of the learning rate at the first update; VISSL has that of one node's batch, 0.25."""
    cosine_from_start: bool = False
    """Whether the cosine counts from the first update, as in VISSL (line 101), or the warm-up."""
    weight_decay: float = 1e-6
    """Weight decay; biases and BatchNorm have none (main.py lines 37 and 100)."""
    zero_init_last: bool = True
    """Whether the last BatchNorm of a block starts at 0 (main.py line 191); VISSL: at 1."""
    bn_ranks: int = 0
    """Processes that share BatchNorm statistics; 0 for all, 1 for none. VISSL has 8 (line 68)."""
    joint_views: bool = False
    """Whether BatchNorm takes both views as one batch, as in VISSL, or one view at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.projector or min(self.projector) < 1:
            raise UsageError(f"--method.projector is {self.projector}; it needs positive widths.")
        for name in ("warmup", "warmup_from"):
            value, option = getattr(self, name), name.replace("_", "-")
            if not 0 <= value < 1:
                raise UsageError(f"--method.{option} is {value}; it is a share, 0 to below 1.")
        if self.reference_world_size < 1:
            raise UsageError(
                f"--method.reference-world-size is {self.reference_world_size}; it is a number of "
                "processes, 1 to take the settings as they are."
            )
        if self.bn_ranks < 0:
            raise UsageError(
                f"--method.bn-ranks is {self.bn_ranks}; it is a number of processes, 0 for all."
            )
        if self.loss_scale <= 0:
            raise UsageError(f"--method.loss-scale is {self.loss_scale}; it must be above 0.")


PRESETS = {
    "official": Config(),
    # barlow_twins_4node_resnet.yaml: SyncBN, lines 65-68, loss, 72-77, optimizer, 78-102. The
    # warm-up starts where 0.2 per 256 puts the 512 tiles of one node, a quarter of 2048, and not at
    # the 0.0 of line 95 (hydra_config.py lines 243-252). Both views are one batch to the network
    # (simclr_collator.py lines 51-56) and to the loss. Residual blocks: defaults.yaml line 666.
    # The gradient is divided by the 32 processes here too (barlow_twins_loss.py line 140).
    "vissl": Config(
        views="vissl",
        loss_scale=0.024,
        lr_biases_per_256=0.2,
        final_lr=0.01,
        warmup_from=0.25,
        cosine_from_start=True,
        zero_init_last=False,
        bn_ranks=8,
        joint_views=True,
    ),
    "pathology": Config(views="pathology"),
}
"""The official settings, VISSL's, and the official ones with views for tissue."""


def lr_notes(config: Config, plan: Plan) -> list[str]:
    """Says how the learning rates, and the weight decay, follow from the settings and the batch."""
    batch, reference = f"{plan.batch_size}/256", _reference(config)
    published = f"{reference} processes of the published run"
    biases = _biases_per_256(config)
    decay = f"{config.weight_decay:g}"
    if reference > 1:
        decay += f" x {published} = {config.weight_decay * reference:.6g}"
    return [
        f"weights: {config.lr_per_256:g} x {batch} = {_peak(config.lr_per_256, plan):.6g}, "
        f"with a weight decay of {decay}",
        f"biases and BatchNorm: {biases:g} x {batch}{f' / {published}' * (reference > 1)} = "
        f"{_peak(biases, plan) / reference:.6g}",
    ]


def _peak(per_256: float, plan: Plan) -> float:
    return per_256 * plan.batch_size / 256


def _biases_per_256(config: Config) -> float:
    return config.lr_biases_per_256 if config.optimizer == "lars" else config.lr_per_256


def _reference(config: Config) -> int:
    """Processes whose number divides the published gradient; to AdamW its size is the same."""
    return config.reference_world_size if config.optimizer == "lars" else 1


def views(config: Config) -> Views:
    """Two views, which differ in blur and solarisation."""
    scale = {} if config.scale is None else {"scale": config.scale}
    preset = config.adapted(presets.barlow_twins(config.views))
    return preset.changed(size_px=config.view_px, **scale)


def build(config: Config, encoder: Encoder, plan: Plan) -> "BarlowTwins":
    """Builds the method around an encoder.

    Raises:
        UsageError: micro-batches, or a number of processes that `bn_ranks` does not divide.
    """
    refuse_accumulation(plan, "Barlow Twins")
    if not config.zero_init_last:
        _start_at_one(encoder)
    method = BarlowTwins(config, encoder, plan)
    synchronise(method, config.bn_ranks)
    return method


def _start_at_one(encoder: nn.Module) -> None:
    """Undoes `zero_init_last`; what was trained is no longer zero and stays as it is."""
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine and not module.weight.any():
            nn.init.ones_(module.weight)


class BarlowTwins(Method):
    """Barlow Twins around an encoder."""

    def __init__(self, config: Config, encoder: Encoder, plan: Plan) -> None:
        super().__init__()
        self.config: Config = config
        self.plan = plan
        self.encoder = encoder
        self.projector = barlow_projector(encoder.embed_dim, config.projector)

    def views(self) -> Views:
        """The views of the settings."""
        return views(self.config)

    def param_groups(self) -> list[dict[str, Any]]:
        """Weights, and biases with BatchNorm, which LARS neither decays nor adapts."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [
            {"name": "weights", "params": [p for p in parameters if p.ndim > 1], "adapt": True},
            {"name": "biases", "params": [p for p in parameters if p.ndim <= 1], "adapt": False},
        ]

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """Warm-up and cosine for both learning rates (main.py lines 155-168).

        LARS gives weights the same update whatever factor the gradient has, as long as the weight
        decay has it too; what it excludes feels the factor, see `Config.reference_world_size`.
        """
        config, reference = self.config, _reference(self.config)
        biases = _biases_per_256(config) / reference
        return {
            "weights": {
                "lr": self._lr(config.lr_per_256),
                "weight_decay": constant(config.weight_decay * reference),
            },
            "biases": {"lr": self._lr(biases)},
        }

    def _lr(self, per_256: float) -> Schedule:
        config, updates = self.config, self.plan.updates
        peak = _peak(per_256, self.plan)
        start, end = peak * config.warmup_from, peak * config.final_lr
        warmup = round(config.warmup * updates)
        schedule = warmup_cosine(peak, end, updates, warmup, start=start, through_peak=False)
        if not config.cosine_from_start:
            return schedule
        whole = cosine(peak, end, updates)
        return lambda update: schedule(update) if update < warmup else whole(update)

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """The loss of two normalised views [B, 3, S, S].

        As in the paper, each passes the encoder on its own and BatchNorm sees one view at a time,
        unless the settings join them. The parts of the loss are without `loss_scale`.
        """
        joint = self.config.joint_views
        if joint:
            first, second = self.projector(self.encoder.embed(torch.cat(list(views)))).chunk(2)
        else:
            first, second = (self.projector(self.encoder.embed(view)) for view in views)
        loss = barlow_twins_loss(first, second, self.config.lambd, joint=joint)
        return Loss(total=loss.total * self.config.loss_scale, parts=loss.parts)

    def export_encoder(self) -> Encoder:
        """The trained encoder."""
        return self.encoder
