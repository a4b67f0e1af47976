"""ResNets of timm, randomly initialised; He et al. 2016, arXiv 1512.03385."""

from typing import Any

from timm.models import is_model_in_modules

from eosin.encoders._base import Encoder, EncoderCard, create_timm_model

_ARCHITECTURES = ("resnet10t", "resnet14t", "resnet18", "resnet34", "resnet50", "resnet101")


def variants() -> tuple[str, ...]:
    """Names that `build` takes."""
    return _ARCHITECTURES


def is_resnet(name: str) -> bool:
    """Whether a name, ours or timm's with or without `timm/`, is a ResNet or a variant of it."""
    return is_model_in_modules(name.removeprefix("timm/"), ["resnet", "resnetv2"])


def build(name: str, *, input_px: int = 224, seed: int | None = None, **model_args: Any) -> Encoder:
    """Builds a ResNet with random weights.

    Args:
        name: one of `variants()`.
        input_px: side of the images it is meant for; a ResNet takes any size.
        seed: of the initialisation; the global generator is used when it is None.
        model_args: passed on to timm. `zero_init_last` sets the last BatchNorm of each block to
            zero: timm's default and Barlow Twins' choice; MoCo and SwAV train without it.
    """
    model = create_timm_model(name, model_args, seed)
    card = EncoderCard(name=name, architecture=name, model_args=model_args, input_px=input_px)
    return Encoder(model, card)
