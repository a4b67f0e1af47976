"""Which sizes of images an encoder takes, and models made to take another."""

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers.hybrid_embed import HybridEmbed
from timm.layers.patch_embed import PatchEmbed
from torch import nn

from eosin.encoders._positions import take_any_size
from eosin.errors import UsageError


def check_size(model: nn.Module, height_px: int, width_px: int, name: str) -> None:
    """Makes sure that a model takes images of this size.

    Raises:
        UsageError: its patches do not divide them, or it takes one size only.
    """
    embed = getattr(model, "patch_embed", None)
    patch = _patch_of(model)
    if patch is None or getattr(embed, "dynamic_img_pad", False):
        return
    if height_px % patch[0] or width_px % patch[1]:
        raise UsageError(
            f"{name} takes images whose sides are multiples of its patches of {patch[0]} px; "
            f"{height_px} x {width_px} px are not."
        )
    only = _pair(getattr(embed, "img_size", None))
    if getattr(embed, "strict_img_size", False) and only not in (None, (height_px, width_px)):
        raise UsageError(
            f"{name} takes images of {only[0]} x {only[1]} px, not {height_px} x {width_px}; "
            "Encoder.at_size makes one for another size where the architecture allows it."
        )


def resize_model(model: nn.Module, side_px: int, name: str) -> Mapping[str, Any]:
    """Makes a model take square images of another size, in place.

    A plain ViT keeps its weights and resizes its position embedding in each forward pass. What else
    timm can resize (EVA, BEiT, Swin, MaxViT) has positions or windows resized once. Convolutional
    networks take any size as they are.

    Returns:
        What changes in the arguments that timm builds the model with.

    Raises:
        UsageError: the model cannot take this size.
    """
    if take_any_size(model):
        check_size(model, side_px, side_px, name)
        return {"dynamic_img_size": True}
    if hasattr(model, "set_input_size"):
        return _resize_once(model, side_px, name)
    if _is_of_one_size(model):
        raise UsageError(
            f"{name} takes images of one size only: timm cannot resize {type(model).__name__}. "
            "Build one for that size, or resize the images."
        )
    check_size(model, side_px, side_px, name)
    return {}


def _resize_once(model: nn.Module, side_px: int, name: str) -> Mapping[str, Any]:
    _check_patches(model, side_px, name)
    try:
        with warnings.catch_warnings():
            # timm resamples Swin's windows by indexing that PyTorch warns of.
            warnings.filterwarnings("ignore", module=r"timm\.layers")
            getattr(model, "set_input_size")(img_size=(side_px, side_px))  # noqa: B009
        _try_one(model, side_px)
    except (AssertionError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"{name} cannot take images of {side_px} px: "
            f"{error or 'timm gives no reason'}. Choose another size, such as a multiple of 64."
        ) from None
    windows = getattr(model, "_model_args", {}).get("window_size")
    if windows is None:
        return {"img_size": side_px}
    return {"img_size": side_px, "window_size": [list(window) for window in windows]}


def _try_one(model: nn.Module, side_px: int) -> None:
    """Embeds one image, since windows that do not divide a stage show only there."""
    copied = copy.deepcopy(model).eval()
    weight = next(copied.parameters())
    image = torch.zeros(1, 3, side_px, side_px, device=weight.device, dtype=weight.dtype)
    with torch.inference_mode():
        copied(image)


def _check_patches(model: nn.Module, side_px: int, name: str) -> None:
    patch = _patch_of(model)
    if patch is not None and (side_px % patch[0] or side_px % patch[1]):
        raise UsageError(
            f"{name} takes images whose sides are multiples of its patches of {patch[0]} px; "
            f"{side_px} px is not."
        )


def _patch_of(model: nn.Module) -> tuple[int, int] | None:
    """Reads what patches images are cut into; None where they overlap or there are none."""
    embed = getattr(model, "patch_embed", None)
    return _pair(embed.patch_size) if isinstance(embed, (PatchEmbed, HybridEmbed)) else None


def _is_of_one_size(model: nn.Module) -> bool:
    config: Any = getattr(model, "pretrained_cfg", {})
    get = config.get if isinstance(config, Mapping) else lambda key: getattr(config, key, None)
    return bool(get("fixed_input_size"))


def _pair(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
