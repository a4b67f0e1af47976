"""Which architecture of timm weights are of, read from their shapes; and models to put them in."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eosin.encoders._base import create_timm_model

# (blocks of each layer, whether they are bottlenecks): the ResNets of He et al. 2016.
_RESNETS: Mapping[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
# (embedding dimension, depth): the name of the size in timm and its attention heads.
_VITS = {
    (192, 12): ("tiny", 3),
    (384, 12): ("small", 6),
    (768, 12): ("base", 12),
    (1024, 24): ("large", 16),
    (1280, 32): ("huge", 16),
    (1536, 24): ("giant", 24),
    (1536, 40): ("giant", 24),
}
# timm has these patch sizes under a name of their own.
_PATCHES = {
    "tiny": (16,),
    "small": (8, 16, 32),
    "base": (8, 16, 32),
    "large": (14, 16, 32),
    "huge": (14,),
}
# The only ViTs of timm whose MLP is a SwiGLU; other sizes are made from them by arguments.
_SWIGLU, _SWIGLU_WITH_REGISTERS = "vit_giant_patch14_dinov2", "vit_giant_patch14_reg4_dinov2"


def create_without_weights(architecture: str, model_args: Mapping[str, Any]) -> nn.Module:
    """Creates a timm model whose weights must all be loaded: they are whatever memory held.

    Random weights of a billion parameters take longer to draw than the real ones to read.

    Raises:
        InputError: timm has no such architecture.
    """
    with torch.device("meta"):
        empty = create_timm_model(architecture, model_args)
    computed = {key for key, _ in empty.named_buffers()} - empty.state_dict().keys()
    if computed:  # at construction, and in no file
        return create_timm_model(architecture, model_args)
    model = empty.to_empty(device="cpu")
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):  # which old files lack
            buffer.zero_()
    return model


def names_of_weights(architecture: str, model_args: Mapping[str, Any]) -> set[str]:
    """Gives the names of an architecture's weights and running statistics.

    Raises:
        InputError: timm has no such architecture.
    """
    with torch.device("meta"):
        return set(create_timm_model(architecture, model_args).state_dict())


def infer_architecture(
    tensors: Mapping[str, Tensor], heads: Mapping[int, int] | None = None
) -> tuple[str, dict[str, Any]] | None:
    """Gives timm's name of an architecture and the arguments that weights need.

    Args:
        tensors: weights by timm's names, without a classifier.
        heads: attention heads by embedding dimension, where they are not timm's; shapes do not
            tell them.

    Returns:
        None where the architecture has no name in timm, or one that shapes do not tell.
    """
    if "layer4.0.conv1.weight" in tensors:
        return _resnet(tensors)
    if "blocks.0.norm1.weight" in tensors and "patch_embed.proj.weight" in tensors:
        return _vit(tensors, heads or {})
    return None


def position_args(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Gives the arguments of a ViT that follow from its position embedding and patches.

    `img_size` in pixels, and `no_embed_class` where the class token has no position. Empty where
    there is no square position embedding.
    """
    positions, patches = tensors.get("pos_embed"), tensors.get("patch_embed.proj.weight")
    if positions is None or patches is None or positions.ndim != 3 or patches.ndim != 4:
        return {}
    patch = patches.shape[-1]
    prefix = _prefix_tokens(tensors)
    for with_positions in (prefix, 0):
        count = positions.shape[1] - with_positions
        side = math.isqrt(max(count, 0))
        if side and side * side == count:
            args: dict[str, Any] = {"img_size": side * patch, "dynamic_img_size": True}
            return args if with_positions or not prefix else {**args, "no_embed_class": True}
    return {}


def _prefix_tokens(tensors: Mapping[str, Tensor]) -> int:
    registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
    return registers + int("cls_token" in tensors)


def _resnet(tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]] | None:
    blocks = tuple(_count(tensors, rf"layer{layer}\.(\d+)\.") for layer in (1, 2, 3, 4))
    name = _RESNETS.get((blocks, "layer1.0.conv3.weight" in tensors))
    # Wide ResNets, ResNeXts and those for small images have the same names.
    plain = {"conv1.weight": (64, 3, 7, 7), "layer1.0.conv2.weight": (64, 64, 3, 3)}
    is_plain = all(
        key in tensors and tuple(tensors[key].shape) == shape for key, shape in plain.items()
    )
    return (name, {}) if name is not None and is_plain else None


def _vit(
    tensors: Mapping[str, Tensor], heads: Mapping[int, int]
) -> tuple[str, dict[str, Any]] | None:
    dim, channels, patch, width = tensors["patch_embed.proj.weight"].shape
    depth = _count(tensors, r"blocks\.(\d+)\.")
    positions = position_args(tensors)
    if (dim, depth) not in _VITS or not positions or channels != 3 or patch != width:
        return None
    size, own_heads = _VITS[dim, depth]
    expansion, contraction = (tensors[f"blocks.0.mlp.fc{i}.weight"] for i in (1, 2))
    args: dict[str, Any] = {**positions}
    if heads.get(dim, own_heads) != own_heads:
        args["num_heads"] = heads[dim]
    if "reg_token" in tensors:
        args["reg_tokens"] = tensors["reg_token"].shape[1]
    if "blocks.0.attn.qkv.bias" not in tensors:
        args["qkv_bias"] = False
    if "fc_norm.weight" in tensors or "cls_token" not in tensors:
        args["global_pool"] = "avg"
        args["fc_norm"] = "fc_norm.weight" in tensors
    if "cls_token" not in tensors:
        args["class_token"] = False
    if contraction.shape[1] * 2 == expansion.shape[0]:
        base = _SWIGLU_WITH_REGISTERS if "reg_token" in tensors else _SWIGLU
        args |= {"embed_dim": dim, "depth": depth, "num_heads": heads.get(dim, own_heads)}
        args |= {"mlp_ratio": _ratio(expansion, dim), "patch_size": patch}
        args.setdefault("no_embed_class", False)
        return base, args
    if "blocks.0.ls1.gamma" in tensors:
        args["init_values"] = 1e-5
    if size == "giant" or expansion.shape[0] != contraction.shape[1]:
        return None
    if expansion.shape[0] != 4 * dim:
        args["mlp_ratio"] = _ratio(expansion, dim)
    named = patch if patch in _PATCHES[size] else _PATCHES[size][0]
    if named != patch:
        args["patch_size"] = patch
    return f"vit_{size}_patch{named}_224", args


def _ratio(expansion: Tensor, dim: int) -> float:
    """The ratio of which timm's product, rounded down, is the number of hidden features."""
    hidden = expansion.shape[0]
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    found = (re.match(pattern, key) for key in tensors)
    return max((int(match[1]) + 1 for match in found if match is not None), default=0)
