"""Exports: whole or not there, loadable by bare timm, and honest about where weights come from."""

import json
import os
import signal
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import timm
import torch

from eosin.encoders import Encoder, build_encoder
from eosin.encoders._positions import DINOVisionTransformer
from eosin.errors import InputError
from eosin.weights import export, export_encoder, load_encoder
from eosin.weights.export import check_target, size_lines, writing

TINY_VIT = {"embed_dim": 48, "depth": 2, "num_heads": 2}


@pytest.fixture
def resnet() -> Encoder:
    return build_encoder("resnet10t", input_px=32, seed=0).eval()


@pytest.fixture
def vit() -> Encoder:
    return build_encoder("vit_tiny_patch16", input_px=64, seed=0, **TINY_VIT).eval()


def config_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / "config.json").read_text())


def pixels(encoder: Encoder, side: int | None = None) -> torch.Tensor:
    side = side or encoder.input_px
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_a_vit_comes_back_with_its_pooling(vit: Encoder, pooling: str, tmp_path: Path) -> None:
    encoder = vit.with_pooling(pooling)
    export_encoder(encoder, tmp_path / "e", {})
    again = load_encoder(tmp_path / "e")
    images = pixels(encoder)
    assert again.pooling == pooling and again.embed_dim == encoder.embed_dim
    assert torch.equal(again.embed(images), encoder.embed(images))
    assert again.weights_sha256() == encoder.weights_sha256()
    assert again.transform_id() == encoder.transform_id()
    bare = timm.create_model(f"local-dir:{tmp_path / 'e'}", pretrained=True).eval()
    own = vit if pooling == "cls+mean" else encoder
    # The same weights in either: timm has no cls+mean, and gives its class token.
    torch.testing.assert_close(bare(images), own.embed(images), rtol=1e-5, atol=1e-6)


def test_a_resnet_without_stride_comes_back(resnet: Encoder, tmp_path: Path) -> None:
    encoder = resnet.with_stem_stride(1)
    export_encoder(encoder, tmp_path / "e", {})
    again = load_encoder(tmp_path / "e")
    assert again.feature_strides == encoder.feature_strides
    assert torch.equal(again.embed(pixels(encoder)), encoder.embed(pixels(encoder)))


@pytest.mark.parametrize("is_dinos", [True, False])
def test_positions_are_resized_as_before_the_export(is_dinos: bool, tmp_path: Path) -> None:
    name = "vit_tiny_patch16" if is_dinos else "timm/vit_tiny_patch16_224"
    encoder = build_encoder(name, input_px=64, seed=0, **TINY_VIT).eval()
    if not is_dinos:
        encoder.model.__class__ = timm.models.VisionTransformer
    export_encoder(encoder, tmp_path / "e", {"method": "moco_v2"})
    again = load_encoder(tmp_path / "e")
    assert isinstance(again.model, DINOVisionTransformer) == is_dinos
    images = pixels(encoder, 48)
    assert torch.equal(again.embed(images), encoder.embed(images))


def test_an_encoder_for_another_size_comes_back(vit: Encoder, tmp_path: Path) -> None:
    encoder = vit.at_size(96)
    export_encoder(encoder, tmp_path / "e", {})
    again = load_encoder(tmp_path / "e")
    assert again.input_px == 96
    assert torch.equal(again.embed(pixels(encoder)), encoder.embed(pixels(encoder)))


def test_what_the_encoder_says_wins_over_an_earlier_export(vit: Encoder, tmp_path: Path) -> None:
    export_encoder(vit.with_pooling("mean"), tmp_path / "a", {"name": "a"})
    loaded = load_encoder(tmp_path / "a")
    export_encoder(loaded.with_pooling("cls"), tmp_path / "b", loaded.card.provenance)
    assert load_encoder(tmp_path / "b").pooling == "cls"
    assert "init" not in config_of(tmp_path / "b")["eosin"]


def test_the_licence_follows_through_a_run(resnet: Encoder, tmp_path: Path) -> None:
    released = {"file": "x.torch", "licence": "Lunit Public License: non-commercial"}
    resnet.card = replace(resnet.card, name="resnet50.lunit_bt", provenance=released)
    run = {"method": "swav", "config": {"init": str(tmp_path), "data": ["tiles"]}, "name": "mine"}
    export_encoder(resnet, tmp_path / "first", run)
    first = config_of(tmp_path / "first")
    assert first["pretrained_cfg"]["license"] == "other"
    assert first["eosin"]["init"] == {"name": "resnet50.lunit_bt", "provenance": released}
    assert first["eosin"]["config"]["init"] == tmp_path.name  # not where it lay on this machine
    # A run that starts from the first run's encoder is still under the first weights' licence.
    export_encoder(load_encoder(tmp_path / "first"), tmp_path / "second", {**run, "name": "2"})
    second = config_of(tmp_path / "second")
    assert second["pretrained_cfg"]["license"] == "other"
    assert second["eosin"]["init"]["name"] == "mine"
    assert second["eosin"]["init"]["provenance"]["init"]["provenance"] == released


