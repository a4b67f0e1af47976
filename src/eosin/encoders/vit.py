"""Vision transformers of timm as DINO trains them (Caron et al. 2021, arXiv 2104.14294)."""

from typing import Any

import torch
from timm.models import is_model_in_modules
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from eosin.encoders._base import Encoder, EncoderCard, create_timm_model
from eosin.encoders._positions import DINOVisionTransformer, resize_pos_embed, resizing_as_dino

__all__ = [
    "DINOVisionTransformer",
    "build",
    "is_vit",
    "resize_pos_embed",
    "resizing_as_dino",
    "variants",
]

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
