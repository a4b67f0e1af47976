"""Position embeddings of vision transformers at other sizes, resized as they were trained."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Format, PatchEmbed  # pyright: ignore[reportPrivateImportUsage]
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class DINOVisionTransformer(VisionTransformer):
    """timm's ViT with the position-embedding resize of DINO's `interpolate_pos_encoding`.

    The weights have timm's names. At the size that the embedding was made for, both classes
    compute the same; at the size of local crops they differ by up to 0.8 of the embedding's norm.
    """

    def _pos_embed(self, x: Tensor) -> Tensor:
        assert self.cls_token is not None and self.pos_embed is not None
        batch, height, width, dim = x.shape
        tokens = torch.cat([self.cls_token.expand(batch, -1, -1), x.reshape(batch, -1, dim)], 1)
        return self.pos_drop(tokens + resize_pos_embed(self.pos_embed, height, width))


def resizing_as_dino(model: nn.Module) -> nn.Module:
    """Makes a plain timm ViT resize its position embedding as DINO does; others stay as they are.

    Only the layout that DINO trains is meant: a class token, no registers, an absolute embedding.
    """
    is_plain = type(model) is VisionTransformer and model.has_class_token
    if is_plain and model.num_prefix_tokens == 1 and take_any_size(model):
        # timm's factory offers no other class; the layout of the object is the same.
        model.__class__ = DINOVisionTransformer
    return model


def take_any_size(model: nn.Module) -> bool:
    """Makes a ViT of timm take images of any size that its patches divide, with the same weights.

    It does what timm's `dynamic_img_size=True` does, which is only to be had at construction: the
    position embedding, bicubic and antialiased, is resized in each forward pass.

    Returns:
        Whether it takes them; False where the model is none that can.
    """
    is_vit = isinstance(model, VisionTransformer) and type(model.patch_embed) is PatchEmbed
    if not is_vit or model.pos_embed is None:
        return False
    if not model.dynamic_img_size:
        vit: Any = model
        vit.dynamic_img_size = True
        vit.patch_embed.strict_img_size = False
        vit.patch_embed.flatten = False
        vit.patch_embed.output_fmt = Format.NHWC
    return True


def position_resize(model: nn.Module, side_px: int) -> str:
    """Says how images of `side_px` have their positions resized: `dino`, `timm`, or `` for not."""
    if not isinstance(model, VisionTransformer) or model.pos_embed is None:
        return ""
    grid = model.patch_embed.dynamic_feat_size((side_px, side_px))
    if grid == model.patch_embed.grid_size:
        return ""
    return "dino" if isinstance(model, DINOVisionTransformer) else "timm"


def resize_pos_embed(pos_embed: Tensor, height: int, width: int) -> Tensor:
    """Resizes a position embedding [1, 1 + N, D] to a grid of `height` x `width` tokens.

    Bicubic without antialiasing, by a scale factor with 0.1 token added to the target size, which
    shifts the sampled positions a little: `vision_transformer.py` lines 174-194 of the official
    code.
    """
    count = pos_embed.shape[1] - 1
    side = math.isqrt(count)
    if (height, width) == (side, side):
        return pos_embed
    grid = pos_embed[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(
        grid.to(torch.promote_types(grid.dtype, torch.float32)),
        scale_factor=((height + 0.1) / side, (width + 0.1) / side),
        mode="bicubic",
    ).to(pos_embed.dtype)
    return torch.cat([pos_embed[:, :1], grid.permute(0, 2, 3, 1).reshape(1, height * width, -1)], 1)
