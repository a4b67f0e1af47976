"""Barlow Twins: two views' embeddings agree, and their dimensions do not repeat one another.

Zbontar et al. 2021, arXiv 2103.03230; constants from main.py of the official code at 8e8d284.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.encoders.resnet import is_resnet
from eosin.engine.schedules import Schedule, warmup_cosine
from eosin.errors import UsageError
from eosin.images import presets
from eosin.images.views import Views
from eosin.methods._base import Loss, Method, MethodConfig, Plan
from eosin.methods._heads import barlow_projector

_EPSILON = 1e-5  # of BatchNorm
_BLOCK_COLUMNS = 1024

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
        super().__post_init__()
        if not self.projector or min(self.projector) < 1:
            raise UsageError(f"--method.projector is {self.projector}; it needs positive widths.")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"--method.warmup is {self.warmup}; it is a share of the run, 0 to 1.")


def views(config: Config) -> Views:
    """Two views, which differ in blur and solarisation."""
    scale = {} if config.scale is None else {"scale": config.scale}
    preset = config.adapted(presets.barlow_twins(config.views))
    return preset.changed(size_px=config.view_px, **scale)


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

    C = A^T B / N, where A and B are the projections normalised over the batch (mean 0, biased
    variance 1, epsilon 1e-5); the loss is sum_i (C_ii - 1)^2 + lambd sum_{i != j} C_ij^2. Where the
    batch is smaller than the dimension, the D x D matrix is never formed.

    Args:
        first: projections [N, D].
        second: projections [N, D] of the same tiles' other views.
        lambd: weight of the off-diagonal terms.

    Returns:
        The loss with its parts `on_diagonal` and `off_diagonal` (before the weight).
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = first.float(), second.float()
        terms = _TermsByGram.apply if len(first) < first.shape[1] else _terms_directly
        on_diagonal, off_diagonal = terms(first, second)
    return Loss(
        total=on_diagonal + lambd * off_diagonal,
        parts={"on_diagonal": on_diagonal.detach(), "off_diagonal": off_diagonal.detach()},
    )


def _terms_directly(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    a, b = (
        nn.functional.batch_norm(z, None, None, training=True, eps=_EPSILON)
        for z in (first, second)
    )
    correlation = a.T @ b / len(a)
    diagonal = correlation.diagonal()
    return (diagonal - 1).square().sum(), correlation.square().sum() - diagonal.square().sum()


class _TermsByGram(torch.autograd.Function):
    """Both terms of the loss through N x N matrices, in blocks of columns.

    The squared norm of C is the inner product of two Gram matrices, tr(A A^T B B^T) / N^2, with the
    gradient 2 B B^T A / N^2 in A. Given the Gram matrices all else is a matter of single columns,
    so nothing of the size of the projections is kept but their gradients.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        count, dim = first.shape
        gram_a, gram_b = first.new_zeros(2, count, count)
        diagonal = first.new_empty(dim)
        for columns in _blocks(dim):
            (a, _), (b, _) = _standardise(first[:, columns]), _standardise(second[:, columns])
            gram_a.addmm_(a, a.T)
            gram_b.addmm_(b, b.T)
            diagonal[columns] = (a * b).mean(0)
        ctx.save_for_backward(first, second, gram_a, gram_b, diagonal)
        norm = (gram_a * gram_b).sum() / count**2
        return (diagonal - 1).square().sum(), norm - diagonal.square().sum()

    @staticmethod
    def backward(ctx: Any, grad_on: Tensor, grad_off: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        first, second, gram_a, gram_b, diagonal = ctx.saved_tensors
        count, dim = first.shape
        by_diagonal = 2 * (grad_on * (diagonal - 1) - grad_off * diagonal) / count
        factor = 2 * grad_off / count**2
        gram_a, gram_b = gram_a * factor, gram_b * factor
        grads = torch.empty_like(first), torch.empty_like(second)
        for columns in _blocks(dim):
            (a, scale_a), (b, scale_b) = (_standardise(z[:, columns]) for z in (first, second))
            grad_a = torch.addmm(b * by_diagonal[columns], gram_b, a)
            grad_b = torch.addmm(a * by_diagonal[columns], gram_a, b)
            grads[0][:, columns] = _through_standardise(grad_a, a, scale_a)
            grads[1][:, columns] = _through_standardise(grad_b, b, scale_b)
        return grads


def _blocks(dim: int) -> list[slice]:
    return [slice(start, start + _BLOCK_COLUMNS) for start in range(0, dim, _BLOCK_COLUMNS)]


def _standardise(z: Tensor) -> tuple[Tensor, Tensor]:
    """BatchNorm without affine parameters, and the factor that each column was scaled by."""
    centred = z - z.mean(0)
    scale = (centred.square().mean(0) + _EPSILON).rsqrt()
    return centred.mul_(scale), scale


def _through_standardise(grad: Tensor, standardised: Tensor, scale: Tensor) -> Tensor:
    """The gradient before `_standardise`, given the one behind it."""
    along = (grad * standardised).mean(0)
    return (grad - grad.mean(0)).sub_(standardised * along).mul_(scale)
