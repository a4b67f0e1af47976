"""What DINO does to its networks: no stochastic depth in a teacher, each gradient clipped alone."""

from collections.abc import Sequence

from timm.layers import DropPath  # pyright: ignore[reportPrivateImportUsage]
from torch import nn

from eosin.encoders import Encoder


def has_batch_norm(encoder: Encoder) -> bool:
    """Whether the statistics of a batch enter the encoder's output (utils.py lines 646-651)."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    return any(isinstance(module, kinds) for module in encoder.modules())


def without_drop_path(encoder: Encoder) -> Encoder:
    """Switches stochastic depth off, in place (main_dino.py lines 162-166)."""
    for module in encoder.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return encoder


def clip_each(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Scales down each gradient whose own norm is over `max_norm`; the norms are not joined.

    utils.py lines 132-141. Parameters without a gradient are passed over.
    """
    for parameter in parameters:
        if parameter.grad is not None:
            factor = max_norm / (parameter.grad.norm(2) + 1e-6)
            parameter.grad.mul_(factor.clamp(max=1.0))
