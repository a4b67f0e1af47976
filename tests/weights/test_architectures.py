"""Architectures told from the shapes of weights."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from eosin.errors import InputError
from eosin.weights.architectures import (
    create_without_weights,
    infer_architecture,
    names_of_weights,
    position_args,
)


def shapes(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if not key.startswith("fc.")}


def on_meta(architecture: str, **args: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(architecture, num_classes=0, **args)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_resnets_by_their_blocks(name: str) -> None:
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    assert infer_architecture(shapes(model)) == (name, {})


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
def test_resnets_of_other_widths_are_not_told(name: str) -> None:
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    assert infer_architecture(shapes(model)) is None


VITS = [
    ("vit_tiny_patch16_224", {}),
    ("vit_small_patch16_224", {"img_size": 96}),
    ("vit_small_patch8_224", {}),
    ("vit_small_patch16_224", {"patch_size": 14, "img_size": 224}),
    ("vit_base_patch16_224", {"init_values": 1e-5}),
    ("vit_base_patch16_224", {"reg_tokens": 4, "no_embed_class": True}),
    ("vit_base_patch16_224", {"reg_tokens": 2}),
    ("vit_base_patch32_224", {"global_pool": "avg"}),
    ("vit_base_patch16_224", {"class_token": False, "global_pool": "avg", "fc_norm": False}),
    ("vit_large_patch14_224", {"qkv_bias": False, "mlp_ratio": 3.0}),
    ("vit_huge_patch14_224", {}),
    ("vit_giant_patch14_dinov2", {"img_size": 224}),
    ("vit_giant_patch14_dinov2", {"img_size": 224, "patch_size": 16}),
    ("vit_giant_patch14_reg4_dinov2", {"img_size": 224, "reg_tokens": 8, "depth": 24}),
    (
        "vit_giant_patch14_reg4_dinov2",
        {
            **{"img_size": 224, "embed_dim": 1280, "depth": 32, "num_heads": 16},
            **{"mlp_ratio": 5.3375, "no_embed_class": False},
        },
    ),
]


@pytest.mark.parametrize(("architecture", "args"), VITS, ids=str)
def test_vits_by_their_shapes(architecture: str, args: dict[str, Any]) -> None:
    model = on_meta(architecture, **args)
    inferred = infer_architecture(shapes(model))
    assert inferred is not None
    again = on_meta(inferred[0], **inferred[1])
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }
    for name in ("num_prefix_tokens", "no_embed_class", "global_pool"):
        assert getattr(again, name) == getattr(model, name)
    assert again.blocks[0].attn.num_heads == model.blocks[0].attn.num_heads
    assert type(again.blocks[0].mlp) is type(model.blocks[0].mlp)


def test_other_networks_and_sizes_are_not_told() -> None:
    assert infer_architecture(shapes(on_meta("convnext_atto"))) is None
    odd = on_meta("vit_small_patch16_224", embed_dim=320, num_heads=5)
    assert infer_architecture(shapes(odd)) is None
    assert position_args(shapes(on_meta("resnet18"))) == {}


def test_a_model_without_weights_is_the_same_once_they_are_loaded() -> None:
    for name in ("test_vit", "test_resnet", "swin_tiny_patch4_window7_224"):
        model = timm.create_model(name, num_classes=0).eval()
        again = create_without_weights(name, {}).eval()
        assert names_of_weights(name, {}) == set(model.state_dict())
        again.load_state_dict(model.state_dict())
        px = 224 if "swin" in name else 160
        images = torch.randn(1, 3, px, px)
        assert torch.equal(again(images), model(images))
    with pytest.raises(InputError, match="no architecture 'resnet19'"):
        create_without_weights("resnet19", {})
