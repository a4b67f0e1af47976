"""Encoders of timm and of the Hugging Face Hub by name, with what their authors say of them."""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import timm
from timm.models import split_model_name_tag
from torch import nn

from eosin.encoders._base import Encoder, EncoderCard, create_timm_model
from eosin.encoders.vit import resizing_as_dino
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of_file
from eosin.weights.architectures import create_without_weights, position_args
from eosin.weights.catalogue import released_statistics_note
from eosin.weights.folders import load_folder
from eosin.weights.foundation import FOUNDATION, Foundation
from eosin.weights.hub_files import WEIGHTS, Repo, commit_of, fetch_first
from eosin.weights.layouts import extract
from eosin.weights.strict import flat_tensors, load_strictly
from eosin.weights.unpickling import read_checkpoint

HUB, TIMM = "hf-hub:", "timm/"


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """An encoder trained on photographs.

    Attributes:
        timm_name: timm's name of the weights.
        training: what they were trained with.
    """

    timm_name: str
    training: str


IMAGENET: Mapping[str, Baseline] = {
    "resnet50.imagenet": Baseline(
        timm_name="resnet50.tv_in1k", training="supervised on ImageNet-1k (torchvision, V1)"
    ),
    "vit_small_patch16.imagenet": Baseline(
        timm_name="vit_small_patch16_224.augreg_in1k",
        training="supervised on ImageNet-1k (Steiner et al. 2021, arXiv 2106.10270)",
    ),
    "vit_small_patch16.imagenet21k": Baseline(
        timm_name="vit_small_patch16_224.augreg_in21k_ft_in1k",
        training="supervised on ImageNet-21k, then 1k (Steiner et al. 2021, arXiv 2106.10270)",
    ),
    "vit_small_patch16.imagenet_dino": Baseline(
        timm_name="vit_small_patch16_224.dino",
        training="DINO on ImageNet-1k (Caron et al. 2021, arXiv 2104.14294)",
    ),
    "vit_small_patch8.imagenet_dino": Baseline(
        timm_name="vit_small_patch8_224.dino",
        training="DINO on ImageNet-1k (Caron et al. 2021, arXiv 2104.14294)",
    ),
}
"""Baselines trained on photographs, by the name under which they load."""


def is_hub_name(name: str) -> bool:
    """Whether a name says that an encoder is kept on the Hub."""
    return name.startswith((HUB, TIMM)) or name in FOUNDATION or name in IMAGENET


def load_hub(name: str, *, download: bool = False) -> Encoder:
    """Loads an encoder that is kept on the Hub, in evaluation mode.

    Args:
        name: `timm/NAME`, with or without a tag; `hf-hub:OWNER/NAME`, with or without
            `@REVISION`, for a repository in timm's format; or a row of `FOUNDATION` or `IMAGENET`.
        download: fetches what is not in the Hugging Face cache of this machine; otherwise nothing
            is asked of the network.

    Raises:
        InputError: there is no such encoder, it cannot be had, or its weights do not fit; the
            message says what to do.
    """
    row = _row_of(name)
    repo = _repo_of(name)
    if row is not None:
        path = fetch_first(repo, _files_of(name), download=download)
        return load_foundation_file(name, row, path)
    config = fetch_first(repo, ["config.json"], download=download)
    weights = fetch_first(repo, WEIGHTS, download=download)
    encoder = _load_timm_folder(repo, config, weights)
    card = encoder.card
    _tell_of_copies(repo.repo, card)
    provenance = {
        **card.provenance,
        "source": repo.url,
        "repo": repo.repo,
        "revision": commit_of(weights),
        "file": weights.name,
        "file_sha256": sha256_of_file(weights),
        **_facts_of_timm(name),
    }
    model = encoder.model
    if _timm_name(name).endswith((".dino", "_dino")):
        model = resizing_as_dino(model)
    return Encoder(model, replace(card, name=name, provenance=provenance)).eval()


def fetch_model(name: str) -> Path:
    """Downloads what an encoder on the Hub needs, or finds it in the cache.

    Args:
        name: as for `load_hub`.

    Returns:
        The folder of the Hugging Face cache that holds it.

    Raises:
        InputError: there is no such encoder, or it cannot be had; the message says what to do.
        UsageError: the name is none of an encoder on the Hub.
    """
    if not is_hub_name(name):
        raise UsageError(
            f"There is no {name!r} to fetch: names are timm/NAME, hf-hub:OWNER/NAME, and those "
            "that eosin weights list shows."
        )
    repo = _repo_of(name)
    if _row_of(name) is None:
        fetch_first(repo, ["config.json"], download=True)
    return fetch_first(repo, _files_of(name), download=True).parent


