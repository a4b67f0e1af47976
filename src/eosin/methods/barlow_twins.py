"""Barlow Twins: two views' embeddings agree, and their dimensions do not repeat one another.

Zbontar et al. 2021, arXiv 2103.03230; constants from main.py of the official code at 8e8d284.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.engine.schedules import Schedule, warmup_cosine
from eosin.errors import UsageError
from eosin.images.views import Views, ViewSpec
from eosin.methods._base import Loss, Method, MethodConfig, Plan
from eosin.methods._heads import barlow_projector

ENCODER = "resnet50"
"""The encoder of the paper."""


def encoder_args(name: str) -> dict[str, Any]:
    """How the paper builds its encoder beyond the defaults (main.py line 191)."""
    return {"zero_init_last": True} if "resnet" in name else {}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Settings of Barlow Twins; the defaults are those of the official code."""

    optimizer: Literal["lars", "adamw"] = "lars"
    """LARS is the paper's; AdamW suits runs of a few hundred updates."""
    view_px: int = 224
    """Side of both views."""
    vertical_flip: float = 0.0
    """Probability of a vertical flip; 0.5 suits tiles, which have no up."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the tile's area that a view covers, least and most."""
    projector: tuple[int, ...] = (8192, 8192, 8192)
    """Widths of the projector's layers."""
    lambd: float = 0.0051
    """Weight of the redundancy term (off-diagonal)."""
    lr_per_256: float = 0.2
    """Learning rate of weights for a batch of 256; scaled linearly."""
    lr_biases_per_256: float = 0.0048
    """Learning rate of biases and BatchNorm for a batch of 256, used by LARS."""
    final_lr: float = 0.001
    """Share of the learning rate that is left at the end."""
    warmup: float = 0.01
    """Share of the run that warms up: 10 of 1,000 epochs."""
    weight_decay: float = 1e-6
    """Weight decay; biases and BatchNorm have none."""

    def __post_init__(self) -> None:
        if not self.projector or min(self.projector) < 1:
            raise UsageError(f"--method.projector is {self.projector}; it needs positive widths.")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"--method.warmup is {self.warmup}; it is a share of the run, 0 to 1.")


def views(config: Config) -> Views:
    """Two views, which differ in blur and solarisation (main.py lines 290-321)."""
    first, second = (
        ViewSpec(
            size_px=config.view_px,
            scale=config.scale,
            hflip_p=0.5,
            vflip_p=config.vertical_flip,
            jitter=(0.4, 0.4, 0.2, 0.1),
            jitter_p=0.8,
            grayscale_p=0.2,
            blur_p=blur_p,
            solarize_p=solarize_p,
        )
        for blur_p, solarize_p in ((1.0, 0.0), (0.1, 0.2))
    )
    return Views((first, second))


def build(config: Config, encoder: Encoder, plan: Plan) -> "BarlowTwins":
    """Builds the method around an encoder."""
    return BarlowTwins(config, encoder, plan)


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
        """Warm-up and cosine for both learning rates (main.py lines 155-168)."""
        config = self.config
        biases = config.lr_biases_per_256 if config.optimizer == "lars" else config.lr_per_256
        return {
            "weights": {"lr": self._lr(config.lr_per_256), "weight_decay": _same(config)},
            "biases": {"lr": self._lr(biases)},
        }

    def _lr(self, per_256: float) -> Schedule:
        peak = per_256 * self.plan.batch_size / 256
        updates = self.plan.updates
        return warmup_cosine(
            peak,
            peak * self.config.final_lr,
            updates,
            round(self.config.warmup * updates),
            through_peak=False,
        )

    def forward(self, views: Sequence[Tensor], update: int) -> Loss:
        """The loss of two normalised views [B, 3, S, S]; each passes the encoder on its own.

        As in the paper, BatchNorm sees one view at a time.
        """
        first, second = (self.projector(self.encoder.embed(view)) for view in views)
        return barlow_twins_loss(first, second, self.config.lambd)

    def export_encoder(self) -> Encoder:
        """The trained encoder."""
        return self.encoder


def _same(config: Config) -> Schedule:
    return lambda update: config.weight_decay


def barlow_twins_loss(first: Tensor, second: Tensor, lambd: float) -> Loss:
    """Computes equation 1 on the projections of two views, in float32.

    C = A^T B / N, where A and B are the projections normalised over the batch (mean 0, variance 1,
    epsilon 1e-5); the loss is sum_i (C_ii - 1)^2 + lambd sum_{i != j} C_ij^2. Where the batch is
    smaller than the dimension, the D x D matrix is never formed: its squared norm is the inner
    product of the two N x N Gram matrices, tr(A A^T B B^T) / N^2.

    Args:
        first: projections [N, D].
        second: projections [N, D] of the same tiles' other views.
        lambd: weight of the off-diagonal terms.

    Returns:
        The loss with its parts `on_diagonal` and `off_diagonal` (before the weight).
    """
    with torch.autocast(first.device.type, enabled=False):
        a, b = normalise_over_batch(first.float()), normalise_over_batch(second.float())
        diagonal = (a * b).mean(0)
        norm = _SquaredCorrelation.apply(a, b) if len(a) < a.shape[1] else _direct(a, b)
        on_diagonal = (diagonal - 1).square().sum()
        off_diagonal = norm - diagonal.square().sum()
    total = on_diagonal + lambd * off_diagonal
    return Loss(
        total=total,
        parts={"on_diagonal": on_diagonal.detach(), "off_diagonal": off_diagonal.detach()},
    )


def normalise_over_batch(projections: Tensor) -> Tensor:
    """BatchNorm without affine parameters: biased variance, epsilon 1e-5."""
    return nn.functional.batch_norm(projections, None, None, training=True, eps=1e-5)


def _direct(a: Tensor, b: Tensor) -> Tensor:
    return (a.T @ b / len(a)).square().sum()


class _SquaredCorrelation(torch.autograd.Function):
    """||A^T B / N||_F^2 through N x N matrices, with its gradient.

    d/dA = 2 B B^T A / N^2, and the same with A and B exchanged.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        gram_a, gram_b = a @ a.T, b @ b.T
        ctx.save_for_backward(a, b, gram_a, gram_b)
        return (gram_a * gram_b).sum() / len(a) ** 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        a, b, gram_a, gram_b = ctx.saved_tensors
        factor = 2 * grad / len(a) ** 2
        return gram_b @ a * factor, gram_a @ b * factor
