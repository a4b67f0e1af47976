"""What travels with an encoder's weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class EncoderCard:
    """What has to be known to use an encoder rightly, and travels with its weights.

    Attributes:
        name: how the encoder is called in tables, such as `resnet50.lunit_swav`.
        architecture: timm's name of the architecture.
        model_args: arguments of `timm.create_model` besides the architecture, such as `img_size`.
        input_px: side of the square image that `embed` is meant for.
        mean: subtracted from pixels in [0, 1], one value a channel.
        std: divides the result, one value a channel.
        pooling: how tokens or positions become one vector: `cls`, `mean`, `cls+mean`, or the
            model's own: `map` (attention) or `native` (anything else).
        interpolation: how images are resized to `input_px`.
        stem_stride: 1 for a ResNet whose stem does not shrink the image; None for the
            architecture as it is.
        provenance: where the weights come from: method, data, updates, versions.
    """

    name: str
    architecture: str
    model_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_px: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pooling: str = "mean"
    interpolation: str = "bicubic"
    stem_stride: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])
