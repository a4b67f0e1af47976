"""Encoders from single files: the architecture, the statistics, and what is told of them."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of_file
from eosin.weights import export_encoder
from eosin.weights.files import load_file
from eosin.weights.load import load_encoder

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A network whose architecture shapes do not tell."""
    return timm.create_model("resnet10t", num_classes=0).eval()


@pytest.fixture
def file(small: nn.Module, tmp_path: Path) -> Path:
    torch.save({"state_dict": small.state_dict(), "epoch": 1}, tmp_path / "mine.pth.tar")
    return tmp_path / "mine.pth.tar"


def test_an_architecture_that_shapes_do_not_tell_is_asked_for(file: Path, small: nn.Module) -> None:
    with pytest.raises(InputError, match=r"mine\.pth\.tar: the architecture cannot be told"):
        load_file(file)
    encoder = load_encoder(str(file), architecture="resnet10t")
    assert torch.equal(encoder.embed(IMAGES), small(IMAGES))
    assert encoder.name == "mine" and encoder.pooling == "mean" and not encoder.training


def test_any_model_of_timm_loads_by_its_name(tmp_path: Path) -> None:
    for name in ("convnext_atto", "swin_tiny_patch4_window7_224"):
        model = timm.create_model(name).eval()
        torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
        encoder = load_file(tmp_path / "a.pth", architecture=f"timm/{name}")
        images = torch.randn(1, 3, 224, 224)
        model.reset_classifier(0)
        assert torch.allclose(encoder.embed(images), model(images), atol=1e-6)
        assert encoder.card.provenance["left_out"] == {"head": 2}  # the classifier alone


def test_another_architecture_is_reported(file: Path) -> None:
    with pytest.raises(InputError, match=r"does not fit ResNet: .*missing"):
        load_file(file, architecture="resnet18")
    with pytest.raises(InputError, match="no architecture 'resnet19'"):
        load_file(file, architecture="resnet19")


def test_statistics_are_imagenets_unless_given(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assumed = load_file(file, architecture="resnet10t")
    assert assumed.mean == (0.485, 0.456, 0.406)
    assert assumed.card.provenance["normalisation"] == "ImageNet, assumed"
    assert "normalised as ImageNet" in capsys.readouterr().err
    mean, std = (0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464)
    given = load_encoder(file, architecture="resnet10t", mean=mean, std=std)
    assert (given.mean, given.std) == (mean, std)
    assert given.card.provenance["normalisation"] == "given"
    assert "normalised" not in capsys.readouterr().err
    for half in ({"mean": mean}, {"std": std}):
        with pytest.raises(UsageError, match="belong together"):
            load_file(file, architecture="resnet10t", **half)


def test_provenance_names_the_file(file: Path) -> None:
    told = load_file(file, architecture="resnet10t").card.provenance
    assert told["file"] == "mine.pth.tar" and told["file_sha256"] == sha256_of_file(file)
    assert told["layout"] == "state dict" and told["naming"] == "timm"


def test_a_released_file_keeps_its_licence_and_is_told_of_its_statistics(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    released = file.rename(tmp_path / "swav_rn50_ep200.torch")
    told = load_file(released, architecture="resnet10t").card.provenance
    assert "Lunit Public License" in told["licence"]
    assert "load resnet50.lunit_swav instead" in capsys.readouterr().err


def test_every_suffix_and_type_of_number(small: nn.Module, tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in small.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    assert torch.equal(
        load_file(tmp_path / "a.safetensors", architecture="resnet10t").embed(IMAGES), small(IMAGES)
    )
    halves = {key: value.half() if value.ndim else value for key, value in state.items()}
    torch.save(halves, tmp_path / "a.ckpt")
    encoder = load_file(tmp_path / "a.ckpt", architecture="resnet10t")
    assert all(parameter.dtype == torch.float32 for parameter in encoder.parameters())
    assert torch.allclose(encoder.embed(IMAGES), small(IMAGES), rtol=1e-2, atol=1e-2)


def test_files_of_before_batchnorm_counted(small: nn.Module, tmp_path: Path) -> None:
    state = {key: value for key, value in small.state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "old.pth")
    encoder = load_file(tmp_path / "old.pth", architecture="resnet10t")
    assert torch.equal(encoder.embed(IMAGES), small(IMAGES))
    counters = [value for key, value in encoder.model.state_dict().items() if "num_batches" in key]
    assert counters and not any(counter.any() for counter in counters)


def test_a_vit_of_any_size_by_eosins_name_of_it(tmp_path: Path) -> None:
    args: dict[str, Any] = {"img_size": 32, "num_classes": 0}
    model = timm.create_model("vit_tiny_patch16_224", **args).eval()
    torch.save(model.state_dict(), tmp_path / "v.pth")
    encoder = load_file(tmp_path / "v.pth", architecture="vit_tiny_patch16")
    assert torch.allclose(encoder.embed(IMAGES), model(IMAGES), atol=1e-6)
    assert encoder.input_px == 32 and encoder.architecture == "vit_tiny_patch16_224"
    wide = torch.randn(1, 3, 64, 64)
    assert load_encoder(tmp_path / "v.pth", input_px=64).embed(wide).shape == (1, 192)
    both = load_encoder(tmp_path / "v.pth", pooling="cls+mean")
    assert both.embed(IMAGES).shape == (2, 384)


def test_it_can_be_exported_and_loaded_again(file: Path, tmp_path: Path) -> None:
    encoder = load_file(file, architecture="resnet10t")
    export_encoder(encoder, tmp_path / "export", dict(encoder.card.provenance))
    again = load_encoder(tmp_path / "export")
    assert again.weights_sha256() == encoder.weights_sha256()
    assert again.card.provenance["layout"] == "state dict"