def test_a_run_from_scratch_claims_no_licence(resnet: Encoder, tmp_path: Path) -> None:
    export_encoder(resnet, tmp_path / "e", {"method": "swav", "config": {"init": ""}})
    config = config_of(tmp_path / "e")
    assert "license" not in config["pretrained_cfg"] and "init" not in config["eosin"]


def test_an_encoder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="colour_histogram has no weights"):
        export_encoder(build_encoder("colour_histogram"), tmp_path / "e", {})
    assert not list(tmp_path.iterdir())


def test_files_can_be_read_as_the_umask_says(resnet: Encoder, tmp_path: Path) -> None:
    export_encoder(resnet, tmp_path / "e", {})
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "e").iterdir()}
    (tmp_path / "other").touch()
    assert modes == {stat.S_IMODE((tmp_path / "other").stat().st_mode)}


def test_an_earlier_export_is_replaced_and_other_files_stay(
    resnet: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "e"
    export_encoder(resnet, folder, {"name": "old"})
    (folder / "notes.txt").write_text("mine")
    (folder / "model.onnx").write_text("of the old weights")
    export_encoder(resnet, folder, {"name": "new"})
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["config.json", "model.safetensors", "notes.txt"]
    assert load_encoder(folder).name == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_a_failure_leaves_the_earlier_export_alone(resnet: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    export_encoder(resnet, folder, {"name": "old"})
    with pytest.raises(OSError, match="full"), writing(folder) as staging:
        (staging / "model.safetensors").write_bytes(b"half")
        raise OSError("disk is full")
    assert load_encoder(folder).name == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def killed_while(moment: str, folder: Path) -> None:
    """Exports in a forked process that is killed at a moment."""
    child = os.fork()
    if child == 0:
        die = partial(os.kill, os.getpid(), signal.SIGKILL)
        move = os.replace

        def move_weights_only(source: Path, target: Path) -> None:
            is_config = Path(source) == folder.with_name(".writing-e") / "config.json"
            die() if is_config else move(source, target)

        export.os.replace = move_weights_only
        with writing(folder) as staging:
            (staging / "model.safetensors").write_bytes(b"new")
            (staging / "config.json").write_text("{}")
            die() if moment == "while_writing" else None
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("moment", ["while_writing", "while_moving"])
def test_a_killed_export_never_half_loads(moment: str, resnet: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    export_encoder(resnet, folder, {"name": "old"})
    killed_while(moment, folder)
    if moment == "while_writing":
        assert load_encoder(folder).name == "old"
    else:
        with pytest.raises(InputError, match="holds no exported encoder"):
            load_encoder(folder)
        with pytest.raises(FileNotFoundError):
            timm.create_model(f"local-dir:{folder}", pretrained=True)
    check_target(folder)  # is still known as an export
    export_encoder(resnet, folder, {"name": "new"})
    assert load_encoder(folder).name == "new"
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["e"]


def test_two_exports_at_once_are_refused(resnet: Encoder, tmp_path: Path) -> None:
    with writing(tmp_path / "e") as staging:
        (staging / "config.json").write_text("{}")
        with pytest.raises(InputError, match="written by another run"):
            export_encoder(resnet, tmp_path / "e", {})
    assert (tmp_path / "e" / "config.json").read_text() == "{}"


def test_targets_that_hold_something_else_are_refused(resnet: Encoder, tmp_path: Path) -> None:
    check_target(tmp_path / "new")
    (tmp_path / "empty").mkdir()
    check_target(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        check_target(tmp_path / "file")
    others = tmp_path / "others"
    others.mkdir()
    (others / "config.json").write_text('{"architecture": "resnet18"}')
    with pytest.raises(InputError, match=r"holds config\.json and is no earlier export"):
        check_target(others)
    export_encoder(resnet, tmp_path / "export", {})
    check_target(tmp_path / "export")


def test_a_link_to_a_folder_is_written_through(resnet: Encoder, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    os.symlink(tmp_path / "disk", tmp_path / "link")
    export_encoder(resnet, tmp_path / "link", {"name": "there"})
    assert (tmp_path / "link").is_symlink() and load_encoder(tmp_path / "disk").name == "there"


def test_sizes_are_readable() -> None:
    small, large = size_lines({"config.json": 1234, "model.safetensors": 86_700_000})
    assert small.endswith("1,234 B") and large.endswith("86.7 MB")
