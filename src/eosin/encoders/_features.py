"""Tokens on their grid, and feature maps of four levels, of any timm model."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from eosin.encoders import _pooling
from eosin.errors import UsageError

LEVELS = 4


def token_map(model: nn.Module, images: Tensor) -> Tensor:
    """Gives the normalised patch tokens, or positions, of images [B, 3, H, W] as [B, D, h, w].

    Raises:
        UsageError: timm does not give the grid of this model's tokens.
    """
    found: Any = _intermediates(model)(images, indices=1)
    features, last = found[0], found[1][-1]
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise UsageError(f"{type(model).__name__} of timm has no single sequence of tokens.")
    height, width = _grid(model, features, last)
    tokens = _pooling.normalised(model, _pooling.patches(model, features))
    if tokens.shape[1] != height * width:
        raise UsageError(f"timm does not say which tokens of {type(model).__name__} are patches.")
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def _grid(model: nn.Module, features: Tensor, last: Tensor) -> tuple[int, int]:
    """Rows and columns of features, which for a sequence only a map tells."""
    if features.ndim == 3:
        return last.shape[-2], last.shape[-1]
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return features.shape[1], features.shape[2]
    return features.shape[2], features.shape[3]


def feature_maps(
    model: nn.Module, images: Tensor, name: str, *, finest: bool = False
) -> list[Tensor]:
    """Gives maps [B, C, h, w] of the levels that `levels` names, finest first."""
    indices = list(levels(model, name, finest=finest))
    return _intermediates(model)(images, indices=indices, intermediates_only=True)


def levels(model: nn.Module, name: str, *, finest: bool = False) -> Mapping[int, Mapping[str, Any]]:
    """Chooses four levels of a model: their indices and what timm says of each.

    Where all have one stride (a ViT) these are blocks evenly spaced up to the last: 3, 6, 9 and 12
    of 12. Elsewhere the last four, or the finest four of which each is half as large as the one
    before.

    Raises:
        UsageError: there are fewer than four.
    """
    info: Any = getattr(model, "feature_info", None)
    every: list[Mapping[str, Any]] = list(getattr(info, "info", info) or ())
    if len(every) < LEVELS:
        raise UsageError(
            f"{name} has no four feature maps: timm names {len(every)} levels of "
            f"{type(model).__name__}."
        )
    count = len(every)
    if len({level["reduction"] for level in every}) == 1:
        indices = [count * (level + 1) // LEVELS - 1 for level in range(LEVELS)]
    else:
        doubling = [first for first in range(count - LEVELS) if _doubles(every[first:])]
        first = doubling[0] if finest and doubling else count - LEVELS
        indices = list(range(first, first + LEVELS))
    return {index: every[index] for index in indices}


def _doubles(every: Sequence[Mapping[str, Any]]) -> bool:
    strides = [level["reduction"] for level in every[:LEVELS]]
    return all(coarser == 2 * finer for finer, coarser in pairwise(strides))


def _intermediates(model: nn.Module) -> Any:
    if not hasattr(model, "forward_intermediates"):
        raise UsageError(f"{type(model).__name__} of timm gives no feature maps.")
    return getattr(model, "forward_intermediates")  # noqa: B009
