"""Encoders from single files of weights, whichever library wrote them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from eosin.encoders._base import Encoder, EncoderCard, pooling_of
from eosin.encoders._card import IMAGENET_MEAN, IMAGENET_STD
from eosin.encoders.vit import is_vit, resizing_as_dino
from eosin.encoders.vit import variants as vit_variants
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of_file
from eosin.weights.architectures import (
    create_without_weights,
    infer_architecture,
    names_of_weights,
    position_args,
)
from eosin.weights.catalogue import RELEASED, released_names, released_statistics_note
from eosin.weights.layouts import Extracted, extract
from eosin.weights.strict import load_strictly
from eosin.weights.unpickling import read_checkpoint

SUFFIXES = (".pth", ".pt", ".tar", ".ckpt", ".torch", ".bin", ".safetensors", ".pkl")
"""What files of weights are called, mostly."""

Statistics = tuple[float, float, float]


def load_file(
    path: Path,
    *,
    architecture: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    branch: str | None = None,
) -> Encoder:
    """Loads an encoder from a checkpoint of VISSL, DINO, MoCo, SwAV, Barlow Twins and others.

    All weights of the encoder must fit. Heads and other networks beside it are left out, which
    standard error is told.

    Args:
        path: a file of `torch.save`, in either format, or of safetensors.
        architecture: timm's name of it, or Eosin's; read from the shapes where it is None, which
            works for plain ResNets and ViTs.
        model_args: passed on to timm, besides what the shapes tell.
        mean: subtracted from pixels in [0, 1]; ImageNet's where it is None. Files do not tell it.
        std: divides the result; likewise.
        branch: which network, where there are several, such as `student` of DINO; by default what
            the method evaluates.

    Raises:
        InputError: the file is damaged, has no encoder in a known layout, or does not fit.
        UsageError: only one of mean and std is given, or there is no such branch.
    """
    if (mean is None) != (std is None):
        raise UsageError("mean and std belong together: give both or neither.")
    content = read_checkpoint(path)
    names = names_of_weights(_timm_name(architecture), model_args or {}) if architecture else ()
    found = extract(content, path, branch=branch, names=names)
    name, args = _architecture(found, path, architecture)
    args |= dict(model_args or {})
    model = create_without_weights(name, args)
    load_strictly(model, found.tensors, path)
    if found.layout.name == "DINO":
        model = resizing_as_dino(model)
    _tell(found, path, is_normalisation_known=mean is not None)
    provenance = _provenance(found, path, is_normalisation_known=mean is not None)
    card = EncoderCard(
        name=path.name.split(".")[0],
        architecture=name,
        model_args=args,
        input_px=int(args.get("img_size", 224)),
        mean=mean or IMAGENET_MEAN,
        std=std or IMAGENET_STD,
        pooling=pooling_of(model),
        provenance=provenance,
    )
    sha256 = provenance["file_sha256"]
    note = released_statistics_note(path.name, card.mean, card.std, sha256=sha256)
    if note is not None:
        print(note, file=sys.stderr)
    return Encoder(model, card).eval()


def _architecture(
    found: Extracted, path: Path, architecture: str | None
) -> tuple[str, dict[str, Any]]:
    if architecture is not None:
        name = _timm_name(architecture)
        heads = (found.layout.vit_heads or {}).get(_dim(found.tensors))
        args = position_args(found.tensors) if is_vit(name) else {}
        return name, args if heads is None else {**args, "num_heads": heads}
    inferred = infer_architecture(found.tensors, found.layout.vit_heads)
    if inferred is None:
        shapes = [f"{key} {tuple(each.shape)}" for key, each in list(found.tensors.items())[:3]]
        raise InputError(
            f"{path}: the architecture cannot be told from the shapes ({found.naming.title}: "
            f"{', '.join(shapes)}, …). Name it: load_encoder(path, architecture=...), with a name "
            "of timm."
        )
    return inferred


def _timm_name(architecture: str) -> str:
    """Eosin's names of ViTs, such as `vit_small_patch16`, are timm's without the size."""
    name = architecture.removeprefix("timm/")
    return f"{name}_224" if name in vit_variants() else name


def _dim(tensors: Mapping[str, Tensor]) -> int:
    patches = tensors.get("patch_embed.proj.weight")
    return 0 if patches is None else patches.shape[0]


def _tell(found: Extracted, path: Path, *, is_normalisation_known: bool) -> None:
    parts = [f"{path}: {found.layout.name} layout, {found.layout.branch}"]
    if found.left_out:
        counts = ", ".join(f"{part} ({count})" for part, count in found.left_out.items())
        parts.append(f"left out: {counts}")
    if not is_normalisation_known:
        parts.append("normalised as ImageNet, since files do not tell it")
    print("; ".join(parts) + ".", file=sys.stderr)


def _provenance(found: Extracted, path: Path, *, is_normalisation_known: bool) -> dict[str, Any]:
    sha256 = sha256_of_file(path)
    released = released_names(path.name, sha256)
    licence = RELEASED[released[0]].licence if released else None
    return {
        "file": path.name,
        "file_sha256": sha256,
        "layout": found.layout.name,
        "branch": found.layout.branch,
        "naming": found.naming.title,
        "left_out": dict(found.left_out),
        "normalisation": "given" if is_normalisation_known else "ImageNet, assumed",
        **({} if licence is None else {"licence": licence.short, "licence_url": licence.url}),
    }
