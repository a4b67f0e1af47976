"""Any model of timm by its name: `timm/<name>`, with its own normalisation and input size."""

from typing import Any

import timm
from timm.data.config import resolve_model_data_config

from eosin.encoders._base import Encoder, EncoderCard, create_timm_model, pooling_of
from eosin.encoders.vit import is_vit, resizing_as_dino

_PREFIX = "timm/"


def variants() -> tuple[str, ...]:
    """Names that `build` takes."""
    return tuple(f"{_PREFIX}{name}" for name in timm.list_models())


def build(
    name: str, *, input_px: int | None = None, seed: int | None = None, **model_args: Any
) -> Encoder:
    """Builds a timm model with random weights; pre-trained ones need an explicit download.

    Args:
        name: `timm/<name>`, such as `timm/resnet26d`.
        input_px: side of the images it is meant for; by default what timm says.
        seed: of the initialisation; the global generator is used when it is None.
        model_args: passed on to timm.
    """
    architecture = name.removeprefix(_PREFIX)
    if input_px is not None:
        model_args = {**_size_args(architecture, input_px), **model_args}
    model = create_timm_model(architecture, model_args, seed)
    config = resolve_model_data_config(model)
    card = EncoderCard(
        name=name,
        architecture=architecture,
        model_args={key: value for key, value in model_args.items() if key != "drop_path_rate"},
        input_px=input_px or int(config["input_size"][-1]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        pooling=pooling_of(model),
        interpolation=str(config["interpolation"]),
    )
    return Encoder(resizing_as_dino(model), card)


def _size_args(architecture: str, input_px: int) -> dict[str, Any]:
    """What tells this architecture its input size; convolutional networks take any."""
    if not timm.is_model(architecture):
        return {}  # create_timm_model explains it
    if is_vit(architecture):
        return {"img_size": input_px, "dynamic_img_size": True}
    config = timm.get_pretrained_cfg(architecture)
    return {"img_size": input_px} if config is not None and config.fixed_input_size else {}