def load_foundation_file(name: str, row: Foundation, path: Path) -> Encoder:
    """Loads the weights of a pathology encoder of others from a file, wherever it lies.

    Args:
        name: of the encoder.
        row: the facts about it.
        path: the file, in the layout in which its authors share it.

    Raises:
        InputError: the file is damaged or does not fit.
    """
    tensors = extract(read_checkpoint(path), path).tensors
    args = {**row.model_args, **position_args(tensors)}
    model = build_foundation(row, args)
    load_strictly(model, tensors, path)
    if row.resizes_as_dino:
        model = resizing_as_dino(model)
    card = EncoderCard(
        name=name,
        architecture=row.architecture,
        model_args=args,
        input_px=row.input_px,
        mean=row.mean,
        std=row.std,
        pooling=row.pooling,
        interpolation=row.interpolation,
        provenance={
            "title": row.title,
            "repo": row.repo,
            "revision": commit_of(path),
            "file": path.name,
            "file_sha256": sha256_of_file(path),
            "licence": row.licence,
            "licence_url": _repo_of(name).url,
            "citation": row.citation,
            "normalisation": "as its authors use",
        },
    )
    return Encoder(model, card).eval()


def build_foundation(row: Foundation, args: Mapping[str, Any]) -> nn.Module:
    """Builds the architecture of a row, without weights."""
    model = create_without_weights(row.architecture, args)
    if row.has_convolutional_stem:
        embed: Any = model.patch_embed
        embed.proj = _convolutional_stem(embed.proj.out_channels)
    return model


def _convolutional_stem(dim: int) -> nn.Sequential:
    """Two convolutions of stride 2 before the projection, as in Xiyue-Wang/TransPath ctran.py."""
    layers: list[nn.Module] = []
    channels = 3
    for wider in (dim // 8, dim // 4):
        layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(wider), nn.ReLU(inplace=True)]
        channels = wider
    return nn.Sequential(*layers, nn.Conv2d(channels, dim, 1))


def _repo_of(name: str) -> Repo:
    repo, _, revision = name.removeprefix(HUB).partition("@")
    row = _row_of(name)
    if row is not None:
        return Repo(
            name=name,
            repo=row.repo,
            revision=revision or None,
            is_dataset=row.is_dataset,
            is_gated=row.is_gated,
        )
    if name.startswith(HUB):
        return Repo(name=name, repo=repo, revision=revision or None)
    return Repo(name=name, repo=_timm_repo(name, _timm_name(name)))


def _row_of(name: str) -> Foundation | None:
    """The row of a name, or of the repository that it names."""
    if name in FOUNDATION or not name.startswith(HUB):
        return FOUNDATION.get(name)
    repo = name.removeprefix(HUB).partition("@")[0].lower()
    rows = (row for row in FOUNDATION.values() if not row.is_dataset)
    return next((row for row in rows if row.repo.lower() == repo), None)


def _files_of(name: str) -> tuple[str, ...]:
    row = _row_of(name)
    return WEIGHTS if row is None or row.file is None else (row.file,)


def _timm_name(name: str) -> str:
    return IMAGENET[name].timm_name if name in IMAGENET else name.removeprefix(TIMM)


def _timm_repo(name: str, timm_name: str) -> str:
    """The repository of timm's weights; of the default ones where the name has no tag."""
    architecture, tag = split_model_name_tag(timm_name)
    if not timm.is_model(architecture):
        create_timm_model(architecture, {})  # explains it
    tagged = timm.list_pretrained(f"{architecture}.*")
    if (tag and timm_name not in tagged) or not tagged:
        has = f"Tags: {', '.join(tagged)}." if tagged else "It has none."
        raise InputError(f"{name}: timm has no weights of this name. {has}")
    config = timm.get_pretrained_cfg(timm_name)
    repo = None if config is None else config.hf_hub_id
    if not repo:
        raise InputError(f"{name}: timm keeps these weights elsewhere than on the Hub.")
    return str(repo)


def _facts_of_timm(name: str) -> dict[str, Any]:
    """What timm's own table and ours say of weights of timm."""
    if name.startswith(HUB):
        return {}
    config = timm.get_pretrained_cfg(_timm_name(name))
    licence = None if config is None else getattr(config, "license", None)
    facts = {"licence": licence, "timm_name": _timm_name(name)}
    if name in IMAGENET:
        facts["training"] = IMAGENET[name].training
    return {key: value for key, value in facts.items() if value}


def _load_timm_folder(repo: Repo, config: Path, weights: Path) -> Encoder:
    if weights.name == "model.safetensors":
        return load_folder(weights.parent)
    tensors = flat_tensors(read_checkpoint(weights), weights)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / repo.repo.split("/")[-1]
        folder.mkdir()
        (folder / "config.json").write_bytes(config.read_bytes())
        whole = {key: value.contiguous() for key, value in tensors.items()}
        safetensors.torch.save_file(whole, folder / "model.safetensors")
        try:
            return load_folder(folder)
        except InputError as error:
            message = str(error).replace(str(folder / "model.safetensors"), str(weights))
            raise InputError(message.replace(str(folder), str(config.parent))) from None


def _tell_of_copies(repo: str, card: EncoderCard) -> None:
    """Says what `load_folder` could not know from the tag in the config: which repository it is."""
    by_tag = f"{card.architecture}.{card.provenance.get('tag', '')}"
    if released_statistics_note(by_tag, card.mean, card.std) is None:
        note = released_statistics_note(repo, card.mean, card.std)
        if note is not None:
            print(note, file=sys.stderr)
