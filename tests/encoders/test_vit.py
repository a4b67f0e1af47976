"""The ViT initialises and resizes as DINO's official code does."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from eosin.encoders.vit import DINOVisionTransformer, build, resize_pos_embed, resizing_as_dino


def cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
    """Keys' cubic kernel with the coefficient that PyTorch's bicubic uses."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def resize_axis(values: np.ndarray, size: int) -> np.ndarray:
    """Bicubic along the first axis at the positions that the scale (size + 0.1) / old gives."""
    old = len(values)
    scale = old / (size + 0.1)
    out = np.zeros((size, *values.shape[1:]))
    for index in range(size):
        centre = (index + 0.5) * scale - 0.5
        for tap in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            out[index] += cubic(np.array(centre - tap)) * values[np.clip(tap, 0, old - 1)]
    return out


@pytest.mark.parametrize("size", [3, 6, 20])
def test_the_resize_equals_a_float64_reference(size: int) -> None:
    grid = np.random.default_rng(0).normal(size=(14, 14, 5))
    embed = torch.tensor(np.concatenate([np.ones((1, 5)), grid.reshape(196, 5)]))[None].float()
    expected = resize_axis(resize_axis(grid, size).swapaxes(0, 1), size).swapaxes(0, 1)
    found = resize_pos_embed(embed, size, size)[0].double().numpy()
    assert np.array_equal(found[0], np.ones(5))
    assert np.allclose(found[1:].reshape(size, size, 5), expected, atol=1e-4)


def test_the_native_size_is_left_alone() -> None:
    embed = torch.randn(1, 1 + 36, 8)
    assert resize_pos_embed(embed, 6, 6) is embed


def test_the_class_token_is_drawn_as_the_position_embedding() -> None:
    model = build("vit_small_patch16", input_px=96, seed=0).model
    assert isinstance(model, DINOVisionTransformer)
    assert model.cls_token is not None and model.pos_embed is not None
    assert float(model.cls_token.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert float(model.pos_embed.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert model.norm.eps == 1e-6


def test_only_the_layout_that_dino_trains_is_changed() -> None:
    registers = VisionTransformer(img_size=32, embed_dim=24, depth=1, num_heads=1, reg_tokens=2)
    assert type(resizing_as_dino(registers)) is VisionTransformer
    plain = VisionTransformer(img_size=32, embed_dim=24, depth=1, num_heads=1)
    assert type(resizing_as_dino(plain)) is DINOVisionTransformer
    convolutional = torch.nn.Conv2d(3, 3, 1)
    assert resizing_as_dino(convolutional) is convolutional
