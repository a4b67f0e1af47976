"""The settings of the benchmark of learning: what both sides share, and the runs of our side."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from eosin import plugins
from eosin.encoders import build_encoder
from eosin.methods._base import MethodConfig
from eosin.pretrain.config import Config
from eosin.weights import export_encoder

METHODS = ("moco_v2", "swav", "barlow_twins", "dino")
ENCODER = "resnet10t"
SEEDS = (0, 1, 2)
SWEEP_SEED = 99
LEARNING_RATES = (0.0003, 0.001, 0.003)
"""What each side of each method may choose from, for its batches of 64 tiles."""
SWEEP_SHARE = 0.5  # of the updates of a run: how long those are that choose

UPDATES = 200
BATCH = 64
VIEW_PX, LOCAL_PX = 64, 32
LOCAL_CROPS = 4
WARM_UP = 0.1  # share of the run
WEIGHT_DECAY = 0.0001
DINO_WEIGHT_DECAY = (0.04, 0.4)
KEY_MOMENTUM = 0.99
TEACHER_MOMENTUM = 0.99
MOCO_TEMPERATURE = 0.2
MOCO_QUEUE = 1024
MLP_WIDTH, PROJECTION = 512, 128
SWAV_PROTOTYPES = 512
SWAV_QUEUE_BATCHES, SWAV_QUEUE_START = 15, 0.15  # the start is a share of the run
FROZEN = 0.01  # share of the run in which prototypes, or DINO's last layer, are held still
BARLOW_PROJECTOR = 1024
DINO_OUTPUTS, DINO_BOTTLENECK = 2048, 128
DINO_SCALES = ((0.14, 1.0), (0.05, 0.14))  # of global and of local crops, for convolutional nets


def frozen_updates(updates: int) -> int:
    """Updates in which prototypes, or DINO's last layer, are held still."""
    return round(FROZEN * updates)


def describe(updates: int) -> dict[str, Any]:
    """All settings of this file as plain values, which tell results of other settings apart."""
    constants = {name: value for name, value in globals().items() if name.isupper()}
    del constants["SEEDS"]  # more seeds may join later
    return {**constants, "UPDATES": updates}


def initial_encoder(method: str, seed: int, folder: Path) -> Path:
    """Exports the encoder that every side of a method starts from with this seed."""
    module = plugins.load("methods", method)
    encoder = build_encoder(ENCODER, input_px=VIEW_PX, seed=seed, **module.encoder_args(ENCODER))
    export_encoder(encoder, folder, {"initialisation": "random", "seed": seed})
    return folder


def our_run(
    method: str, preset: str, lr: float, seed: int, updates: int, tiles: Path, folder: Path
) -> Config:
    """The settings of a run of ours.

    Args:
        method: name of the method.
        preset: `official` or `pathology`.
        lr: peak of the learning rate.
        seed: of everything.
        updates: length.
        tiles: the HDF5 file.
        folder: of the run; the initial encoder goes beside it.
    """
    return Config(
        method=_our_method(method, preset, lr, updates),
        data=(tiles,),
        out=folder,
        init=str(initial_encoder(method, seed, folder.with_name(f"{folder.name}-init"))),
        batch_size=BATCH,
        tiles_seen=updates * BATCH,
        seed=seed,
        precision="fp32",
        checkpoint_every=50,
    )


def _our_method(method: str, preset: str, lr: float, updates: int) -> MethodConfig:
    module = plugins.load("methods", method)
    shared: dict[str, Any] = {"optimizer": "adamw", "lr_per_256": lr * 256 / BATCH}
    shared["warmup"] = WARM_UP
    own: dict[str, dict[str, Any]] = {
        "moco_v2": {
            "view_px": VIEW_PX,
            "dim": PROJECTION,
            "queue": MOCO_QUEUE,
            "key_momentum": KEY_MOMENTUM,
            "temperature": MOCO_TEMPERATURE,
            "lr_per": "update",
            "weight_decay": WEIGHT_DECAY,
        },
        "swav": {
            "global_px": VIEW_PX,
            "local_px": LOCAL_PX,
            "local_crops": LOCAL_CROPS,
            "hidden_dim": MLP_WIDTH,
            "dim": PROJECTION,
            "prototypes": SWAV_PROTOTYPES,
            "queue_length": SWAV_QUEUE_BATCHES * BATCH,
            "queue_start": SWAV_QUEUE_START,
            "warmup_start": 0.0,
            "freeze_prototypes": frozen_updates(updates),
            "weight_decay": WEIGHT_DECAY,
        },
        "barlow_twins": {
            "view_px": VIEW_PX,
            "projector": (BARLOW_PROJECTOR,) * 3,
            "weight_decay": WEIGHT_DECAY,
        },
        "dino": {
            "global_px": VIEW_PX,
            "local_px": LOCAL_PX,
            "local_crops": LOCAL_CROPS,
            "global_scale": DINO_SCALES[0],
            "local_scale": DINO_SCALES[1],
            "out_dim": DINO_OUTPUTS,
            "hidden_dim": MLP_WIDTH,
            "bottleneck_dim": DINO_BOTTLENECK,
            "teacher_momentum": TEACHER_MOMENTUM,
            "weight_decay": DINO_WEIGHT_DECAY[0],
            "weight_decay_end": DINO_WEIGHT_DECAY[1],
            "freeze_last_layer": FROZEN,
        },
    }
    presets = getattr(module, "PRESETS", {})
    base = presets[preset] if preset in presets else module.Config(views=preset)
    return replace(base, **shared, **own[method])
