"""Folders in timm's layout that others wrote: read with all they say, and never trusted."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from eosin.errors import InputError
from eosin.weights import load_encoder
from eosin.weights.folders import load_folder


def save(folder: Path, name: str, **args: Any) -> torch.nn.Module:
    """A folder as timm writes it for the Hub, with its classifier unless there is none."""
    torch.manual_seed(0)
    model = timm.create_model(name, **args).eval()
    save_for_hf(model, str(folder), safe_serialization=True)
    return model


def change(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_classifier_is_left_out_and_said(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save(tmp_path, name, num_classes=7)
    encoder = load_folder(tmp_path).eval()
    images = torch.randn(2, 3, encoder.input_px, encoder.input_px)
    headless = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    assert torch.equal(encoder.embed(images), headless(images))
    assert encoder.mean == pytest.approx(model.pretrained_cfg["mean"])
    classifier = model.pretrained_cfg["classifier"]
    assert f"its classifier ({classifier}: 2 tensors) is left out" in capsys.readouterr().err
    assert encoder.card.provenance["source"] == f"timm folder {tmp_path.name}"


def test_the_pooling_of_the_config_counts(tmp_path: Path) -> None:
    model = save(tmp_path, "test_vit", num_classes=0, global_pool="avg", fc_norm=False)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_args"]["global_pool"]
    config["pretrained_cfg"]["global_pool"] = "avg"
    (tmp_path / "config.json").write_text(json.dumps(config))
    encoder = load_folder(tmp_path).eval()
    images = torch.randn(2, 3, encoder.input_px, encoder.input_px)
    assert encoder.pooling == "mean"
    assert torch.equal(encoder.embed(images), model(images))


def test_a_config_with_everything_at_its_top_is_read(tmp_path: Path) -> None:
    model = save(tmp_path, "test_resnet", num_classes=0)
    config = json.loads((tmp_path / "config.json").read_text())
    old = {"architecture": "test_resnet", "num_features": 1, **config["pretrained_cfg"]}
    (tmp_path / "config.json").write_text(json.dumps({**old, "license": "cc-by-nc-4.0"}))
    encoder = load_folder(tmp_path).eval()
    images = torch.randn(2, 3, encoder.input_px, encoder.input_px)
    assert torch.equal(encoder.embed(images), model(images))
    assert encoder.card.provenance["licence"] == "cc-by-nc-4.0"


def test_a_copy_of_released_weights_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "resnet50.lunit_bt"
    save(folder, "test_resnet", num_classes=0)
    encoder = load_folder(folder)
    note = capsys.readouterr().err
    assert "release notes" in note and note.count("\n") == 1
    change(folder, eosin={"name": "of mine"})
    load_folder(folder)
    assert capsys.readouterr().err == ""
    assert encoder.mean == (0.5, 0.5, 0.5)  # as its own config says


def test_layers_beside_the_classifier_are_not_left_out(tmp_path: Path) -> None:
    save(tmp_path, "test_vit", num_classes=7)
    tensors = safetensors.torch.load_file(tmp_path / "model.safetensors")
    tensors["extra.weight"] = torch.zeros(1)
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"1 unexpected \(extra.weight\)"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    "args",
    [{"pretrained": True}, {"checkpoint_path": "x.pth"}, {"pretrained_cfg": {"url": "http://x"}}],
)
def test_a_config_cannot_fetch_or_open_other_weights(
    args: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("reached for the network")

    save(tmp_path, "test_resnet", num_classes=0)
    change(tmp_path, model_args=args)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(InputError, match=f"model_args must not have {next(iter(args))}"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "no_such_net"}, "no architecture 'no_such_net'"),
        ({"architecture": 7}, "no architecture '7'"),
        ({"model_args": {"wings": 2}}, "timm cannot build its model"),
        ({"model_args": "wings"}, "not the config of a timm model"),
        ({"pretrained_cfg": {"input_size": [1, 32, 32]}}, "square RGB"),
        ({"pretrained_cfg": {"input_size": [3, 32, 64]}}, "square RGB"),
        ({"pretrained_cfg": [1]}, "not the config of a timm model"),
        ({"eosin": "mine"}, "not the config of a timm model"),
        ({"eosin": {"pooling": "cls"}}, "cannot pool by 'cls'"),
        ({"eosin": {"stem_stride": "wide"}}, "a first stride of wide"),
    ],
)
def test_odd_configs_are_explained(changes: Any, message: str, tmp_path: Path) -> None:
    save(tmp_path, "test_resnet", num_classes=0)
    change(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"a": ', "\x00"])
def test_a_file_that_is_no_config_is_explained(content: str, tmp_path: Path) -> None:
    save(tmp_path, "test_resnet", num_classes=0)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="not the config of a timm model"):
        load_encoder(tmp_path)
