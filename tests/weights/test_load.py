"""Loading encoders: strict, explained, and without a network."""

import json
from pathlib import Path

import pytest
import torch

from eosin.encoders import build_encoder
from eosin.errors import InputError, UsageError
from eosin.weights import export_encoder, load_encoder


@pytest.fixture
def export(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "encoder"
    export_encoder(build_encoder("resnet10t", input_px=32, seed=0), folder, {"name": "run"})
    return folder


def test_a_run_folder_points_to_its_encoder(export: Path) -> None:
    with pytest.raises(InputError, match=r"Did you mean .*encoder\?"):
        load_encoder(export.parent)


def test_damaged_exports_are_named(export: Path) -> None:
    content = (export / "model.safetensors").read_bytes()
    (export / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(InputError, match="safetensors is damaged"):
        load_encoder(export)
    (export / "config.json").write_text(json.dumps({"architecture": "resnet10t"}))
    with pytest.raises(InputError, match="is not the config of a timm model"):
        load_encoder(export)
    (export / "config.json").write_text("{")
    with pytest.raises(InputError, match="is not the config of a timm model"):
        load_encoder(export)


@pytest.mark.parametrize("name", ["resnet18", "no/such/folder"])
def test_a_name_without_weights_lists_the_choices(name: str) -> None:
    with pytest.raises(InputError, match=r"random/ARCHITECTURE.*colour_histogram"):
        load_encoder(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("virchow-2", "virchow2"),
        ("UNI2-h", "uni2_h"),
        ("resnet50.lunit_swaw", "resnet50.lunit_swav"),
        ("vit_small_patch16.imagenet_din", "vit_small_patch16.imagenet_dino"),
        ("color_histogram", "colour_histogram"),
    ],
)
def test_a_name_that_is_nearly_right_is_guessed(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"Did you mean .*{meant}"):
        load_encoder(name)


@pytest.mark.parametrize("name", ["teacher.pth", "./runs/a", "~/x.ckpt", "/no/where"])
def test_an_absent_file_is_called_so(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is neither a file of weights nor a folder"):
        load_encoder(name)


@pytest.mark.parametrize(
    "name", ["random/resnet10t", "colour_histogram", "resnet50.lunit_bt", "virchow2", "timm/x"]
)
def test_options_for_files_are_refused_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} has its own architecture and mean"):
        load_encoder(name, architecture="resnet50", mean=(0.5, 0.5, 0.5))


def test_pooling_and_size_of_any_encoder(export: Path) -> None:
    images = torch.randn(1, 3, 64, 64)
    encoder = load_encoder("random/vit_tiny_patch16", input_px=32, pooling="cls+mean")
    assert encoder.embed_dim == 2 * 192 and encoder.input_px == 32
    assert load_encoder(export, input_px=64).embed(images).shape == (1, 512)
    with pytest.raises(UsageError, match="no class token"):
        load_encoder(export, pooling="cls")


def test_random_encoders_by_family_and_by_timm_name() -> None:
    first = load_encoder("random/resnet10t", input_px=32, seed=1)
    assert first.name == "random/resnet10t" and first.input_px == 32 and not first.training
    second = load_encoder("random/test_vit", seed=1)
    assert second.name == "random/test_vit" and second.architecture == "test_vit"
