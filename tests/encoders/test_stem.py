"""ResNets without a stride in their stem, as HoVer-Net takes them."""

import pytest
import torch
import torch.nn.functional as F
import torchvision

from eosin.encoders import Encoder, build_encoder
from eosin.errors import UsageError


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    return build_encoder("resnet18", input_px=64, seed=0).eval()


@pytest.mark.parametrize("name", ["resnet18", "resnet10t", "timm/test_resnet"])
def test_strides_are_1_2_4_8(name: str) -> None:
    encoder = build_encoder(name, input_px=64, seed=0).eval()
    unshrunk = encoder.with_stem_stride(1)
    maps = unshrunk.feature_maps(torch.randn(1, 3, 64, 64))
    assert [each.shape[-1] for each in maps] == [64, 32, 16, 8]
    assert unshrunk.feature_strides == (1, 2, 4, 8)
    assert unshrunk.feature_channels == encoder.feature_channels
    assert encoder.feature_strides == (4, 8, 16, 32)
    assert unshrunk.with_stem_stride(1) is unshrunk
    assert encoder.with_stem_stride(4) is encoder


def test_it_computes_the_same_convolutions_at_every_pixel(resnet: Encoder) -> None:
    images = torch.randn(1, 3, 64, 64)
    model = resnet.model
    x = F.conv2d(images, model.conv1.weight, stride=1, padding=3)
    x = model.act1(model.bn1(x))
    expected = []
    for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = layer(x)
        expected.append(x)
    found = resnet.with_stem_stride(1).feature_maps(images)
    for wanted, each in zip(expected, found, strict=True):
        assert torch.equal(wanted, each)


def test_torchvision_agrees(resnet: Encoder) -> None:
    peer = torchvision.models.resnet18()
    peer.fc = torch.nn.Identity()
    peer.load_state_dict(resnet.model.state_dict())
    peer.conv1.stride, peer.maxpool = (1, 1), torch.nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    found = resnet.with_stem_stride(1).embed(images)
    assert torch.allclose(found, peer.eval()(images), atol=1e-5)


def test_weights_are_the_same_and_the_identity_is_not(resnet: Encoder) -> None:
    unshrunk = resnet.with_stem_stride(1)
    assert unshrunk.weights_sha256() == resnet.weights_sha256()
    assert unshrunk.transform_id() == resnet.transform_id() + " stem1"
    images = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(unshrunk.embed(images), resnet.embed(images), atol=1e-3)
    smaller = unshrunk.at_size(32)
    assert smaller.card.stem_stride == 1 and smaller.transform_id().endswith("stem1")
    random = unshrunk.reinitialised(3)
    assert random.transform_id() == unshrunk.transform_id()
    assert random.feature_strides == (1, 2, 4, 8)


@pytest.mark.parametrize("name", ["vit_tiny_patch16", "timm/test_efficientnet", "timm/test_vit"])
def test_only_resnets_have_such_a_stem(name: str) -> None:
    with pytest.raises(UsageError, match="is no ResNet of timm"):
        build_encoder(name, input_px=64, seed=0).with_stem_stride(1)


def test_other_strides_and_stems_are_explained(resnet: Encoder) -> None:
    with pytest.raises(UsageError, match="first stride of 2: choose 1"):
        resnet.with_stem_stride(2)
    with pytest.raises(UsageError, match="first stride of 4: choose 1, or take the encoder as"):
        resnet.with_stem_stride(1).with_stem_stride(4)
    learnt = build_encoder("timm/test_resnet", input_px=64, seed=0, replace_stem_pool=True)
    with pytest.raises(UsageError, match="pools with weights of its own"):
        learnt.with_stem_stride(1)
