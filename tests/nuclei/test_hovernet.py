"""The decoders: sizes, skips, and the published numbers of weights."""

import pytest
import torch
from torch import nn

from eosin.encoders import build_encoder
from eosin.errors import UsageError
from eosin.nuclei.hovernet import Decoder, HoVerNet
from eosin.nuclei.pyramid import CHANNELS


def network(name: str = "resnet10t", px: int = 64, **changes) -> HoVerNet:
    torch.manual_seed(0)
    encoder = build_encoder(name, input_px=px, seed=0).eval()
    return HoVerNet(encoder, 4, **{"width": 1 / 16, **changes}).eval()


@pytest.mark.parametrize("name", ["resnet10t", "timm/test_vit", "timm/test_efficientnet"])
def test_same_geometry_keeps_the_size(name: str) -> None:
    outputs = network(name)(torch.randn(2, 3, 64, 64))
    assert outputs.foreground.shape == outputs.hv.shape == (2, 2, 64, 64)
    assert outputs.types.shape == (2, 5, 64, 64)
    assert {each.dtype for each in outputs} == {torch.float32}


@pytest.mark.parametrize(("input_px", "output_px"), [(256, 164), (128, 36)])
def test_valid_geometry_gives_the_middle(input_px: int, output_px: int) -> None:
    model = network(px=input_px, geometry="valid")
    assert model.output_px(input_px) == output_px
    assert model(torch.randn(1, 3, input_px, input_px)).hv.shape[-1] == output_px


def test_the_decoders_have_the_published_number_of_weights() -> None:
    # Of the three decoders of the `fast` network with five types: 12.0 million (reference).
    branches = [Decoder(CHANNELS, outputs, width=1.0, is_padded=False) for outputs in (2, 2, 5)]
    weights = sum(p.numel() for branch in branches for p in branch.parameters())
    assert weights == pytest.approx(12.0e6, rel=0.01)


@pytest.mark.parametrize("geometry", ["same", "valid"])
@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_skip_changes_every_output(geometry: str, level: int) -> None:
    model = network(px=128, geometry=geometry)
    image = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        maps = model.pyramid(image)
        changed = [each.clone() for each in maps]
        changed[level] += torch.randn_like(changed[level])
        for branch in (model.foreground, model.hv, model.types):
            assert (branch(maps) - branch(changed)).abs().mean() > 1e-4


def test_an_output_sees_its_own_place() -> None:
    # Far from the encoder's padding, a shift of the image by the coarsest stride shifts the output.
    model = network(px=256, geometry="valid")
    image = torch.randn(1, 3, 264, 256)
    with torch.no_grad():
        upper, lower = model(image[:, :, :256]).hv, model(image[:, :, 8:]).hv
    middle = slice(72, 92)
    assert torch.allclose(upper[..., 80:100, middle], lower[..., middle, middle], atol=1e-4)
    assert not torch.allclose(upper[..., middle, middle], lower[..., middle, middle], atol=1e-2)


def test_a_frozen_encoder_gets_no_gradient_and_moves_nothing() -> None:
    encoder = build_encoder("resnet10t", input_px=64, seed=0).freeze()
    model = HoVerNet(encoder, 4, width=1 / 16).train()
    before = model.encoder.weights_sha256()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        sum(each.square().mean() for each in model(torch.randn(2, 3, 64, 64))).backward()
        optimizer.step()
    assert model.encoder.weights_sha256() == before
    moved = [m for m in model.foreground.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(int(layer.num_batches_tracked) == 2 for layer in moved)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="60 px cannot be halved"):
        network().output_px(60)
    with pytest.raises(UsageError, match="too small"):
        network(geometry="valid").output_px(64)
