"""Folders in timm's `local-dir` layout: our exports and those of others."""

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from safetensors import SafetensorError
from torch import Tensor, nn

from eosin.encoders._base import Encoder, EncoderCard, create_timm_model, pooling_of
from eosin.encoders._positions import resizing_as_dino
from eosin.errors import InputError
from eosin.weights.catalogue import released_statistics_note
from eosin.weights.strict import load_strictly

# What decides where weights come from is not for a folder's config to say.
_REFUSED_ARGS = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
    *("features_only", "scriptable", "exportable"),
}


def load_folder(folder: Path) -> Encoder:
    """Loads an encoder with all that its `config.json` says.

    A classifier in a folder of others is left out, which standard error is told, as it is of
    copies of released weights whose statistics are not those of the release. Images are taken
    whole: `crop_pct`, for photographs, has no effect.

    Raises:
        InputError: a file is absent, damaged or does not fit the architecture.
    """
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    if not config_file.is_file() or not weights_file.is_file():
        inner = folder / "encoder"
        hint = f" Did you mean {inner}?" if (inner / "config.json").is_file() else ""
        raise InputError(
            f"{folder} holds no exported encoder: config.json and model.safetensors are needed."
            + hint
        )
    config = _read_config(config_file)
    card = _card(config, config_file)
    try:
        model = create_timm_model(card.architecture, card.model_args)
    except InputError:
        raise
    except Exception as error:  # timm passes on whatever a model's constructor raises
        raise InputError(f"{config_file}: timm cannot build its model: {error}.") from None
    try:
        tensors = safetensors.torch.load_file(weights_file)
    except SafetensorError as error:
        raise InputError(f"{weights_file} is damaged: {error}. Export the encoder again.") from None
    load_strictly(model, _without_classifier(tensors, model, config, folder), weights_file)
    return _with_what_timm_lacks(model, card)


def _read_config(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise TypeError("not a JSON object")
    except (ValueError, TypeError) as error:
        raise _no_config(file, error) from None
    return config


def _no_config(file: Path, error: Exception) -> InputError:
    return InputError(f"{file} is not the config of a timm model: {error!r}.")


def _card(config: Mapping[str, Any], file: Path) -> EncoderCard:
    try:
        data = _data(config)
        channels, height, width = map(int, data["input_size"])
        if channels != 3 or height != width:
            raise ValueError(f"input_size {data['input_size']}; Eosin takes square RGB images")
        own = dict(config.get("eosin") or {})
        card = EncoderCard(
            name=str(own.get("name", file.parent.resolve().name)),
            architecture=str(config["architecture"]),
            model_args=_model_args(config, data),
            input_px=height,
            mean=_three(data["mean"]),
            std=_three(data["std"]),
            interpolation=str(data.get("interpolation", "bicubic")),
            provenance=own or _provenance(data, file.parent),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_config(file, error) from None
    tag = f"{card.architecture}.{data.get('tag', '')}"
    for name in (card.name, tag):
        if (note := released_statistics_note(name, card.mean, card.std)) is not None:
            print(note, file=sys.stderr)
            break
    return card


def _data(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part about weights and images, which older configs of timm have at the top."""
    return config.get("pretrained_cfg", config)


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _model_args(config: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """What timm would build the model with, as it takes some arguments from the data's part."""
    args = dict(config.get("model_args") or {})
    if refused := sorted(_REFUSED_ARGS & args.keys()):
        raise ValueError(f"model_args must not have {', '.join(refused)}")
    args.pop("num_classes", None)
    if data.get("global_pool") is not None:
        args.setdefault("global_pool", data["global_pool"])
    if data.get("fixed_input_size"):
        args.setdefault("img_size", int(data["input_size"][-1]))
    return args


def _provenance(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a folder of others says of its origin."""
    keys = {"tag": "tag", "license": "licence", "origin_url": "url", "hf_hub_id": "repo"}
    found = {ours: data[theirs] for theirs, ours in keys.items() if data.get(theirs)}
    return {"source": f"timm folder {folder.resolve().name}", **found}


def _without_classifier(
    tensors: dict[str, Tensor], model: nn.Module, config: Mapping[str, Any], folder: Path
) -> dict[str, Tensor]:
    """Leaves out the layers that timm calls the classifier."""
    known = timm.get_pretrained_cfg(str(config["architecture"]))
    named = _data(config).get("classifier") or (known.classifier if known else None) or ()
    names = (named,) if isinstance(named, str) else tuple(map(str, named))
    own = model.state_dict()
    left_out = [
        key
        for key in tensors
        if key.startswith(tuple(f"{name}." for name in names))
        if key not in own
    ]
    if left_out:
        print(
            f"{folder}: its classifier ({', '.join(names)}: {len(left_out)} tensors) is left out.",
            file=sys.stderr,
        )
    return {key: value for key, value in tensors.items() if key not in left_out}


def _with_what_timm_lacks(model: nn.Module, card: EncoderCard) -> Encoder:
    told = card.provenance
    # Exports of before `position_embedding` tell by their method; other ViTs keep timm's resize.
    if told.get("position_embedding") == "dino" or told.get("method") == "dino":
        model = resizing_as_dino(model)
    encoder = Encoder(model, replace(card, pooling=pooling_of(model)))
    if told.get("stem_stride") is not None:
        encoder = encoder.with_stem_stride(told["stem_stride"])
    return encoder.with_pooling(str(told.get("pooling", encoder.pooling)))
