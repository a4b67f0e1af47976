"""Pathology encoders of others: rows that build what they say, and files that load by them."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from eosin.encoders._base import Encoder, EncoderCard, create_timm_model
from eosin.errors import InputError, UsageError
from eosin.weights import foundation, hub
from eosin.weights.foundation import FOUNDATION, Foundation
from eosin.weights.load import load_encoder

# Millions of parameters as published (rendeirolab/lazyslide-models `param_size`, and the papers).
PUBLISHED = {
    **{"uni": 303.4, "uni2_h": 681.4, "virchow": 631.2, "virchow2": 631.2, "phikon": 85.8},
    **{"phikon_v2": 303.4, "h_optimus_0": 1130, "h_optimus_1": 1130, "h0_mini": 85.7},
    **{"prov_gigapath": 1130, "hibou_b": 85.7, "hibou_l": 303.7, "kaiko_s16": 21.7},
    **{"kaiko_s8": 21.7, "kaiko_b16": 85.8, "kaiko_b8": 85.8, "kaiko_l14": 303.2},
    **{"midnight_12k": 1140, "gpfm": 303, "ctranspath": 27.5},
}


@pytest.mark.parametrize("name", sorted(FOUNDATION))
def test_a_row_builds_what_it_says(name: str) -> None:
    row = FOUNDATION[name]
    size = {} if "swin" in row.architecture else {"img_size": 224}
    with torch.device("meta"):
        model = create_timm_model(row.architecture, {**row.model_args, **size})
    card = EncoderCard(name=name, architecture=row.architecture, pooling=row.pooling)
    encoder = Encoder(model, card)
    assert encoder.embed_dim == row.embed_dim
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[name], rel=0.006)
    assert all(0 < value < 1 for value in (*row.mean, *row.std))
    assert row.licence and row.citation and row.repo.count("/") == 1
    assert row.input_px % getattr(getattr(model, "patch_embed"), "patch_size")[0] == 0  # noqa: B009


def test_names_are_lower_case_and_no_others() -> None:
    assert all(name == name.lower() and "-" not in name for name in FOUNDATION)


TINY: dict[str, Any] = {"embed_dim": 64, "depth": 2, "num_heads": 2}


def small(row: Foundation, **model_args: Any) -> Foundation:
    return replace(row, model_args={**row.model_args, **TINY, **model_args})


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows as they are, but for networks small enough to try."""
    own = {
        "virchow2": replace(small(FOUNDATION["virchow2"], mlp_ratio=4.0), embed_dim=128),
        "uni": small(FOUNDATION["uni"]),
        "gpfm": small(FOUNDATION["gpfm"]),
    }
    for module in (foundation, hub):
        monkeypatch.setattr(module, "FOUNDATION", {**FOUNDATION, **own})
    monkeypatch.setattr("eosin.weights.load.FOUNDATION", {**FOUNDATION, **own})


def saved(model: nn.Module, path: Path, **changes: Tensor) -> Path:
    torch.save({**model.state_dict(), **changes}, path)
    return path


@pytest.mark.usefixtures("rows")
def test_a_file_loads_with_all_that_its_row_says(tmp_path: Path) -> None:
    args = {**TINY, "mlp_ratio": 4.0, "no_embed_class": False, "img_size": 224}
    model = timm.create_model("vit_giant_patch14_reg4_dinov2", num_classes=0, **args).eval()
    file = saved(model, tmp_path / "pytorch_model.bin")
    encoder = load_encoder(file, architecture="virchow2")
    images = torch.randn(1, 3, 224, 224)
    tokens = model.forward_features(images)
    expected = torch.cat([tokens[:, 0], tokens[:, 5:].mean(1)], 1)
    assert torch.allclose(encoder.embed(images), expected, atol=1e-6)
    assert encoder.name == "virchow2" and encoder.pooling == "cls+mean" and encoder.embed_dim == 128
    assert encoder.card.provenance["licence"] == "CC-BY-NC-ND-4.0"
    by_class = load_encoder(file, architecture="virchow2", pooling="cls")
    assert torch.allclose(by_class.embed(images), tokens[:, 0], atol=1e-6)
    with pytest.raises(UsageError, match="has its own mean and std"):
        load_encoder(file, architecture="virchow2", mean=(0.5,) * 3, std=(0.5,) * 3)


@pytest.mark.usefixtures("rows")
def test_weights_of_another_encoder_are_refused(tmp_path: Path) -> None:
    model = timm.create_model("vit_small_patch16_224", num_classes=0, **TINY)
    with pytest.raises(InputError, match=r"does not fit .*missing"):
        load_encoder(saved(model, tmp_path / "a.bin"), architecture="uni")


@pytest.mark.usefixtures("rows")
def test_a_teacher_of_dinov2_loads(tmp_path: Path) -> None:
    """GPFM.pth as kaiko-ai/eva reads it: `teacher`, `backbone.`, blocks in chunks, a mask token."""
    args = {**TINY, "img_size": 224}
    model = timm.create_model("vit_large_patch14_dinov2", num_classes=0, **args).eval()
    table = {
        f"backbone.{key.replace('blocks.', 'blocks.0.')}": value
        for key, value in model.state_dict().items()
    }
    table["backbone.mask_token"] = torch.zeros(1, 64)
    table["dino_head.last_layer.weight_g"] = torch.zeros(1)
    torch.save({"teacher": table}, tmp_path / "GPFM.pth")
    encoder = load_encoder(tmp_path / "GPFM.pth", architecture="gpfm")
    images = torch.randn(1, 3, 224, 224)
    assert torch.allclose(encoder.embed(images), model(images), atol=1e-6)


def old_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As timm 0.5 named a Swin: downsampling ends a layer, and masks are kept."""
    named = {
        key.replace(f"layers.{layer}.downsample", f"layers.{layer - 1}.downsample"): value
        for key, value in state.items()
        for layer in [int(key.split(".")[1]) if key.startswith("layers.") else 0]
    }
    named["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    named["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    return named


def test_ctranspath_has_a_stem_of_its_own(tmp_path: Path) -> None:
    row = FOUNDATION["ctranspath"]
    model = hub.build_foundation(row, {}).eval()
    torch.save({"model": old_names(model.state_dict())}, tmp_path / "ctranspath.pth")
    encoder = load_encoder(tmp_path / "ctranspath.pth", architecture="ctranspath")
    images = torch.randn(1, 3, 224, 224)
    assert torch.allclose(encoder.embed(images), model(images), atol=1e-5)
    assert encoder.embed(images).shape == (1, 768) and encoder.pooling == "mean"
    stem = model.get_submodule("patch_embed.proj")
    assert [tuple(p.shape[:2]) for p in stem.parameters() if p.ndim == 4] == [
        *((12, 3), (24, 12), (96, 24)),
    ]


def test_the_documentation_lists_every_row() -> None:
    text = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text()
    for name, row in FOUNDATION.items():
        assert f"| `{name}` | {row.title} |" in text and row.licence in text
