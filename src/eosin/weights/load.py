"""Encoders by name: whatever the name says, one line gives the encoder ready to use."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from eosin import plugins
from eosin.encoders import build_encoder
from eosin.encoders._base import Encoder
from eosin.errors import InputError, UsageError
from eosin.weights.catalogue import RELEASED
from eosin.weights.files import SUFFIXES, load_file
from eosin.weights.folders import load_folder
from eosin.weights.foundation import FOUNDATION
from eosin.weights.hub import IMAGENET, is_hub_name, load_foundation_file, load_hub
from eosin.weights.released import load_released

_RANDOM = "random/"
_Statistics = tuple[float, float, float]


def load_encoder(
    name: str | Path,
    *,
    input_px: int | None = None,
    seed: int = 0,
    pooling: str | None = None,
    architecture: str | None = None,
    mean: _Statistics | None = None,
    std: _Statistics | None = None,
    download: bool = False,
    accept_licence: bool = False,
) -> Encoder:
    """Loads an encoder, in evaluation mode, with its normalisation, pooling and input size.

    Nothing is downloaded unless `download` asks for it.

    Args:
        name: a folder that `eosin pretrain` or timm exported; a file of weights of VISSL, DINO,
            MoCo, SwAV, Barlow Twins, lightly, solo-learn, timm or torchvision; a released name,
            such as `vit_small_patch16.lunit_dino`; a pathology encoder of others, such as
            `virchow2`; `random/<architecture>` for untrained weights; an encoder that has none,
            such as `colour_histogram`; `timm/<name>`, `hf-hub:<owner>/<name>`, or an ImageNet
            baseline, such as `resnet50.imagenet`.
        input_px: side of the images it is meant for; by default what its training had.
        seed: for `random/...`, of the initialisation.
        pooling: `cls`, `mean`, `cls+mean` or `native`; by default as its authors pool.
        architecture: for a file, timm's name of its architecture, where shapes do not tell it; or
            the name of a pathology encoder whose file it is, which gives all that belongs to it.
        mean: for a file, what is subtracted from pixels in [0, 1]; ImageNet's by default.
        std: for a file, what divides the result; likewise.
        download: fetches weights that are not on this machine.
        accept_licence: accepts the licence of released weights, which a download asks for once.

    Raises:
        InputError: there is no such encoder, or its file is absent, damaged or does not fit; the
            message says what to do.
        UsageError: an option makes no sense for this name.
    """
    path, text = Path(name), str(name)
    if path.is_file():
        encoder = _from_file(path, architecture, mean, std)
    elif not (path.is_dir() or _is_known(text)):
        raise _unknown(text)
    else:
        _refuse({"architecture": architecture, "mean": mean, "std": std}, text)
        if path.is_dir():
            encoder = load_folder(path)
        elif text in RELEASED:
            encoder = load_released(text, download=download, accept_licence=accept_licence)
        elif text.startswith(_RANDOM):
            encoder, input_px = _random(text, input_px, seed), None
        elif is_hub_name(text):
            encoder = load_hub(text, download=download)
        else:
            encoder = build_encoder(text)
    if pooling is not None:
        encoder = encoder.with_pooling(pooling)
    return (encoder if input_px is None else encoder.at_size(input_px)).eval()


def _from_file(
    path: Path, architecture: str | None, mean: _Statistics | None, std: _Statistics | None
) -> Encoder:
    if architecture is not None and architecture in FOUNDATION:
        _refuse({"mean": mean, "std": std}, str(path))
        return load_foundation_file(architecture, FOUNDATION[architecture], path)
    return load_file(path, architecture=architecture, mean=mean, std=std)


def _is_known(name: str) -> bool:
    is_row = name in RELEASED or name in _weightless_names()
    return is_row or name.startswith(_RANDOM) or is_hub_name(name)


def _random(name: str, input_px: int | None, seed: int) -> Encoder:
    architecture = name.removeprefix(_RANDOM)
    prefix = "timm/" if architecture not in _variants() else ""
    encoder = build_encoder(prefix + architecture, input_px=input_px, seed=seed)
    card = replace(encoder.card, name=name, provenance={"initialisation": "random"})
    return Encoder(encoder.model, card)


def _refuse(options: Mapping[str, Any], name: str) -> None:
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{name} has its own {' and '.join(given)}; the option is for files of weights, which "
            "do not tell it."
        )


def _unknown(name: str) -> InputError:
    if name.endswith(SUFFIXES) or name.startswith((".", "/", "~")):
        return InputError(f"{name} is neither a file of weights nor a folder with an encoder.")
    known = [*RELEASED, *FOUNDATION, *IMAGENET, *_weightless_names()]
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3, cutoff=0.6)
    if close:
        return InputError(
            f"There is no encoder {name!r}. Did you mean {' or '.join(close)}? All names: eosin "
            "weights list."
        )
    return InputError(
        f"There is no encoder {name!r}. It is neither a folder or file, nor one of the "
        f"released names ({', '.join(RELEASED)}), of the pathology encoders of others "
        f"({', '.join(FOUNDATION)}), of the ImageNet baselines ({', '.join(IMAGENET)}), "
        f"random/ARCHITECTURE, timm/NAME, hf-hub:OWNER/NAME, nor {', '.join(_weightless_names())}."
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
