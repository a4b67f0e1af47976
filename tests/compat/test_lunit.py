"""Code of the released README runs with another import."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models.resnet import ResNet

from eosin.compat import lunit
from eosin.compat.lunit import get_pretrained_url, resnet50, vit_small
from eosin.errors import InputError, UsageError
from eosin.weights import RELEASED, load_released
from tests.weights import made_up_release as made_up

PREFIX = "https://github.com/lunit-io/benchmark-ssl-pathology/releases/download/pretrained-weights"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("BT", "bt_rn50_ep200.torch"),
        ("MoCoV2", "mocov2_rn50_ep200.torch"),
        ("SwAV", "swav_rn50_ep200.torch"),
        ("DINO_p16", "dino_vit_small_patch16_ep200.torch"),
        ("DINO_p8", "dino_vit_small_patch8_ep200.torch"),
    ],
)
def test_addresses_by_key(key: str, file: str) -> None:
    assert get_pretrained_url(key) == f"{PREFIX}/{file}"


@pytest.mark.parametrize(
    "call",
    [
        lambda: get_pretrained_url("MoCo"),
        lambda: resnet50(True, False, "DINO_p16"),
        lambda: vit_small(True, False, "BT"),
    ],
)
def test_other_keys_list_the_right_ones(call: Any) -> None:
    with pytest.raises(UsageError, match=r"keys are .*(BT, MoCoV2, SwAV|DINO_p16, DINO_p8)"):
        call()


def test_arguments_are_those_of_the_readme() -> None:
    for function in (resnet50, vit_small):
        assert list(inspect.signature(function).parameters) == [
            *("pretrained", "progress", "key", "kwargs")
        ]


def test_the_trunk_of_a_resnet(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = made_up.trunk()
    made_up.write_release(made_up.RESNET, reference, monkeypatch)
    model = resnet50(pretrained=True, progress=False, key="BT")
    assert isinstance(model, lunit.ResNetTrunk) and isinstance(model, ResNet) and model.training
    assert list(model.state_dict()) == list(reference.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        features = model.eval()(images)
        assert features.shape == (1, 2048, 7, 7)
        assert (features - reference(images)).abs().max() <= 1e-6
        pooled = load_released(made_up.RESNET).embed(images)
        assert torch.allclose(features.mean((2, 3)), pooled, atol=1e-6)
    dilated = resnet50(False, False, "BT", replace_stride_with_dilation=[False, False, True])
    assert dilated.eval()(images[..., :64, :64]).shape == (1, 2048, 4, 4)


def test_the_vit(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = made_up.vision_transformer(16)
    made_up.write_release(made_up.VIT, reference, monkeypatch)
    model = vit_small(pretrained=True, progress=False, key="DINO_p16", patch_size=16)
    assert type(model) is type(reference) and model.training
    assert list(model.state_dict()) == list(reference.state_dict())
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert (model.eval()(images) - reference(images)).abs().max() <= 1e-6
    with pytest.raises(UsageError, match="DINO_p8 needs patch_size=8"):
        vit_small(True, False, "DINO_p8")
    with pytest.raises(InputError, match=r"pos_embed \(1, 197, 384\) for \(1, 17, 384\)"):
        vit_small(True, False, "DINO_p16", img_size=64)


def test_models_without_weights_ask_for_none(folder: Path) -> None:
    model = vit_small(False, False, "any key", patch_size=8, img_size=32, depth=1)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 384)
    assert model.patch_embed.patch_size == (8, 8)
    assert not folder.exists()


def test_pretrained_asks_for_a_download_and_the_licence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("this is not the time for a network")

    monkeypatch.setattr("socket.socket.connect", no_network)
    for call, name in (
        (lambda: resnet50(True, True, "SwAV"), "resnet50.lunit_swav"),
        (lambda: vit_small(True, True, "DINO_p8", patch_size=8), "vit_small_patch8.lunit_dino"),
    ):
        with pytest.raises(InputError, match=f"eosin weights get {name} --accept-licence"):
            call()
    assert not folder.exists()


def test_statistics_to_normalise_with() -> None:
    row = RELEASED["resnet50.lunit_bt"]
    assert (row.mean, row.std) == (lunit.MEAN, lunit.STD)
