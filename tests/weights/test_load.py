"""Loading encoders: strict, explained, and without a network."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from eosin import weights
from eosin.encoders import build_encoder
from eosin.encoders._base import create_timm_model
from eosin.errors import InputError
from eosin.weights import RELEASED, export_encoder, list_released, load_encoder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EOSIN_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", sorted(RELEASED))
def test_an_absent_released_file_says_where_it_is_and_belongs(name: str, cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_encoder(name)
    message = str(caught.value)
    assert RELEASED[name].file in message and str(cache) in message
    assert "https://github.com/lunit-io/" in message and "non-commercial" in message


def test_a_released_vit_loads_with_the_statistics_of_its_release(cache: Path) -> None:
    # Random weights in the layout of the released file: flat, timm's names, no head.
    model = create_timm_model("vit_small_patch16_224", {}, seed=0).eval()
    torch.save(model.state_dict(), cache / "dino_vit_small_patch16_ep200.torch")
    encoder = load_encoder("vit_small_patch16.lunit_dino")
    images = torch.randn(1, 3, 224, 224)
    assert torch.allclose(encoder.embed(images), model(images), atol=1e-5)
    assert encoder.mean == (0.70322989, 0.53606487, 0.66096631)
    assert encoder.std == (0.21716536, 0.26081574, 0.20723464)
    assert encoder.embed_dim == 384 and encoder.pooling == "cls" and not encoder.training
    assert dict((n, s) for n, _, s in list_released())["vit_small_patch16.lunit_dino"] == "present"


def test_a_wrong_checksum_is_refused(cache: Path) -> None:
    (cache / "swav_rn50_ep200.torch").write_bytes(b"not the file")
    with pytest.raises(InputError, match="sha256") as caught:
        load_encoder("resnet50.lunit_swav")
    assert hashlib.sha256(b"not the file").hexdigest() in str(caught.value)


def test_pickled_objects_are_refused(cache: Path) -> None:
    torch.save({"args": Path("x")}, cache / "dino_vit_small_patch8_ep200.torch")
    with pytest.raises(InputError, match="not a file of plain tensors"):
        load_encoder("vit_small_patch8.lunit_dino")


def test_weights_that_do_not_fit_are_listed(cache: Path) -> None:
    tensors = create_timm_model("vit_small_patch16_224", {}, seed=0).state_dict()
    tensors["head.weight"] = tensors.pop("norm.weight")
    tensors["cls_token"] = torch.zeros(1, 1, 5)
    torch.save(tensors, cache / "dino_vit_small_patch16_ep200.torch")
    with pytest.raises(InputError) as caught:
        load_encoder("vit_small_patch16.lunit_dino")
    message = str(caught.value)
    assert "1 missing (norm.weight)" in message and "1 unexpected (head.weight)" in message
    assert "cls_token (1, 1, 5) for (1, 1, 384)" in message


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


@pytest.mark.parametrize("name", ["resnet18", "no/such/folder", "timm/resnet18"])
def test_a_name_without_weights_lists_the_choices(name: str) -> None:
    with pytest.raises(InputError, match=r"random/ARCHITECTURE.*colour_histogram"):
        load_encoder(name)


def test_random_encoders_by_family_and_by_timm_name() -> None:
    first = load_encoder("random/resnet10t", input_px=32, seed=1)
    assert first.name == "random/resnet10t" and first.input_px == 32 and not first.training
    second = load_encoder("random/test_vit", seed=1)
    assert second.name == "random/test_vit" and second.architecture == "test_vit"


def test_the_folder_of_weights_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EOSIN_WEIGHTS", raising=False)
    assert weights.weights_folder().parts[-3:] == (".cache", "eosin", "weights")
