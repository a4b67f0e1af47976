"""ONNX files: the same embeddings as PyTorch, from plain pixels, or no file."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eosin.encoders import Encoder, build_encoder
from eosin.errors import InputError
from eosin.weights import onnx_export

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def small(name: str) -> Encoder:
    sizes = {"embed_dim": 48, "depth": 2, "num_heads": 2} if "vit" in name else {}
    encoder = build_encoder(name, input_px=32, seed=0, **sizes).eval()
    generator = torch.Generator().manual_seed(1)
    for key, value in encoder.model.state_dict().items():
        if key.endswith(("running_mean", "cls_token", "pos_embed")):
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
        elif key.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    card = replace(encoder.card, mean=(0.7, 0.53, 0.66), std=(0.21, 0.26, 0.2))
    return Encoder(encoder.model, card).eval()


@pytest.mark.parametrize(
    "name", [pytest.param("resnet10t", marks=pytest.mark.slow), "vit_tiny_patch16"]
)
def test_onnx_runtime_gives_pytorchs_embeddings_of_any_batch(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = small(name)
    if encoder.pooling == "cls":
        encoder = encoder.with_pooling("cls+mean")
    path = tmp_path / "model.onnx"
    difference = onnx_export.export_onnx(encoder, path, {"licence": "mine"})
    assert capfd.readouterr() == ("", "")  # nothing of the exporter reaches the user
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    assert difference < 1e-4

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [3, 32, 32])
    assert given.name == "embedding"
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    with torch.inference_mode():
        expected = encoder.embed(encoder.normalise(torch.from_numpy(images))).numpy()
    assert expected.shape == (5, encoder.embed_dim) and expected.std(0).max() > 0
    for batch in (slice(0, 1), slice(0, 5)):
        found = session.run(None, {"images": images[batch]})[0]
        most = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected[batch], rtol=0, atol=most)

    told = session.get_modelmeta().custom_metadata_map
    assert told["weights_sha256"] == encoder.weights_sha256()
    assert told["mean"] == "0.7,0.53,0.66" and told["licence"] == "mine"
    assert told["pooling"] == encoder.pooling and told["input"].startswith("uint8 RGB")


def test_a_file_that_differs_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(model: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"x")

    monkeypatch.setattr(onnx_export, "_convert", convert)
    for difference in (1e-3, float("nan")):
        monkeypatch.setattr(onnx_export, "_compare", lambda model, path, d=difference: d)
        with pytest.raises(InputError, match=r"model\.onnx was not kept"):
            onnx_export.export_onnx(small("resnet10t"), tmp_path / "model.onnx")
        assert not list(tmp_path.iterdir())


def test_what_cannot_be_converted_is_said_in_a_line(tmp_path: Path) -> None:
    class Odd(torch.nn.Module):
        num_features = 3

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    encoder = Encoder(Odd(), replace(small("resnet10t").card, pooling="native", name="odd"))
    with pytest.raises(InputError, match=r"odd \(resnet10t\) cannot be converted") as caught:
        onnx_export.export_onnx(encoder, tmp_path / "model.onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_missing_packages_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(InputError, match=r'onnxruntime.*pip install "eosin\[onnx\]"'):
        onnx_export.export_onnx(small("resnet10t"), tmp_path / "model.onnx")
