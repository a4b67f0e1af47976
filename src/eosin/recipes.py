"""Complete pre-training settings, each named after what it runs.

`eosin pretrain RECIPE --data ... --out ...` runs one; every setting can be overridden. The names of
the methods themselves (`barlow_twins`, `dino`) are recipes too: the official defaults.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

from eosin import plugins
from eosin.errors import UsageError
from eosin.methods import barlow_twins, dino
from eosin.pretrain.config import Config, default_config


def barlow_twins_resnet10t_cpu() -> Config:
    """Barlow Twins with a ResNet-10-T on 64-px views, for a computer without a GPU.

    Source: ours, for a few hundred updates: AdamW, a smaller projector, more of each tile in a
    view, stronger jitter. Cost: about 100 s on 2 cores with bfloat16 for 15,360 tiles seen.
    """
    return Config(
        method=barlow_twins.Config(
            optimizer="adamw",
            view_px=64,
            vertical_flip=0.5,
            scale=(0.2, 1.0),
            # Full strength of SimCLR's colour distortion, as SwAV has it: slides of one run come
            # from several laboratories, and what their stains share is not the tissue.
            jitter=(0.8, 0.8, 0.8, 0.2),
            projector=(1024, 1024, 1024),
            lr_per_256=0.004,
            warmup=0.1,
            weight_decay=0.0001,
        ),
        encoder="resnet10t",
        batch_size=64,
        epochs=9,
        out=Path("runs/barlow_twins_resnet10t_cpu"),
    )


def dino_vit_tiny_cpu() -> Config:
    """DINO with a ViT-Ti/16 on 96-px and 48-px crops, for a computer without a GPU.

    Source: ours: the official schedule with a smaller head and fewer local crops. It needs longer
    than a few minutes to learn much. Cost: about 1.7 s on 2 cores with bfloat16 for each 64 tiles.
    """
    return Config(
        method=dino.Config(
            global_px=96,
            local_px=48,
            local_crops=4,
            vertical_flip=0.5,
            out_dim=2048,
            hidden_dim=512,
            bottleneck_dim=128,
            norm_last_layer=False,
            lr_per_256=0.001,
        ),
        encoder="vit_tiny_patch16",
        batch_size=64,
        epochs=5,
        out=Path("runs/dino_vit_tiny_cpu"),
    )


def barlow_twins_resnet50() -> Config:
    """Barlow Twins with a ResNet-50 on 224-px views: the official settings with vertical flips.

    Source: Zbontar et al. 2021, section 2.2. Length: 200 passes over ImageNet's 1,281,167 images,
    which is how the released weights were trained. Meant for GPUs.
    """
    return Config(
        method=barlow_twins.Config(vertical_flip=0.5),
        encoder="resnet50",
        batch_size=2048,
        tiles_seen=200 * 1_281_167,
        out=Path("runs/barlow_twins_resnet50"),
    )


def dino_vit_small_patch16() -> Config:
    """DINO with a ViT-S/16 on 224-px and 96-px crops: the official settings with vertical flips.

    Source: Caron et al. 2021 and the README of its code. Length: 200 passes over ImageNet's
    1,281,167 images, which is how the released weights were trained. Meant for GPUs.
    """
    return Config(
        method=dino.Config(vertical_flip=0.5, norm_last_layer=False),
        encoder="vit_small_patch16",
        batch_size=1024,
        tiles_seen=200 * 1_281_167,
        out=Path("runs/dino_vit_small_patch16"),
    )


def names() -> list[str]:
    """Lists the recipes, the methods with their official defaults among them."""
    return [*plugins.names("methods"), *_functions()]


def load(name: str) -> Config:
    """Gives the settings of a recipe or of a method by name.

    Raises:
        UsageError: there is none of this name.
    """
    functions = _functions()
    if name in functions:
        return functions[name]()
    if name in plugins.names("methods") or ":" in name:
        return default_config(name)
    raise UsageError(f"There is no recipe {name!r}; choose one of: {', '.join(names())}.")


def summary(name: str) -> str:
    """The first line of what a recipe or a method says of itself."""
    functions = _functions()
    described = functions[name] if name in functions else plugins.load("methods", name)
    return (inspect.getdoc(described) or "").splitlines()[0]


def _functions() -> dict[str, Callable[[], Config]]:
    return {
        name: function
        for name, function in globals().items()
        if inspect.isfunction(function)
        and inspect.signature(function).return_annotation is Config
        and not inspect.signature(function).parameters
    }
