"""Pooling by name: what is pooled is what the name says, for models of every make."""

import dataclasses
from collections.abc import Callable

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from eosin.encoders import Encoder, build_encoder
from eosin.encoders._base import pooling_of
from eosin.errors import UsageError

from .conftest import MAKES

Build = Callable[[str], Encoder]

NATIVE = {
    "vit": "cls",
    "vit_registers": "cls",
    "vit_registers_only": "mean",
    "vit_norm_first": "mean",
    "vit_norm_after": "mean",
    "vit_rms_norm": "mean",
    "vit_attention_pooled": "map",
    "vit_distilled": "native",
    "eva": "mean",
    "swin": "mean",
    "convnext": "mean",
    "efficientnet": "mean",
    "resnet": "mean",
    "resnet_deep_stem": "mean",
    "hidden_layer": "native",
}
NORM_AFTER_POOLING = {"vit_rms_norm", "vit_norm_after", "vit_registers_only", "eva", "convnext"}
WITH_CLASS_TOKEN = {
    "vit",
    "vit_registers",
    "vit_norm_first",
    "vit_norm_after",
    "vit_distilled",
    "eva",
}


@pytest.mark.parametrize("make", MAKES)
def test_the_card_says_what_the_model_does(make: str, build: Build, images: Tensor) -> None:
    encoder = build(make)
    assert encoder.pooling == NATIVE[make]
    found = encoder.embed(images)
    assert torch.equal(found, encoder.model(images))
    assert found.shape == (2, encoder.embed_dim)
    assert encoder.with_pooling("native") is encoder
    assert encoder.with_pooling(encoder.pooling) is encoder


@pytest.mark.parametrize("make", sorted(set(MAKES) - NORM_AFTER_POOLING))
def test_the_mean_is_that_of_the_tokens(make: str, build: Build, images: Tensor) -> None:
    encoder = build(make).with_pooling("mean")
    assert encoder.pooling == "mean"
    expected = encoder.tokens(images).mean(1)
    found = encoder.embed(images)
    assert found.shape == (2, encoder.embed_dim)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("make", sorted(NORM_AFTER_POOLING))
def test_a_norm_after_the_pooling_follows_the_mean(make: str, build: Build, images: Tensor) -> None:
    encoder = build(make)
    features = encoder.model.forward_features(images)
    if make == "convnext":
        expected = encoder.model.head.norm(features.mean((2, 3), keepdim=True)).flatten(1)
    else:
        patches = features[:, encoder.model.num_prefix_tokens :]
        expected = encoder.model.fc_norm(patches.mean(1))
        assert torch.allclose(encoder.tokens(images), encoder.model.fc_norm(patches), atol=1e-6)
    assert torch.allclose(encoder.with_pooling("mean").embed(images), expected, atol=1e-6)
    assert not torch.allclose(encoder.tokens(images).mean(1), expected, atol=1e-2)


@pytest.mark.parametrize("make", sorted(WITH_CLASS_TOKEN))
def test_the_class_token_is_the_first_alone(make: str, build: Build, images: Tensor) -> None:
    encoder = build(make)
    first = encoder.model.fc_norm(encoder.model.forward_features(images)[:, 0])
    by_class = encoder.with_pooling("cls")
    assert torch.equal(by_class.embed(images), first)
    both = encoder.with_pooling("cls+mean")
    mean = encoder.with_pooling("mean")
    assert both.embed_dim == 2 * by_class.embed_dim
    expected = torch.cat([by_class.embed(images), mean.embed(images)], 1)
    assert torch.allclose(both.embed(images), expected, atol=1e-6)
    assert torch.allclose(both.with_pooling("native").embed(images), encoder.embed(images))


@pytest.mark.parametrize("make", sorted(set(MAKES) - WITH_CLASS_TOKEN))
@pytest.mark.parametrize("pooling", ["cls", "cls+mean"])
def test_no_class_token_no_pooling_by_it(make: str, pooling: str, build: Build) -> None:
    with pytest.raises(UsageError, match="has no class token"):
        build(make).with_pooling(pooling)


def test_registers_are_left_out(build: Build, images: Tensor) -> None:
    encoder = build("vit_registers")
    tokens = encoder.tokens(images)
    whole = encoder.model.forward_features(images)
    assert whole.shape[1] == 1 + 3 + 16 and tokens.shape[1] == 16
    assert torch.equal(tokens, whole[:, 4:])
    assert not torch.allclose(whole[:, 1:].mean(1), encoder.with_pooling("mean").embed(images))


def test_another_pooling_leaves_the_encoder_alone(build: Build, images: Tensor) -> None:
    encoder = build("vit")
    before = encoder.embed(images)
    mean = encoder.with_pooling("mean")
    assert mean.weights_sha256() == encoder.weights_sha256()
    nn.init.zeros_(mean.model.norm.weight)
    assert torch.equal(encoder.embed(images), before)
    assert encoder.pooling == "cls"
    with pytest.raises(UsageError, match="cannot pool by 'max': choose cls, mean, cls\\+mean"):
        encoder.with_pooling("max")


def test_what_is_not_timms_pools_in_its_own_way() -> None:
    histogram = build_encoder("colour_histogram")
    assert histogram.with_pooling("native") is histogram
    assert histogram.with_pooling("histogram") is histogram
    with pytest.raises(UsageError, match="counts all pixels"):
        histogram.with_pooling("mean")
    with pytest.raises(UsageError, match="has no tokens"):
        histogram.tokens(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("make", ["vit", "vit_registers", "vit_norm_first", "vit_norm_after"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_bare_timm_pools_so_with_the_arguments_given(
    make: str, pooling: str, build: Build, images: Tensor
) -> None:
    encoder = build(make).with_pooling(pooling)
    bare = timm.create_model(encoder.architecture, num_classes=0, **encoder.timm_args()).eval()
    bare.load_state_dict(encoder.model.state_dict())
    assert pooling_of(bare) == pooling
    assert torch.allclose(bare(images), encoder.embed(images), atol=1e-6)


def test_poolings_that_have_no_name_are_native() -> None:
    def vit(**args: object) -> VisionTransformer:
        small = {"img_size": 32, "embed_dim": 24, "depth": 1, "num_heads": 1, "num_classes": 0}
        return VisionTransformer(**{**small, **args})

    assert pooling_of(vit()) == "cls"
    assert pooling_of(vit(global_pool="avgmax")) == "native"
    assert pooling_of(vit(global_pool="avg", pool_include_prefix=True)) == "native"
    assert pooling_of(vit(global_pool="prr")) == "native"
    assert (
        pooling_of(timm.create_model("test_resnet", num_classes=0, global_pool="max")) == "native"
    )
    assert pooling_of(nn.Flatten()) == "native"


@pytest.mark.parametrize(("make", "pooling"), [("resnet", "cls"), ("vit", "map"), ("vit", "sum")])
def test_a_card_that_demands_what_cannot_be_is_refused(
    make: str, pooling: str, build: Build, images: Tensor
) -> None:
    encoder = build(make)
    wrong = Encoder(encoder.model, dataclasses.replace(encoder.card, pooling=pooling))
    with pytest.raises(UsageError, match="cannot pool by"):
        wrong.embed(images)
