"""HoVer-Net: three decoders on the feature maps of any encoder.

Graham et al. 2019, "HoVer-Net: Simultaneous segmentation and classification of nuclei in
multi-tissue histology images", arXiv 1812.06499, section III, in the form that the authors call
`fast` (kernels of 3 x 3). Every layer, number of channels and order is that of their code
(vqdang/hover_net at 67e2ce5, models/hovernet/net_desc.py, net_utils.py): nearest-neighbour
enlargement, skips that are added, dense units with four groups, pre-activation, no bias but in the
last layer.

Two geometries: `same` pads all convolutions, so that 256 pixels give 256, as in the authors' branch
for a ResNet-50 of torchvision; `valid` pads none but the last block's, so that 256 give the 164 in
the middle.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.errors import UsageError
from eosin.nuclei.pyramid import Pyramid, scaled

Geometry = Literal["same", "valid"]

_KERNEL = 3
_GROUPS = 4
_BOTTLENECK, _GROWTH = 128, 32
_DENSE_UNITS = (8, 4)
_COARSEST = 8


class Outputs(NamedTuple):
    """What the network says of each pixel, in float32.

    Attributes:
        foreground: logits of background and nucleus, [B, 2, h, w].
        hv: horizontal and vertical distance to the centre of mass, [B, 2, h, w].
        types: logits of background and each type, [B, 1 + C, h, w].
    """

    foreground: Tensor
    hv: Tensor
    types: Tensor


class HoVerNet(nn.Module):
    """The network.

    Args:
        encoder: used and, unless it is frozen, trained.
        n_types: how many types of nuclei C there are.
        geometry: `same` or `valid`.
        width: share of the published numbers of channels; less than 1 for CPUs and tests.

    Raises:
        UsageError: the encoder has no four feature maps that fit.
    """

    def __init__(
        self, encoder: Encoder, n_types: int, *, geometry: Geometry = "same", width: float = 1.0
    ) -> None:
        super().__init__()
        self.pyramid = Pyramid(encoder, width)
        self.geometry: Geometry = geometry
        channels = self.pyramid.channels
        is_padded = geometry == "same"
        self.foreground = Decoder(channels, 2, width=width, is_padded=is_padded)
        self.hv = Decoder(channels, 2, width=width, is_padded=is_padded)
        self.types = Decoder(channels, 1 + n_types, width=width, is_padded=is_padded)

    @property
    def encoder(self) -> Encoder:
        """What gives the feature maps."""
        return self.pyramid.encoder

    def output_px(self, input_px: int) -> int:
        """Gives the side of the outputs for images of a side.

        Raises:
            UsageError: there are no such images.
        """
        if input_px % _COARSEST:
            raise UsageError(f"Images of {input_px} px cannot be halved three times without rest.")
        if self.geometry == "same":
            return input_px
        middle = 2 * (input_px // 4 - _lost_in(0)) - _lost_in(1)
        if middle < 1:
            raise UsageError(f"Images of {input_px} px are too small: nothing is left of them.")
        return 2 * middle

    def forward(self, images: Tensor) -> Outputs:
        """Gives the maps of normalised images [B, 3, H, W], [B, ., h, w] with `output_px` sides.

        Raises:
            UsageError: the images are too small, or their sides no multiples of 8.
        """
        height, width = (self.output_px(side) for side in images.shape[-2:])
        maps = self.pyramid(images)
        found = [branch(maps).float() for branch in (self.foreground, self.hv, self.types)]
        assert found[0].shape[-2:] == (height, width)
        return Outputs(*found)


class Decoder(nn.Module):
    """One of the three branches.

    Args:
        channels: of the four feature maps, finest first.
        outputs: channels of the result.
        width: share of the published numbers of channels.
        is_padded: whether the convolutions of the first two blocks are padded.
    """

    def __init__(
        self, channels: tuple[int, ...], outputs: int, *, width: float, is_padded: bool
    ) -> None:
        super().__init__()
        finest, fine, coarse, _ = channels
        padding = _KERNEL // 2 if is_padded else 0
        first = _Dense(finest, _DENSE_UNITS[0], width, padding)
        second = _Dense(scaled(_BOTTLENECK, width), _DENSE_UNITS[1], width, padding)
        self.u3 = nn.Sequential(
            _convolution(coarse, finest, _KERNEL, padding),
            first,
            _convolution(first.channels, fine, 1),
        )
        self.u2 = nn.Sequential(
            _convolution(fine, scaled(_BOTTLENECK, width), _KERNEL, padding),
            second,
            _convolution(second.channels, finest, 1),
        )
        last = scaled(64, width)
        self.u1 = _convolution(finest, last, _KERNEL, _KERNEL // 2)
        self.u0 = nn.Sequential(
            nn.BatchNorm2d(last), nn.ReLU(inplace=True), nn.Conv2d(last, outputs, 1)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Gives [B, outputs, h, w] from the four maps, finest first."""
        finest, fine, coarse, coarsest = maps
        features = self.u3(_enlarged(coarsest) + coarse)
        features = self.u2(_added(_enlarged(features), fine))
        features = self.u1(_added(_enlarged(features), finest))
        return self.u0(features)


class _Dense(nn.Module):
    """Units that each see what all before them gave, in the middle that is left of it."""

    def __init__(self, channels: int, units: int, width: float, padding: int) -> None:
        super().__init__()
        bottleneck, growth = scaled(_BOTTLENECK, width), scaled(_GROWTH, width)
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + unit * growth),
                nn.ReLU(inplace=True),
                _convolution(channels + unit * growth, bottleneck, 1),
                nn.BatchNorm2d(bottleneck),
                nn.ReLU(inplace=True),
                _convolution(bottleneck, growth, _KERNEL, padding, groups=_GROUPS),
            )
            for unit in range(units)
        )
        self.channels = channels + units * growth
        self.closing = nn.Sequential(nn.BatchNorm2d(self.channels), nn.ReLU(inplace=True))

    def forward(self, features: Tensor) -> Tensor:
        for unit in self.units:
            new = unit(features)
            features = torch.cat([_middle(features, new), new], dim=1)
        return self.closing(features)


def _convolution(
    given: int, channels: int, kernel: int, padding: int = 0, groups: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(given, channels, kernel, padding=padding, groups=groups, bias=False)


def _enlarged(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


def _added(features: Tensor, skip: Tensor) -> Tensor:
    """Adds the middle of a finer map, as much as is left."""
    return features + _middle(skip, features)


def _middle(features: Tensor, like: Tensor) -> Tensor:
    """Cuts the middle out of a map, as large as another one."""
    top, left = ((a - b) // 2 for a, b in zip(features.shape[-2:], like.shape[-2:], strict=True))
    return features[..., top : top + like.shape[-2], left : left + like.shape[-1]]


def _lost_in(block: int) -> int:
    """Pixels of a side that unpadded convolutions of a block take."""
    return (_KERNEL - 1) * (1 + _DENSE_UNITS[block])
