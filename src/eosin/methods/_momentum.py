"""Momentum encoders: one network as the moving average of another."""

import torch
from torch import nn


@torch.no_grad()
def ema_update(average: nn.Module, current: nn.Module, momentum: float) -> None:
    """Moves the parameters of `average` to momentum * average + (1 - momentum) * current.

    Buffers, such as BatchNorm statistics, are not averaged: each network gathers its own.
    """
    torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage, reportPrivateUsage]
        list(average.parameters()), list(current.parameters()), 1 - momentum
    )
