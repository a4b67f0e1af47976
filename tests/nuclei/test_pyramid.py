"""Maps of strides 1, 2, 4 and 8 from every kind of encoder."""

import pytest
import torch

from eosin.encoders import Encoder, build_encoder
from eosin.errors import UsageError
from eosin.nuclei.pyramid import STRIDES, Pyramid

SMALL = {"resnet": "resnet10t", "basic": "resnet18", "vit": "timm/test_vit"}


def encoder(name: str, px: int = 64) -> Encoder:
    return build_encoder(name, input_px=px, seed=0).eval()


@pytest.mark.parametrize(
    "name",
    ["resnet10t", "resnet18", "timm/test_vit", "timm/test_efficientnet", "timm/test_convnext"],
)
@pytest.mark.parametrize("px", [64, 96])
def test_any_encoder_gives_four_maps(name: str, px: int) -> None:
    pyramid = Pyramid(encoder(name, px), width=1 / 16).eval()
    maps = pyramid(torch.randn(2, 3, px, px))
    assert pyramid.channels == (16, 32, 64, 64)
    for each, stride, channels in zip(maps, STRIDES, pyramid.channels, strict=True):
        assert each.shape == (2, channels, px // stride, px // stride)
    assert maps[0].std() > 0


def test_a_resnet_of_the_published_widths_keeps_its_skips_as_they_are() -> None:
    resnet = encoder("resnet50", 32)
    pyramid = Pyramid(resnet)
    image = torch.randn(1, 3, 32, 32)
    own = resnet.with_stem_stride(1).feature_maps(image)
    maps = pyramid.eval()(image)
    for ours, given in zip(maps[:3], own[:3], strict=True):
        assert torch.equal(ours, given)
    assert maps[3].shape == (1, 1024, 4, 4)
    assert resnet.feature_strides == (4, 8, 16, 32)


def test_an_efficientnet_gives_its_finest_levels() -> None:
    network = encoder("timm/test_efficientnet")
    strides = [stride for stride, _ in network.finest_levels()]
    assert strides == [2, 4, 8, 16] and network.feature_strides == (4, 8, 16, 32)
    maps = network.feature_maps(torch.randn(1, 3, 64, 64), finest=True)
    assert [each.shape[-1] for each in maps] == [32, 16, 8, 4]
    assert [each.shape[1] for each in maps] == [count for _, count in network.finest_levels()]


def test_a_frozen_encoder_stays_frozen() -> None:
    pyramid = Pyramid(encoder("resnet10t").copied().freeze(), width=1 / 16).train()
    assert not any(parameter.requires_grad for parameter in pyramid.encoder.parameters())
    assert not pyramid.encoder.training
    assert all(parameter.requires_grad for parameter in pyramid.levels.parameters())


def test_without_four_maps_there_is_no_pyramid() -> None:
    with pytest.raises(UsageError, match="colour_histogram"):
        Pyramid(build_encoder("colour_histogram"))
