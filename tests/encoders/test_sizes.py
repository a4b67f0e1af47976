"""Images of other sizes: the right resize of positions, and one clear error where there is none."""

from collections.abc import Callable

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from eosin.encoders import Encoder, EncoderCard, build_encoder
from eosin.encoders.vit import DINOVisionTransformer, resize_pos_embed, resizing_as_dino
from eosin.errors import UsageError

from .conftest import MAKES

Build = Callable[[str], Encoder]


@pytest.mark.parametrize("make", MAKES)
def test_every_make_takes_another_size(make: str, build: Build) -> None:
    encoder = build(make)
    before = encoder.weights_sha256()
    resized = encoder.at_size(96)
    assert resized.input_px == 96 and encoder.input_px == 64
    assert encoder.weights_sha256() == before  # the first was left alone
    assert resized.transform_id() != encoder.transform_id()
    images = torch.randn(1, 3, 96, 96)
    assert resized.embed(images).shape == (1, encoder.embed_dim)
    grid = 96 // encoder.feature_strides[-1]
    assert resized.token_map(images).shape[2:] == (grid, grid)
    assert encoder.at_size(64) is encoder
    random = resized.reinitialised(3)
    assert random.transform_id() == resized.transform_id()
    assert random.embed(images).shape == (1, encoder.embed_dim)


def at(encoder: Encoder, images: Tensor, positions: Tensor) -> Tensor:
    """Embeds by hand with a position embedding given."""
    vit = encoder.model
    patches = F.conv2d(images, vit.patch_embed.proj.weight, vit.patch_embed.proj.bias, stride=16)
    tokens = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat([vit.cls_token.expand(len(images), -1, -1), tokens], 1) + positions
    return vit.norm(vit.blocks(tokens))[:, 0]


def test_dino_resizes_by_its_rule_and_others_by_timms() -> None:
    images = torch.randn(2, 3, 96, 96)
    dino = build_encoder("vit_tiny_patch16", input_px=64, seed=0).eval()
    assert isinstance(dino.model, DINOVisionTransformer)
    plain_model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64).eval()
    plain_model.load_state_dict(dino.model.state_dict())
    plain = Encoder(plain_model, dino.card)
    by_dino = resize_pos_embed(dino.model.pos_embed, 6, 6)
    by_timm = resample_abs_pos_embed(dino.model.pos_embed, [6, 6], num_prefix_tokens=1)
    expected = {"dino": at(dino, images, by_dino), "timm": at(dino, images, by_timm)}
    resized = {"dino": dino.at_size(96), "timm": plain.at_size(96)}
    for rule, encoder in resized.items():
        assert torch.allclose(encoder.embed(images), expected[rule], atol=1e-5)
        assert encoder.transform_id().endswith(f" positions-{rule}")
        assert encoder.weights_sha256() == dino.weights_sha256()
    assert (expected["dino"] - expected["timm"]).abs().max() > 1e-3
    assert resized["dino"].at_size(64).transform_id() == dino.transform_id()


def test_a_dino_file_in_a_model_of_one_size_takes_others() -> None:
    """Checkpoints are often loaded into timm's default model, which takes its own size only."""
    strict = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, depth=2)
    strict.eval()
    with pytest.raises(AssertionError):
        strict(torch.zeros(1, 3, 96, 96))
    images = torch.randn(1, 3, 64, 64)
    before = strict(images)
    dino = resizing_as_dino(strict)
    assert isinstance(dino, DINOVisionTransformer)
    assert torch.equal(dino(images), before)
    assert dino(torch.zeros(1, 3, 96, 96)).shape == before.shape


@pytest.mark.parametrize("side", [1, 15, 17, 100, 232])
def test_patches_must_divide_the_size(side: int, build: Build) -> None:
    with pytest.raises(UsageError, match=f"multiples of its patches of 16 px; {side} x {side} px"):
        build("vit").at_size(side)


@pytest.mark.parametrize("call", ["embed", "tokens", "feature_maps"])
@pytest.mark.parametrize("make", ["vit", "vit_registers", "eva", "swin"])
def test_images_that_do_not_fit_are_explained(make: str, call: str, build: Build) -> None:
    with pytest.raises(UsageError, match="multiples of its patches"):
        getattr(build(make), call)(torch.zeros(1, 3, 64, 62))


@pytest.mark.parametrize("make", ["eva", "swin"])
def test_a_size_that_patches_do_not_divide_is_explained(make: str, build: Build) -> None:
    with pytest.raises(UsageError, match=r"multiples of its patches of (16|4) px; 90 px is not"):
        build(make).at_size(90)


def test_a_model_of_one_size_says_which() -> None:
    swin = MAKES["swin"]
    encoder = build_encoder(swin[0], input_px=64, **swin[1]).eval()
    with pytest.raises(UsageError, match=r"takes images of 64 x 64 px, not 96 x 96; .*at_size"):
        encoder.embed(torch.zeros(1, 3, 96, 96))
    windows = build_encoder("timm/test_maxvit", input_px=64, seed=0)
    with pytest.raises(UsageError, match=r"cannot take images of 80 px: .* divisible by window"):
        windows.at_size(80)
    mixer = build_encoder("timm/mixer_s32_224", seed=0)
    with pytest.raises(UsageError, match="one size only: timm cannot resize MlpMixer"):
        mixer.at_size(96)
    with pytest.raises(UsageError, match="images of 0 px"):
        encoder.at_size(0)


def test_patches_that_overlap_need_not_divide() -> None:
    encoder = build_encoder("timm/pvt_v2_b0", seed=0).eval()
    images = torch.zeros(1, 3, 96, 96)
    assert encoder.at_size(96).embed(images).shape == (1, encoder.embed_dim)


def test_a_histogram_counts_images_of_any_size() -> None:
    assert build_encoder("colour_histogram").at_size(17).input_px == 17


def test_the_card_builds_the_model_anew(build: Build) -> None:
    """`model_args` follow, so that an export or a random twin is of the same size."""
    for make in ("vit_registers", "eva", "swin"):
        resized = build(make).at_size(96)
        card: EncoderCard = resized.card
        model = timm.create_model(card.architecture, num_classes=0, **card.model_args).eval()
        model.load_state_dict(resized.model.state_dict())
        images = torch.randn(1, 3, 96, 96)
        assert torch.allclose(model(images), resized.embed(images), atol=1e-5)
