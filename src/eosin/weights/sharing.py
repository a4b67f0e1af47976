"""Encoders made ready to be handed on: in timm's format, with a model card, and as ONNX."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
import tyro

from eosin import atomic
from eosin.encoders import Encoder
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of_file, stamp
from eosin.weights.export import (
    CARD,
    CONFIG,
    ONNX,
    WEIGHTS,
    check_target,
    describe,
    size_lines,
    write_weights,
    writing,
)
from eosin.weights.load import load_encoder
from eosin.weights.model_card import write_card
from eosin.weights.onnx_export import export_onnx, require_onnx
from eosin.weights.origins import inherited_licences
from eosin.weights.run_folders import evaluation, find_encoder

_SAME = 1e-5


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which encoder to export, and where to."""

    encoder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|NAME")]
    """Folder of a run or of an exported encoder, or any name that `eosin evaluate` takes."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write to: a new or empty one, or an earlier export, which is replaced."""
    onnx: bool = False
    """Writes model.onnx as well, checked against PyTorch."""
    name: str = ""
    """What the encoder is called from now on; its name stays if not given."""

    def __post_init__(self) -> None:
        if self.name and (not self.name.isprintable() or not self.name.strip()):
            raise UsageError(f"--name is {self.name!r}; it must be a line of printable text.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What an export wrote.

    Attributes:
        out: the folder.
        name: of the encoder.
        files: bytes of each file.
        weights_sha256: of names, shapes and values of the weights.
        licences: that the weights have from what they were made from; none for one's own.
        same_in_timm: whether bare timm's output is the embedding.
        onnx_difference: largest difference of ONNX Runtime to PyTorch, relative; None without.
        other: the other encoder of the run, if there is one.
    """

    out: str
    name: str
    files: Mapping[str, int]
    weights_sha256: str
    licences: tuple[str, ...]
    same_in_timm: bool
    onnx_difference: float | None
    other: str | None

    def __str__(self) -> str:
        lines = [f"{self.name} is in {self.out}:"]
        lines += size_lines(self.files)
        lines.append(f"weights sha256: {self.weights_sha256}")
        lines += [f"licence: {licence}" for licence in self.licences]
        if self.same_in_timm:
            lines.append(
                f'timm.create_model("local-dir:{self.out}", pretrained=True) gives the same '
                "embeddings (checked)."
            )
        else:
            lines.append(f"Bare timm's output is not the embedding; {CARD} says how they relate.")
        if self.onnx_difference is not None:
            lines.append(
                f"{ONNX} takes uint8 RGB images and normalises them itself; its embeddings differ "
                f"from PyTorch's by {self.onnx_difference:.1e} at most (relative, checked)."
            )
        if self.other is not None:
            lines.append(f"The run's other encoder is {self.other}; give it to export that.")
        return "\n".join(lines)


def export(config: Config) -> Report:
    """Exports an encoder with its model card, all or nothing.

    Raises:
        InputError: there is no such encoder, the folder holds something else, or a package that
            ONNX needs is missing; nothing was written.
    """
    check_target(config.out)
    if config.onnx:
        require_onnx()
    encoder, provenance, other = _open(config)
    with writing(config.out) as staging:
        write_weights(encoder, staging)
        content = describe(encoder, provenance)
        difference = _check_in_timm(encoder, content, staging)
        onnx_difference = _write_onnx(encoder, content, staging) if config.onnx else None
        files = {path.name: sha256_of_file(path) for path in _visible(staging)}
        atomic.write_text(staging / CARD, _card(content, files, _timm_note(encoder, difference)))
        atomic.write_json(staging / CONFIG, content)
        sizes = {path.name: path.stat().st_size for path in _visible(staging)}
    return Report(
        out=str(config.out),
        name=content["eosin"]["name"],
        files=sizes,
        weights_sha256=content["eosin"]["weights_sha256"],
        licences=tuple(each.text for each in inherited_licences(encoder.name, content["eosin"])),
        same_in_timm=difference <= _SAME,
        onnx_difference=onnx_difference,
        other=other,
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _open(config: Config) -> tuple[Encoder, dict[str, Any], str | None]:
    """The encoder, what its export says of its origin, and the run's other encoder."""
    folder, scores, other = Path(config.encoder), {}, None
    if folder.is_dir():
        found = find_encoder(folder)
        encoder = load_encoder(found.folder)
        other = None if found.other is None else str(found.other)
        if found.run is not None:
            scores = evaluation(found.run, encoder.card.provenance)
    else:
        encoder = load_encoder(config.encoder)
    encoder.card = replace(encoder.card, name=config.name or encoder.name)
    origin = {**encoder.card.provenance, "name": encoder.name}
    origin["exported"] = stamp()
    return encoder, {**origin, "evaluation": scores} if scores else origin, other


def _card(content: Mapping[str, Any], files: Mapping[str, str], timm_note: str) -> str:
    try:
        return write_card(content, files, timm_note=timm_note)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InputError(
            f"The origin of {content['eosin']['name']}, under `eosin` in its config.json, is not "
            f"as Eosin writes it ({error!r}); restore that file."
        ) from None


def _write_onnx(encoder: Encoder, content: Mapping[str, Any], staging: Path) -> float:
    own = content["eosin"]
    licences = "; ".join(each.text for each in inherited_licences(encoder.name, own))
    print(f"Converting {encoder.name} to ONNX …", file=sys.stderr)
    return export_onnx(encoder, staging / ONNX, {"licence": licences} if licences else {})


def _check_in_timm(encoder: Encoder, content: Mapping[str, Any], staging: Path) -> float:
    """How far the output of bare timm, with what was written, is from the embedding, relative.

    Raises:
        InputError: timm does not load it.
    """
    source = {**content["pretrained_cfg"], "file": str(staging / WEIGHTS)}
    try:
        bare = timm.create_model(
            content["architecture"],
            pretrained=True,
            pretrained_cfg=source,
            num_classes=0,
            **content["model_args"],
        ).eval()
    except Exception as error:
        raise InputError(f"timm does not load the export of {encoder.name}: {error}.") from None
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(1, 3, encoder.input_px, encoder.input_px, generator=generator)
    with torch.inference_mode():
        output, expected = bare(images), encoder.embed(images)
    if output.shape != expected.shape:
        return float("inf")
    return float((output - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def _timm_note(encoder: Encoder, difference: float) -> str:
    if difference <= _SAME:
        return ""
    if encoder.pooling == "cls+mean":
        return (
            "The embedding is two parts of what `model.forward_features` gives: the class token "
            "`tokens[:, 0]` and the mean of the patch tokens "
            "`tokens[:, model.num_prefix_tokens:].mean(1)`, in this order. timm has no such "
            "pooling; its own output is another vector."
        )
    return (
        f"The output is not the embedding: Eosin pools by `{encoder.pooling}`, or resizes the "
        "position embedding as it was trained with, which timm's format cannot say."
    )
