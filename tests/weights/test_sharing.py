"""`export`: from runs, folders and names to a folder with a card, all or nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import ModelCard

from eosin.encoders import Encoder, build_encoder
from eosin.errors import InputError, UsageError
from eosin.provenance import sha256_of_file
from eosin.weights import export_encoder, load_encoder, sharing
from eosin.weights.sharing import Config, export

ORIGIN = {
    "name": "run",
    "method": "barlow_twins",
    "config": {"init": "", "data": ["tiles"], "batch_size": 8},
    "data": [{"name": "tiles", "tiles": 8, "sha256": "ab"}],
}


def vit() -> Encoder:
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 2}
    return build_encoder("vit_tiny_patch16", input_px=32, seed=0, **sizes).eval()


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as `eosin pretrain --monitor-on` leaves it."""
    folder = tmp_path / "bt"
    encoder = build_encoder("resnet10t", input_px=32, seed=0).eval()
    export_encoder(encoder, folder / "best_encoder", {**ORIGIN, "tiles_seen": 80})
    export_encoder(encoder, folder / "encoder", {**ORIGIN, "tiles_seen": 160})
    about = {"config": {"batch_size": 8, "monitor_on": "/home/me/crc", "data": ["/home/me/t"]}}
    (folder / "run.json").write_text(json.dumps(about))
    lines = [{"update": 10, "knn": 0.875, "linear": 0.9}, {"update": 20, "knn": 0.75}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_run_gives_its_last_encoder_with_scores(run: Path, tmp_path: Path) -> None:
    report = export(Config(encoder=str(run), out=tmp_path / "out"))
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert report.name == "run" and report.same_in_timm and report.licences == ()
    assert report.other == str(run / "best_encoder") and report.other in str(report)
    assert report.files["config.json"] == (out / "config.json").stat().st_size
    assert config_of(out)["eosin"]["evaluation"] == {"update": 20, "images": "crc", "knn": 0.75}
    assert config_of(out)["eosin"]["weights_sha256"] == report.weights_sha256
    card = (out / "README.md").read_text()
    assert "| kNN accuracy | 75.0 % |" in card and sha256_of_file(out / "model.safetensors") in card
    assert "/home/me" not in card + (out / "config.json").read_text()
    assert ModelCard(card).data.license is None


def test_the_best_encoder_has_its_own_score(run: Path, tmp_path: Path) -> None:
    report = export(Config(encoder=str(run / "best_encoder"), out=tmp_path / "out", name="best"))
    assert report.name == "best" and report.other == str(run / "encoder")
    found = config_of(tmp_path / "out")["eosin"]["evaluation"]
    assert (found["update"], found["knn"], found["linear"]) == (10, 0.875, 0.9)
    assert load_encoder(tmp_path / "out").name == "best"


def test_an_export_of_an_export_keeps_everything(run: Path, tmp_path: Path) -> None:
    export(Config(encoder=str(run), out=tmp_path / "a"))
    export(Config(encoder=str(tmp_path / "a"), out=tmp_path / "b", name="b"))
    export(Config(encoder=str(tmp_path / "b"), out=tmp_path / "b", name="a"))  # onto itself
    first, again = config_of(tmp_path / "a"), config_of(tmp_path / "b")
    for config in (first, again):
        del config["eosin"]["exported"], config["eosin"]["name"]
    assert first == again
    assert re.search("# a$", (tmp_path / "b" / "README.md").read_text(), flags=re.MULTILINE)


def test_a_run_without_an_encoder_says_that_it_has_not_ended(tmp_path: Path) -> None:
    (tmp_path / "bt").mkdir()
    (tmp_path / "bt" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="has not ended"):
        export(Config(encoder=str(tmp_path / "bt"), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_run_whose_log_is_damaged_is_exported_without_scores(run: Path, tmp_path: Path) -> None:
    (run / "log.jsonl").write_text("{}}\n")
    (run / "run.json").write_text("[]")
    export(Config(encoder=str(run), out=tmp_path / "out"))
    assert "evaluation" not in config_of(tmp_path / "out")["eosin"]


def test_the_licence_is_in_all_places(tmp_path: Path) -> None:
    encoder = build_encoder("resnet10t", input_px=32, seed=0).eval()
    licence = "Lunit Public License: non-commercial use, attribution"
    encoder.card = replace(encoder.card, name="resnet50.lunit_bt", provenance={"licence": licence})
    run = {**ORIGIN, "config": {**ORIGIN["config"], "init": "resnet50.lunit_bt"}}
    export_encoder(encoder, tmp_path / "encoder", run)
    report = export(Config(encoder=str(tmp_path / "encoder"), out=tmp_path / "out"))
    assert report.licences == (licence,) and f"licence: {licence}" in str(report)
    card = ModelCard((tmp_path / "out" / "README.md").read_text())
    assert card.data.license == "other" and card.data.license_name == "lunit-public-license"
    assert "non-commercial purposes only" in card.content


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean"])
def test_the_card_is_right_about_bare_timm(pooling: str, tmp_path: Path) -> None:
    encoder = vit().with_pooling(pooling)
    export_encoder(encoder, tmp_path / "e", ORIGIN)
    report = export(Config(encoder=str(tmp_path / "e"), out=tmp_path / "out"))
    images = torch.randn(2, 3, 32, 32)
    bare = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    card = (tmp_path / "out" / "README.md").read_text()
    assert report.same_in_timm == (pooling != "cls+mean")
    assert ("The output is the embedding." in card) == report.same_in_timm
    if report.same_in_timm:
        torch.testing.assert_close(bare(images), encoder.embed(images), rtol=1e-5, atol=1e-6)
        return
    tokens = bare.forward_features(images)  # as the card says
    found = torch.cat([tokens[:, 0], tokens[:, bare.num_prefix_tokens :].mean(1)], 1)
    torch.testing.assert_close(found, encoder.embed(images), rtol=1e-5, atol=1e-6)
    assert "tokens[:, model.num_prefix_tokens:].mean(1)" in card


def test_another_size_under_dinos_resize_is_told(tmp_path: Path) -> None:
    export_encoder(vit().at_size(48), tmp_path / "e", {**ORIGIN, "method": "dino"})
    report = export(Config(encoder=str(tmp_path / "e"), out=tmp_path / "out"))
    assert not report.same_in_timm and "is not the embedding" in str(report)
    assert "resizes the position embedding" in (tmp_path / "out" / "README.md").read_text()


def test_onnx_is_written_and_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(encoder: Encoder, path: Path, metadata: dict[str, str]) -> float:
        path.write_bytes(b"onnx")
        return 1e-7

    monkeypatch.setattr(sharing, "require_onnx", lambda: None)
    monkeypatch.setattr(sharing, "export_onnx", write)
    report = export(Config(encoder=str(run), out=tmp_path / "out", onnx=True))
    assert report.files["model.onnx"] == 4 and "1.0e-07" in str(report)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "uint8 `[B, 3, 32, 32]`" in card and "| model.onnx |" in card
    export(Config(encoder=str(run), out=tmp_path / "out"))
    assert not (tmp_path / "out" / "model.onnx").exists()  # of an export before


def test_a_failed_onnx_check_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(encoder: Encoder, path: Path, metadata: dict[str, str]) -> float:
        raise InputError("model.onnx was not kept")

    monkeypatch.setattr(sharing, "require_onnx", lambda: None)
    monkeypatch.setattr(sharing, "export_onnx", fail)
    with pytest.raises(InputError, match="not kept"):
        export(Config(encoder=str(run), out=tmp_path / "out", onnx=True))
    assert [path.name for path in tmp_path.iterdir()] == ["bt"]


def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no weights"):
        export(Config(encoder="colour_histogram", out=tmp_path / "out"))
    with pytest.raises(InputError, match="is no earlier export"):
        export(Config(encoder=str(run), out=run))
    with pytest.raises(UsageError, match="--name"):
        Config(encoder=str(run), out=tmp_path / "out", name="two\nlines")
    config = config_of(run / "encoder")
    config["eosin"]["evaluation"] = {"knn": "high"}
    (run / "encoder" / "config.json").write_text(json.dumps(config))
    (run / "log.jsonl").unlink()
    with pytest.raises(InputError, match="not as Eosin writes it"):
        export(Config(encoder=str(run), out=tmp_path / "out"))
    assert [path.name for path in tmp_path.iterdir()] == ["bt"]


def test_a_name_is_as_good_as_a_folder(tmp_path: Path) -> None:
    report = export(Config(encoder="random/test_resnet", out=tmp_path / "out"))
    assert report.name == "random/test_resnet"
    assert "Nothing was learnt" in (tmp_path / "out" / "README.md").read_text()
