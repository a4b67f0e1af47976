"""Files in the layout of the five releases, with random weights; and small ones for quick tests."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet

from eosin.weights import RELEASED

RESNET, VIT = "resnet50.lunit_bt", "vit_small_patch16.lunit_dino"


class Trunk(ResNet):
    """torchvision's ResNet-50 up to its last feature map."""

    def __init__(self) -> None:
        super().__init__(Bottleneck, [3, 4, 6, 3])
        del self.fc

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


@functools.cache
def trunk() -> Trunk:
    """A trunk whose BatchNorm has statistics and scales of its own."""
    torch.manual_seed(0)
    model = Trunk()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            module.num_batches_tracked.fill_(7)
    return model.eval()


@functools.cache
def vision_transformer(patch_size: int) -> VisionTransformer:
    """timm's ViT-S as the released README builds it."""
    torch.manual_seed(patch_size)
    size = {"img_size": 224, "patch_size": patch_size, "embed_dim": 384, "num_heads": 6}
    model = VisionTransformer(**size, num_classes=0)
    assert model.cls_token is not None
    nn.init.normal_(model.cls_token, std=0.02)
    return model.eval()


def write_release(name: str, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Saves a model as a released file, and puts its sha256 into the row where one is published."""
    row = RELEASED[name]
    row.path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), row.path)
    if row.sha256 is not None:
        publish(name, row.path, monkeypatch)
    return row.path


def publish(name: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a file the released one; the check stays as strict as it is."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(RELEASED, name, replace(RELEASED[name], sha256=sha256))  # type: ignore[arg-type]


def make_small(name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Gives a row a small architecture, so that its file has 2 MB instead of 90."""
    small = {RESNET: "test_resnet", VIT: "test_vit"}[name]
    row = replace(RELEASED[name], architecture=small, input_px=160, **changes)
    monkeypatch.setitem(RELEASED, name, row)  # type: ignore[arg-type]


def write_small(
    name: str, path: Path, *, seed: int = 0, changes: Mapping[str, Any] | None = None
) -> Path:
    """Saves random weights that fit a small row."""
    torch.manual_seed(seed)
    model = timm.create_model(RELEASED[name].architecture, num_classes=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**model.state_dict(), **(changes or {})}, path)
    return path
