"""Encoders: every module without a leading underscore is a family, with variants() and build()."""

from typing import Any

from eosin import plugins
from eosin.encoders._base import Encoder, EncoderCard
from eosin.errors import UsageError

__all__ = ["Encoder", "EncoderCard", "build_encoder"]


def build_encoder(
    name: str, *, input_px: int | None = None, seed: int | None = None, **model_args: Any
) -> Encoder:
    """Builds an encoder with random weights by its name in any family.

    Args:
        name: such as `resnet18`, `vit_small_patch16` or `timm/<any timm model>`.
        input_px: side of the images it is meant for; the family's default when it is None.
        seed: of the initialisation; the global generator is used when it is None.
        model_args: passed on to timm.

    Raises:
        UsageError: no family has this name.
    """
    if input_px is not None:
        model_args["input_px"] = input_px
    for family in plugins.names("encoders"):
        module = plugins.load("encoders", family)
        if name in module.variants():
            return module.build(name, seed=seed, **model_args)
    raise UsageError(
        f"There is no encoder {name!r}. Names are resnet18, resnet50, vit_tiny_patch16, "
        "vit_small_patch16, vit_small_patch8 and more of their kind, and timm/NAME for any timm "
        "model (timm.list_models() lists them)."
    )
