"""Vision transformers of timm as DINO trains them (Caron et al. 2021, arXiv 2104.14294)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from timm.models import is_model_in_modules
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from eosin.encoders._base import Encoder, EncoderCard, create_timm_model

_ARCHITECTURES = {
    f"vit_{size}_patch{patch}": f"vit_{size}_patch{patch}_224"
    for size, patches in {"tiny": (16,), "small": (16, 8), "base": (16, 8)}.items()
    for patch in patches
}


def variants() -> tuple[str, ...]:
    """Names that `build` takes."""
    return tuple(_ARCHITECTURES)


def is_vit(name: str) -> bool:
    """Whether a name, ours or timm's with or without `timm/`, is a plain vision transformer."""
    modules = ["vision_transformer", "deit"]
    return name in _ARCHITECTURES or is_model_in_modules(name.removeprefix("timm/"), modules)


def build(name: str, *, input_px: int = 224, seed: int | None = None, **model_args: Any) -> Encoder:
    """Builds a ViT with random weights, initialised and resized as in the official DINO code.

    timm draws the class token with a standard deviation of 1e-6, DINO with 0.02, as the position
    embedding; and the two resize position embeddings differently for crops of other sizes.

    Args:
        name: one of `variants()`.
        input_px: side of the images that the position embedding is made for; others are taken too.
        seed: of the initialisation; the global generator is used when it is None.
        model_args: passed on to timm, such as `drop_path_rate` or `patch_size`.
    """
    architecture = _ARCHITECTURES[name]
    model_args = {"img_size": input_px, "dynamic_img_size": True, **model_args}
    model = create_timm_model(architecture, model_args, seed)
    assert isinstance(model, VisionTransformer)
    _redraw_class_token(model, seed)
    card = EncoderCard(
        name=name,
        architecture=architecture,
        model_args={key: value for key, value in model_args.items() if key != "drop_path_rate"},
        input_px=input_px,
        pooling="cls",
    )
    return Encoder(resizing_as_dino(model), card)


def _redraw_class_token(model: VisionTransformer, seed: int | None) -> None:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    assert model.cls_token is not None
    with torch.no_grad():
        nn.init.trunc_normal_(model.cls_token, std=0.02, generator=generator)


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
    if type(model) is VisionTransformer and model.num_prefix_tokens == 1 and model.has_class_token:
        # timm's factory offers no other class; the layout of the object is the same.
        model.__class__ = DINOVisionTransformer
    return model


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
