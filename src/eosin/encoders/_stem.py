"""ResNets whose stem does not shrink the image: strides 1, 2, 4, 8 instead of 4, 8, 16, 32."""

from typing import Any

from timm.models.resnet import ResNet
from torch import nn

from eosin.errors import UsageError


def remove_stem_stride(model: nn.Module, name: str) -> None:
    """Gives the first convolution of a ResNet stride 1 and takes out its max-pooling, in place.

    Both have no weights or keep them, so the weights and their names stay as they are.

    Raises:
        UsageError: the model is no ResNet of timm, or its stem shrinks the image with weights of
            its own.
    """
    if not isinstance(model, ResNet):
        raise UsageError(f"{name} is no ResNet of timm: only these have a stem without stride.")
    first = next(each for each in model.conv1.modules() if isinstance(each, nn.Conv2d))
    if any(True for _ in model.maxpool.parameters()) or first.stride != (2, 2):
        raise UsageError(
            f"{name}: the stem of {type(model).__name__} cannot do without its stride, since it "
            "pools with weights of its own. Choose a ResNet with plain max-pooling, such as "
            "resnet50."
        )
    first.stride = (1, 1)
    model.maxpool = nn.Identity().train(model.training)
    levels: Any = model.feature_info
    model.feature_info = [
        {**level, "reduction": max(1, level["reduction"] // 4)} for level in levels
    ]
