"""Tokens on their grid and four feature maps, for models of every make."""

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from eosin.encoders import Encoder, EncoderCard, build_encoder
from eosin.errors import UsageError

from .conftest import MAKES

Build = Callable[[str], Encoder]

ISOTROPIC = {make for make in MAKES if make.startswith("vit") or make == "eva"}


@pytest.mark.parametrize("make", MAKES)
def test_tokens_lie_on_their_grid_row_by_row(make: str, build: Build, images: Tensor) -> None:
    encoder = build(make)
    on_grid = encoder.token_map(images)
    batch, dim, height, width = on_grid.shape
    tokens = encoder.tokens(images)
    assert tokens.shape == (batch, height * width, dim)
    assert torch.equal(tokens[:, 1], on_grid[:, :, 0, 1])
    side = 64 // encoder.feature_strides[-1]
    assert (height, width) == (side, side)


@pytest.mark.parametrize("make", ["vit", "resnet", "vit_registers"])
def test_an_image_need_not_be_square(make: str, build: Build) -> None:
    encoder = build(make)
    images = torch.randn(1, 3, 64, 128)
    stride = encoder.feature_strides[-1]
    assert encoder.token_map(images).shape[2:] == (64 // stride, 128 // stride)
    finest = encoder.feature_maps(images)[0]
    assert finest.shape[3] == 2 * finest.shape[2]


@pytest.mark.parametrize("make", ["vit", "vit_registers", "eva", "swin", "convnext", "resnet"])
def test_a_change_of_pixels_shows_at_its_place(make: str, build: Build) -> None:
    """Of tokens in any other order the place would be another."""
    encoder = build(make).at_size(128)
    images = torch.zeros(1, 3, 128, 128)
    changed = images.clone()
    changed[:, :, :32, 96:] = 2
    for before, after in zip(
        [encoder.token_map(images), *encoder.feature_maps(images)],
        [encoder.token_map(changed), *encoder.feature_maps(changed)],
        strict=True,
    ):
        moved = (after - before).norm(dim=1)[0]
        row, column = divmod(int(moved.argmax()), moved.shape[1])
        assert row < moved.shape[0] * 0.4 and column >= moved.shape[1] * 0.6


@pytest.mark.parametrize("make", MAKES)
def test_maps_have_the_strides_and_channels_that_are_said(
    make: str, build: Build, images: Tensor
) -> None:
    encoder = build(make)
    maps = encoder.feature_maps(images)
    assert len(maps) == 4
    assert [each.shape[1] for each in maps] == list(encoder.feature_channels)
    assert [each.shape[2] for each in maps] == [64 // s for s in encoder.feature_strides]
    assert [each.shape[3] for each in maps] == [64 // s for s in encoder.feature_strides]
    strides = (16,) * 4 if make in ISOTROPIC else (4, 8, 16, 32)
    assert encoder.feature_strides == strides


def test_maps_of_a_vit_are_of_blocks_3_6_9_and_12_before_the_last_norm() -> None:
    encoder = build_encoder("vit_tiny_patch16", input_px=64, seed=0).eval()
    images = torch.randn(1, 3, 64, 64)
    vit = encoder.model
    tokens = vit._pos_embed(vit.patch_embed(images))
    expected = []
    for number, block in enumerate(vit.blocks, start=1):
        tokens = block(tokens)
        if number in (3, 6, 9, 12):
            expected.append(tokens[:, 1:].transpose(1, 2).reshape(1, 192, 4, 4))
    for found, wanted in zip(encoder.feature_maps(images), expected, strict=True):
        assert torch.equal(found, wanted)
    last = expected[-1].flatten(2).transpose(1, 2)
    assert torch.allclose(encoder.tokens(images), vit.norm(last), atol=1e-6)


def test_the_last_level_of_a_resnet_is_what_it_pools(build: Build, images: Tensor) -> None:
    encoder = build("resnet")
    assert torch.equal(encoder.feature_maps(images)[-1], encoder.token_map(images))


def test_fewer_than_four_levels_are_explained() -> None:
    model = VisionTransformer(
        img_size=32, embed_dim=24, depth=3, num_heads=1, num_classes=0, dynamic_img_size=True
    )
    encoder = Encoder(model, EncoderCard(name="shallow", architecture="none", pooling="cls"))
    with pytest.raises(UsageError, match="shallow has no four feature maps: timm names 3 levels"):
        encoder.feature_maps(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("make", ["vit", "resnet", "convnext"])
def test_gradients_reach_the_first_layer_through_maps(
    make: str, build: Build, images: Tensor
) -> None:
    encoder = build(make).train()
    sum(each.square().mean() for each in encoder.feature_maps(images)).backward()
    first = next(p for n, p in encoder.named_parameters() if n.endswith("weight"))
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_a_norm_behind_a_hidden_layer_is_not_of_the_tokens() -> None:
    encoder = build_encoder("timm/inception_next_atto", input_px=64, seed=0).eval()
    images = torch.randn(1, 3, 64, 64)
    assert encoder.pooling == "native"
    assert torch.equal(encoder.token_map(images), encoder.model.forward_features(images))


def test_tokens_that_timm_does_not_tell_apart_are_explained() -> None:
    encoder = build_encoder("timm/coat_lite_tiny", seed=0).eval()
    images = torch.zeros(1, 3, 224, 224)
    assert encoder.pooling == "native" and encoder.embed(images).shape == (1, encoder.embed_dim)
    with pytest.raises(UsageError, match="does not say which tokens of CoaT are patches"):
        encoder.tokens(images)
    with pytest.raises(UsageError, match="pools in its own way only"):
        encoder.with_pooling("mean")
