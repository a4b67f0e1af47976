"""Encoders written so that bare timm loads them, as whole folders or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch

from eosin import atomic
from eosin.encoders import Encoder
from eosin.encoders._positions import DINOVisionTransformer
from eosin.errors import InputError
from eosin.weights.origins import hub_id, inherited_licences, with_ancestor, without_paths

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
ONNX, ONNX_DATA = "model.onnx", "model.onnx.data"
# Without its config.json neither timm nor Eosin loads a folder, so that comes last.
_IN_ORDER = (WEIGHTS, ONNX_DATA, ONNX, CARD, CONFIG)
_EARLIER = ".earlier-config.json"


def export_encoder(encoder: Encoder, folder: Path, provenance: Mapping[str, Any]) -> None:
    """Writes an encoder so that bare timm loads it.

    `timm.create_model("local-dir:<folder>", pretrained=True)` and `load_encoder(folder)` both give
    it back. An export is whole or does not load: its files are written beside the folder and moved
    into it, `config.json` last. Of an earlier export there, only its own files are replaced.

    What the encoder's card says of the weights that training started from, with their licence, is
    kept in the provenance, under `init`.

    Args:
        encoder: what to write.
        folder: where `model.safetensors` and `config.json` go.
        provenance: how the weights came about.

    Raises:
        InputError: the encoder has no weights, or another process is writing to the folder.
    """
    with writing(folder) as staging:
        write_weights(encoder, staging)
        atomic.write_json(staging / CONFIG, describe(encoder, provenance))


def write_weights(encoder: Encoder, folder: Path) -> None:
    """Writes `model.safetensors`.

    Raises:
        InputError: the encoder has no weights.
    """
    state = encoder.model.state_dict()
    if not state:
        raise InputError(f"{encoder.name} has no weights, so there is nothing to export.")
    tensors = {key: value.cpu().contiguous() for key, value in state.items()}
    with atomic.replacing(folder / WEIGHTS) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        safetensors.torch.save_file(tensors, temporary, metadata={"format": "pt"})
        temporary.chmod(mode)  # safetensors lets nobody else read it, whatever the umask says


def describe(encoder: Encoder, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Gives what `config.json` says: timm's keys, and ours under `eosin`."""
    card = encoder.card
    origin = without_paths(with_ancestor(provenance, card.name, card.provenance))
    licences = inherited_licences(card.name, origin)
    pretrained_cfg: dict[str, Any] = {
        "input_size": [3, card.input_px, card.input_px],
        "fixed_input_size": False,
        "interpolation": card.interpolation,
        "crop_pct": 1.0,
        "mean": list(card.mean),
        "std": list(card.std),
        "num_classes": 0,
    }
    if licences:
        pretrained_cfg["license"] = hub_id(licences)
    return {
        "architecture": card.architecture,
        "num_classes": 0,
        "num_features": int(encoder.model.num_features),  # pyright: ignore[reportArgumentType]
        "model_args": encoder.timm_args(),
        "pretrained_cfg": pretrained_cfg,
        "eosin": {"name": card.name, **_of_the_weights(encoder), **_other(origin)},
    }


def _of_the_weights(encoder: Encoder) -> dict[str, Any]:
    """What an encoder says of itself, whatever an earlier export said."""
    own: dict[str, Any] = {
        "pooling": encoder.pooling,
        "embed_dim": encoder.embed_dim,
        "weights_sha256": encoder.weights_sha256(),
    }
    if isinstance(encoder.model, DINOVisionTransformer):
        own["position_embedding"] = "dino"
    if encoder.card.stem_stride is not None:
        own["stem_stride"] = encoder.card.stem_stride
    return own


def _other(origin: Mapping[str, Any]) -> dict[str, Any]:
    told = {"pooling", "embed_dim", "weights_sha256", "position_embedding", "stem_stride"}
    return {key: value for key, value in origin.items() if key not in told}


def size_lines(sizes: Mapping[str, int]) -> list[str]:
    """Lists files by name with their sizes, given in bytes."""
    return [
        f"  {name:<20} {size / 1e6:>9,.1f} MB" if size >= 1e5 else f"  {name:<20} {size:>9,} B"
        for name, size in sizes.items()
    ]


def check_target(folder: Path) -> None:
    """Makes sure that an export may be written to a folder.

    Raises:
        InputError: it is a file, or holds something else than an earlier export.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give -o a folder.")
    names = {path.name for path in folder.iterdir()}
    if names and not _is_export(folder / CONFIG) and not _is_export(folder / _EARLIER):
        raise InputError(
            f"{folder} holds {sorted(names)[0]} and is no earlier export of Eosin; give -o a "
            "folder that is new or empty."
        )


def _is_export(config_file: Path) -> bool:
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and isinstance(config.get("eosin"), dict)


@contextlib.contextmanager
def writing(folder: Path) -> Generator[Path]:
    """Gives an empty folder beside `folder` whose files become those of `folder` at the end.

    If the block raises, `folder` stays as it was. A kill leaves it as it was, or without a
    `config.json`, so that it does not load; the next export clears up.

    Raises:
        InputError: another process is writing there.
    """
    target = folder.resolve()
    staging = target.with_name(f".writing-{target.name}")
    with atomic.locked(staging):
        _empty(staging)
        try:
            yield staging
            _install(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _empty(staging: Path) -> None:
    for path in staging.iterdir():
        if path.name != ".lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _install(staging: Path, target: Path) -> None:
    if target.exists():
        _replace_files(staging, target)
    else:
        (staging / ".lock").unlink()
        os.rename(staging, target)
    _sync(target.parent)


def _replace_files(staging: Path, target: Path) -> None:
    """Moves the files in; other files of the folder stay."""
    if (target / CONFIG).is_file():
        os.replace(target / CONFIG, target / _EARLIER)
    for name in _IN_ORDER:
        if (staging / name).is_file():
            os.replace(staging / name, target / name)
        else:
            (target / name).unlink(missing_ok=True)
    (target / _EARLIER).unlink(missing_ok=True)
    _sync(target)


def _sync(folder: Path) -> None:
    """Makes renames inside a folder last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
