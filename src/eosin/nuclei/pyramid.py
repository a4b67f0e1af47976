"""Feature maps of strides 1, 2, 4 and 8 from any encoder, as HoVer-Net's decoder takes them.

HoVer-Net (Graham et al. 2019, arXiv 1812.06499, section III-A) looks at nuclei at the resolution of
the image: its ResNet-50 has no stride in the stem and no pooling. How other encoders get there:

- a ResNet of timm loses the stride and the pooling of its stem in the same way, and keeps its
  weights, as in the authors' own branch for a torchvision ResNet-50;
- the four maps of a ViT are enlarged by transposed convolutions: of a ViT with patches of 16 by 16,
  8, 4 and 2, of one with patches of 8 by 8, 4, 2 and not at all (after Hatamizadeh et al. 2022,
  UNETR, arXiv 2103.10504, but with sums for skips, as HoVer-Net has them);
- any other network gives its four finest maps, enlarged as far as is needed.
"""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.errors import UsageError

STRIDES = (1, 2, 4, 8)
CHANNELS = (256, 512, 1024, 1024)
"""Of HoVer-Net; the last map has half of ResNet-50's 2,048, by a convolution of 1 x 1."""

_LEAST_CHANNELS = 8


class Pyramid(nn.Module):
    """An encoder with what turns its feature maps into those of HoVer-Net.

    Args:
        encoder: any with four feature maps; of a ResNet a copy without the stem's stride is taken.
        width: share of HoVer-Net's channels.

    Raises:
        UsageError: its feature maps do not fit.
    """

    def __init__(self, encoder: Encoder, width: float = 1.0) -> None:
        super().__init__()
        self.encoder = without_stem_stride(encoder)
        self.channels = tuple(scaled(count, width) for count in CHANNELS)
        found = self.encoder.finest_levels()
        is_grid = len({stride for stride, _ in found}) == 1
        factors = [
            _factor(stride, wanted, encoder.name)
            for (stride, _), wanted in zip(found, STRIDES, strict=True)
        ]
        self.levels = nn.ModuleList(
            _level(factor, given, channels, is_grid=is_grid)
            for factor, (_, given), channels in zip(factors, found, self.channels, strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Gives four maps of normalised images [B, 3, H, W], finest first.

        Returns:
            [B, C, H / s, W / s] for each of `STRIDES`, with `channels`.

        Raises:
            UsageError: the encoder does not take images of this size.
        """
        maps = self.encoder.feature_maps(images, finest=True)
        return [level(each) for level, each in zip(self.levels, maps, strict=True)]


def without_stem_stride(encoder: Encoder) -> Encoder:
    """Gives a ResNet whose stem has no stride; any other encoder as it is."""
    try:
        return encoder.with_stem_stride(1)
    except UsageError:
        return encoder


def scaled(channels: int, width: float) -> int:
    """Gives a share of a number of channels, in whole groups of 8."""
    return max(_LEAST_CHANNELS, 8 * round(channels * width / 8))


def _factor(stride: int, wanted: int, name: str) -> int:
    """How often a map must be enlarged by two, as a factor."""
    factor = stride // wanted
    if factor * wanted != stride or factor & (factor - 1):
        raise UsageError(
            f"{name} has a feature map of stride {stride}, which cannot be enlarged to stride "
            f"{wanted}; its strides must be powers of two."
        )
    return factor


def _level(factor: int, given: int, channels: int, *, is_grid: bool) -> nn.Module:
    """Makes what turns one map into one with the wanted stride and channels."""
    if factor > 1 and is_grid:
        return nn.Sequential(*_transposed(given, channels, factor))
    fitted = nn.Identity() if given == channels else nn.Conv2d(given, channels, 1, bias=False)
    return fitted if factor == 1 else nn.Sequential(fitted, _Enlarge(factor))


def _transposed(given: int, channels: int, factor: int) -> Iterator[nn.Module]:
    """Doubles the map step by step; each step is smoothed, as its pixels share no neighbours."""
    while factor > 1:
        yield nn.ConvTranspose2d(given, channels, 2, stride=2)
        yield nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        yield nn.BatchNorm2d(channels)
        yield nn.ReLU(inplace=True)
        given, factor = channels, factor // 2


class _Enlarge(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self._factor = factor

    def forward(self, features: Tensor) -> Tensor:
        return F.interpolate(features, scale_factor=self._factor, mode="bilinear")
