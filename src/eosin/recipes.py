"""Complete pre-training settings, each named after what it runs.

`eosin pretrain RECIPE --data ... --out ...` runs one; every setting can be overridden. The methods'
own presets are recipes too: `dino` has the official settings, `dino/vissl` VISSL's, and
`dino/pathology` the official ones with views for pathology.

The recipes of the benchmark's five encoders (Kang et al., CVPR 2023) are a reading of what is known
of it: it was trained with VISSL, so that VISSL's optimisation is taken, with views for pathology,
for 200 passes over ImageNet's 1,281,167 images. Its own tables of hyper-parameters are not public.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from eosin import plugins
from eosin.errors import UsageError
from eosin.methods import barlow_twins, dino, moco_v2, swav
from eosin.methods._base import MethodConfig
from eosin.pretrain.config import Config, preset_config

_PRESETS = {"vissl": "as VISSL has them", "pathology": "official, with views for pathology"}


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


def moco_v2_resnet50() -> Config:
    """MoCo v2 with a ResNet-50 on 224-px views, as the benchmark's encoder. Meant for GPUs.

    Source: VISSL's moco_1node_resnet.yaml (8 GPUs of 32 tiles). MoCo's BatchNorm is each process's
    own: with other numbers of processes keep 32 tiles for each, by --method.bn-splits if need be.
    """
    return _of_benchmark(
        "barlow_twins_resnet10t_cpu", moco_v2.PRESETS["vissl"], "resnet50", batch_size=256
    )


def swav_resnet50() -> Config:
    """SwAV with a ResNet-50 on 2 + 6 crops, as the benchmark's encoder. Meant for GPUs.

    Source: VISSL's swav_8node_resnet.yaml (64 GPUs of 64 tiles).
    """
    return _of_benchmark("swav_resnet50", swav.PRESETS["vissl"], "resnet50", batch_size=4096)


def swav_resnet50_batch256() -> Config:
    """SwAV with a ResNet-50 for a batch of 256, with the queue; meant for one to four GPUs.

    Source: scripts/swav_200ep_bs256_pretrain.sh of the official code, with views for pathology.
    """
    method = replace(
        swav.PRESETS["pathology"],
        lr_per_256=0.6,
        warmup=0.0,
        queue_length=3840,
        queue_start=0.075,
        freeze_prototypes=5005,
    )
    return _of_benchmark("swav_resnet50_batch256", method, "resnet50", batch_size=256)


def barlow_twins_resnet50() -> Config:
    """Barlow Twins with a ResNet-50 on 224-px views, as the benchmark's encoder. Meant for GPUs.

    Source: VISSL's barlow_twins_4node_resnet.yaml (32 GPUs of 64 tiles).
    """
    return _of_benchmark(
        "barlow_twins_resnet50", barlow_twins.PRESETS["vissl"], "resnet50", batch_size=2048
    )


def dino_vit_small_patch16() -> Config:
    """DINO with a ViT-S/16 on 2 + 8 crops, as the benchmark's encoder. Meant for GPUs.

    Source: VISSL's dino_16gpus_deits16.yaml (16 GPUs of 64 tiles).
    """
    return _of_benchmark(
        "dino_vit_small_patch16", dino.PRESETS["vissl"], "vit_small_patch16", batch_size=1024
    )


def dino_vit_small_patch8() -> Config:
    """DINO with a ViT-S/8 on 2 + 6 crops, as the benchmark's encoder. Meant for GPUs.

    Source: VISSL's dino_64gpus_deits8.yaml (64 GPUs of 16 tiles), which trains in float32, as this
    does; the official code warns of float16 with patches of 8 px. --precision bf16 is faster.
    """
    method = replace(dino.PRESETS["vissl"], crops="patch8")
    recipe = _of_benchmark("dino_vit_small_patch8", method, "vit_small_patch8", batch_size=1024)
    return replace(recipe, precision="fp32")


def _of_benchmark(name: str, method: MethodConfig, encoder: str, *, batch_size: int) -> Config:
    return Config(
        method=replace(method, views="pathology"),
        encoder=encoder,
        batch_size=batch_size,
        tiles_seen=200 * 1_281_167,
        out=Path("runs") / name,
    )


def names() -> list[str]:
    """Lists the recipes, the methods' presets among them."""
    presets = [
        method if preset == "official" else f"{method}/{preset}"
        for method in plugins.names("methods")
        for preset in plugins.load("methods", method).PRESETS
    ]
    return [*presets, *_functions()]


def load(name: str) -> Config:
    """Gives the settings of a recipe, or of a method's preset, by name.

    Raises:
        UsageError: there is none of this name.
    """
    functions = _functions()
    if name in functions:
        return functions[name]()
    if name in names() or ":" in name:
        return preset_config(name)
    raise UsageError(f"There is no recipe {name!r}; choose one of: {', '.join(names())}.")


def summary(name: str) -> str:
    """The first line of what a recipe or a method says of itself."""
    functions = _functions()
    if name in functions:
        return _first_line(functions[name])
    method, _, preset = name.partition("/")
    line = _first_line(plugins.load("methods", method))
    return f"The settings of {method}, {_PRESETS[preset]}." if preset else line


def _first_line(described: object) -> str:
    return (inspect.getdoc(described) or "").splitlines()[0]


def _functions() -> dict[str, Callable[[], Config]]:
    return {
        name: function
        for name, function in globals().items()
        if inspect.isfunction(function)
        and inspect.signature(function).return_annotation is Config
        and not inspect.signature(function).parameters
    }
