"""The interface of the README of lunit-io/benchmark-ssl-pathology, by its own names.

Code written for that README moves over by importing these names instead of copying its snippet:
the models are of torchvision and timm as there, with the same parameter names. What differs:
files are downloaded, verified and kept by `eosin.weights`, once their licence was accepted;
nothing goes through `torch.hub`; and the models are to be fed with images that are normalised by
`MEAN` and `STD`, which the README does not mention.
"""

from collections.abc import Collection
from typing import Any, TypeVar

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from eosin.errors import UsageError
from eosin.weights.catalogue import MEAN, RELEASED, STD
from eosin.weights.released import read_released
from eosin.weights.strict import load_strictly

__all__ = ["MEAN", "STD", "ResNetTrunk", "get_pretrained_url", "resnet50", "vit_small"]

ModelT = TypeVar("ModelT", bound=nn.Module)

_NAMES = {row.key: name for name, row in RELEASED.items()}
_TRUNK = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


class ResNetTrunk(ResNet):
    """torchvision's ResNet without its classifier; takes the arguments of `ResNet`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        del self.fc

    def forward(self, x: Tensor) -> Tensor:
        """Gives the last feature map, [B, 2048, H / 32, W / 32] of a ResNet-50."""
        for name in _TRUNK:
            x = getattr(self, name)(x)
        return x


def get_pretrained_url(key: str) -> str:
    """Gives the address of a released file.

    Args:
        key: `BT`, `MoCoV2`, `SwAV`, `DINO_p16` or `DINO_p8`.

    Raises:
        UsageError: there is no such key.
    """
    return RELEASED[_name_of(key, _NAMES)].url


def resnet50(pretrained: bool, progress: bool, key: str, **kwargs: Any) -> ResNetTrunk:
    """Makes the trunk of a ResNet-50, which gives [B, 2048, 7, 7] for images of 224 px.

    Args:
        pretrained: loads released weights, and downloads them if they are not here.
        progress: whether a download shows a bar.
        key: which weights: `BT`, `MoCoV2` or `SwAV`; only looked at for pre-trained ones.
        kwargs: passed on to torchvision's `ResNet`.

    Raises:
        UsageError: there is no such key.
        InputError: the licence was not accepted (`eosin weights get NAME --accept-licence` does
            it), or the file cannot be had or does not fit.
    """
    name = _name_of(key, ("BT", "MoCoV2", "SwAV")) if pretrained else None
    model = ResNetTrunk(Bottleneck, [3, 4, 6, 3], **kwargs)
    return _loaded(model, name, progress)


def vit_small(pretrained: bool, progress: bool, key: str, **kwargs: Any) -> VisionTransformer:
    """Makes a ViT-S, which gives the class token [B, 384].

    Args:
        pretrained: loads released weights, and downloads them if they are not here.
        progress: whether a download shows a bar.
        key: which weights: `DINO_p16` or `DINO_p8`; only looked at for pre-trained ones.
        kwargs: passed on to timm's `VisionTransformer`, where the README's function takes
            `patch_size` (16 by default) and ignores the rest.

    Raises:
        UsageError: there is no such key, or the patch size is another.
        InputError: as for `resnet50`.
    """
    name = _name_of(key, ("DINO_p16", "DINO_p8")) if pretrained else None
    arguments: dict[str, Any] = {
        **{"img_size": 224, "patch_size": 16, "embed_dim": 384, "num_heads": 6, "num_classes": 0},
        **kwargs,
    }
    needed = {"DINO_p16": 16, "DINO_p8": 8}.get(key)
    if pretrained and arguments["patch_size"] != needed:
        raise UsageError(f"{key} needs patch_size={needed}, as in the README.")
    return _loaded(VisionTransformer(**arguments), name, progress)


def _loaded(model: ModelT, name: str | None, progress: bool) -> ModelT:
    if name is not None:
        tensors, _ = read_released(name, download=True, shows_progress=progress)
        load_strictly(model, tensors, RELEASED[name].path)
    return model


def _name_of(key: str, keys: Collection[str]) -> str:
    if key not in keys:
        raise UsageError(f"There are no released weights {key!r} here; keys are {', '.join(keys)}.")
    return _NAMES[key]
