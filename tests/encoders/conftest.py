"""Small encoders of different make, and images that no augmentation has touched."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from eosin.encoders import Encoder, build_encoder

# Name of the case: (timm's name, its arguments). All take 64 px and build in a blink.
MAKES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "vit": ("timm/test_vit", {}),
    "vit_registers": ("timm/test_vit", {"reg_tokens": 3, "depth": 4}),
    "vit_registers_only": ("timm/test_vit2", {"depth": 4}),
    "vit_norm_first": ("timm/test_vit", {"depth": 4, "global_pool": "avg", "fc_norm": False}),
    "vit_norm_after": ("timm/test_vit", {"depth": 4, "global_pool": "avg"}),
    "vit_rms_norm": ("timm/test_vit4", {"depth": 4}),
    "vit_attention_pooled": ("timm/test_vit3", {"depth": 4}),
    "vit_distilled": (
        "timm/deit_tiny_distilled_patch16_224",
        {"embed_dim": 24, "num_heads": 2, "depth": 4},
    ),
    "eva": (
        "timm/eva02_tiny_patch14_224",
        {"embed_dim": 48, "num_heads": 2, "depth": 4, "patch_size": 16, "img_size": 64},
    ),
    "swin": (
        "timm/swin_tiny_patch4_window7_224",
        {
            "embed_dim": 16,
            "depths": (1, 1, 1, 1),
            "num_heads": (1, 1, 2, 2),
            "img_size": 64,
            "window_size": 2,
        },
    ),
    "convnext": ("timm/test_convnext", {}),
    "efficientnet": ("timm/test_efficientnet", {}),
    "resnet": ("timm/test_resnet", {}),
    "resnet_deep_stem": ("resnet10t", {}),
    "hidden_layer": ("timm/mobilenetv3_small_050", {}),
}


@functools.cache
def _made(make: str) -> Encoder:
    """Weights are drawn anew, since under those that timm starts with much that is wrong is right.

    Biases are 0 then, class tokens nearly, and BatchNorm's statistics 0 and 1.
    """
    name, args = MAKES[make]
    encoder = build_encoder(name, input_px=64, seed=0, **args).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in encoder.model.state_dict().items():
            if value.is_floating_point():
                drawn = torch.randn(value.shape, generator=generator)
                is_positive = key.endswith("running_var") or value.eq(1).all()
                value.copy_(1 + 0.3 * drawn.abs() if is_positive else value + 0.05 * drawn)
    return encoder


@pytest.fixture
def build() -> Callable[[str], Encoder]:
    """Gives a function from a case of `MAKES` to its encoder for 64 px, in evaluation mode."""
    return lambda make: _made(make).copied()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
