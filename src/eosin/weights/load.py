"""Encoders with weights: our exports, folders in timm's layout, and the five released files."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from eosin import atomic, plugins
from eosin.encoders import build_encoder
from eosin.encoders._base import Encoder, EncoderCard, create_timm_model, pooling_of
from eosin.encoders.vit import resizing_as_dino
from eosin.errors import InputError
from eosin.provenance import sha256_of_file

RELEASE_URL = (
    "https://github.com/lunit-io/benchmark-ssl-pathology/releases/download/pretrained-weights"
)
LICENCE = "Lunit Public License: non-commercial use, attribution"
# The release notes give one pair of statistics for all five files.
_MEAN = (0.70322989, 0.53606487, 0.66096631)
_STD = (0.21716536, 0.26081574, 0.20723464)


@dataclass(frozen=True, kw_only=True)
class Released:
    """One released weight file of Kang et al., CVPR 2023.

    Attributes:
        file: its name in the release.
        architecture: timm's name of the architecture.
        pooling: how the encoder pools.
        sha256: of the file; None where nobody has published it.
    """

    file: str
    architecture: str
    pooling: str
    sha256: str | None


RELEASED: Mapping[str, Released] = {
    "resnet50.lunit_bt": Released(
        file="bt_rn50_ep200.torch",
        architecture="resnet50",
        pooling="mean",
        sha256="1ecf2f0888b598708e912cab689e797db099ec48df07d3b0b1fac04bc767f899",
    ),
    "resnet50.lunit_mocov2": Released(
        file="mocov2_rn50_ep200.torch",
        architecture="resnet50",
        pooling="mean",
        sha256="caddcff7980577722e9227fb90e61364556f15978483b19a1729831e770733b6",
    ),
    "resnet50.lunit_swav": Released(
        file="swav_rn50_ep200.torch",
        architecture="resnet50",
        pooling="mean",
        sha256="bf99442e9ce3367e3895e80b4d24e7f21d74b3c791347970b91eb82bcefa366f",
    ),
    "vit_small_patch16.lunit_dino": Released(
        file="dino_vit_small_patch16_ep200.torch",
        architecture="vit_small_patch16_224",
        pooling="cls",
        sha256=None,
    ),
    "vit_small_patch8.lunit_dino": Released(
        file="dino_vit_small_patch8_ep200.torch",
        architecture="vit_small_patch8_224",
        pooling="cls",
        sha256=None,
    ),
}


def weights_folder() -> Path:
    """Where released weight files are looked for: `$EOSIN_WEIGHTS` or `~/.cache/eosin/weights`."""
    return Path(os.environ.get("EOSIN_WEIGHTS", Path.home() / ".cache" / "eosin" / "weights"))


def load_encoder(name: str | Path, *, input_px: int | None = None, seed: int = 0) -> Encoder:
    """Loads an encoder, in evaluation mode, with its normalisation, pooling and input size.

    Nothing is downloaded.

    Args:
        name: a folder that `eosin pretrain` or timm exported; a released name, such as
            `vit_small_patch16.lunit_dino`, whose file lies in `weights_folder()`;
            `random/<architecture>` for untrained weights; or an encoder that has none, such as
            `colour_histogram`.
        input_px: for `random/...`, the side of the images it is meant for.
        seed: for `random/...`, of the initialisation.

    Raises:
        InputError: there is no such encoder, or its file is absent, damaged or does not fit; the
            message says what to do.
    """
    folder = Path(name)
    if folder.is_dir():
        return _load_folder(folder).eval()
    name = str(name)
    if name in RELEASED:
        return _load_released(name).eval()
    if name.startswith("random/"):
        architecture = name.removeprefix("random/")
        prefix = "timm/" if architecture not in _variants() else ""
        encoder = build_encoder(prefix + architecture, input_px=input_px, seed=seed)
        card = replace(encoder.card, name=name, provenance={"initialisation": "random"})
        return Encoder(encoder.model, card).eval()
    if name in _weightless_names():
        return build_encoder(name).eval()
    raise InputError(
        f"There is no encoder {name!r}: it is neither a folder with an exported encoder, nor one "
        f"of the released names ({', '.join(RELEASED)}), nor random/ARCHITECTURE, nor one of "
        f"{', '.join(_weightless_names())}."
    )


def _variants() -> list[str]:
    modules = [plugins.load("encoders", family) for family in plugins.names("encoders")]
    return [name for module in modules for name in module.variants()]


def _weightless_names() -> list[str]:
    modules = [plugins.load("encoders", family) for family in plugins.names("encoders")]
    return [
        name
        for module in modules
        if getattr(module, "NEEDS_NO_WEIGHTS", False)
        for name in module.variants()
    ]


def export_encoder(encoder: Encoder, folder: Path, provenance: Mapping[str, Any]) -> None:
    """Writes an encoder so that bare timm loads it.

    `timm.create_model("local-dir:<folder>", pretrained=True)` and `load_encoder(folder)` both give
    it back. `model.safetensors` is written first and `config.json`, without which neither loads
    it, last.

    Args:
        encoder: what to write.
        folder: where `model.safetensors` and `config.json` go.
        provenance: how the weights came about.
    """
    card = encoder.card
    with atomic.replacing(folder / "model.safetensors") as temporary:
        tensors = {key: value.contiguous() for key, value in encoder.model.state_dict().items()}
        safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
    pretrained_cfg = {
        "input_size": [3, card.input_px, card.input_px],
        "fixed_input_size": False,
        "interpolation": card.interpolation,
        "crop_pct": 1.0,
        "mean": list(card.mean),
        "std": list(card.std),
        "num_classes": 0,
    }
    config = {
        "architecture": card.architecture,
        "num_classes": 0,
        "num_features": encoder.embed_dim,
        "model_args": dict(card.model_args),
        "pretrained_cfg": pretrained_cfg,
        "eosin": {"name": card.name, "pooling": card.pooling, **provenance},
    }
    atomic.write_json(folder / "config.json", config)


def _load_folder(folder: Path) -> Encoder:
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    if not config_file.is_file() or not weights_file.is_file():
        inner = folder / "encoder"
        hint = f" Did you mean {inner}?" if (inner / "config.json").is_file() else ""
        raise InputError(
            f"{folder} holds no exported encoder: config.json and model.safetensors are needed."
            + hint
        )
    try:
        config = json.loads(config_file.read_text())
        architecture = str(config["architecture"])
        data = config.get("pretrained_cfg", config)
        card = EncoderCard(
            name=str(config.get("eosin", {}).get("name", folder.resolve().name)),
            architecture=architecture,
            model_args=config.get("model_args", {}),
            input_px=int(data["input_size"][-1]),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            interpolation=str(data.get("interpolation", "bicubic")),
            provenance=config.get("eosin", {}),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config_file} is not the config of a timm model: {error!r}.") from None
    model = create_timm_model(architecture, card.model_args)
    try:
        tensors = safetensors.torch.load_file(weights_file)
    except SafetensorError as error:
        raise InputError(f"{weights_file} is damaged: {error}. Export the encoder again.") from None
    _load_strictly(model, tensors, weights_file)
    # Only DINO's own exports were trained with its resize; other ViTs keep timm's.
    if card.provenance.get("method") == "dino":
        model = resizing_as_dino(model)
    return Encoder(model, replace(card, pooling=pooling_of(model)))


def _load_released(name: str) -> Encoder:
    released = RELEASED[name]
    path = weights_folder() / released.file
    if not path.is_file():
        raise InputError(
            f"{name}: {path} is not there. Download {RELEASE_URL}/{released.file} "
            f"({LICENCE}) and put it there, or set EOSIN_WEIGHTS to the folder that has it."
        )
    found = sha256_of_file(path)
    if released.sha256 is not None and found != released.sha256:
        raise InputError(
            f"{path} is not the released file: its sha256 is {found}, expected "
            f"{released.sha256}. Download it again."
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is not a file of plain tensors: {error}.") from None
    args = {"img_size": 224, "dynamic_img_size": True} if released.pooling == "cls" else {}
    model = create_timm_model(released.architecture, args)
    _load_strictly(model, tensors, path)
    card = EncoderCard(
        name=name,
        architecture=released.architecture,
        model_args=args,
        mean=_MEAN,
        std=_STD,
        pooling=released.pooling,
        provenance={"file": released.file, "file_sha256": found, "licence": LICENCE},
    )
    return Encoder(resizing_as_dino(model), card)


def _load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Loads all weights or says which are missing, unexpected or of another shape."""
    own = model.state_dict()
    missing = sorted(own.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - own.keys())
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(own[key].shape)}"
        for key in sorted(own.keys() & tensors.keys())
        if tensors[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise InputError(f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}.")
    model.load_state_dict(tensors)


def list_released() -> list[tuple[str, str, str]]:
    """Lists the released encoders as (name, file, whether it is in `weights_folder()`)."""
    folder = weights_folder()
    return [
        (name, released.file, "present" if (folder / released.file).is_file() else "absent")
        for name, released in RELEASED.items()
    ]


__all__ = [
    "LICENCE",
    "RELEASED",
    "RELEASE_URL",
    "Released",
    "export_encoder",
    "list_released",
    "load_encoder",
    "weights_folder",
]
