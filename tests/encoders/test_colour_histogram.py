import numpy as np
import pytest
import torch

from eosin.encoders import build_encoder
from eosin.encoders.colour_histogram import NAME, variants
from eosin.errors import UsageError


def embed(pixels: np.ndarray) -> np.ndarray:
    encoder = build_encoder(NAME)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return encoder.embed(encoder.normalise(images)).numpy()


def test_shares_of_colours_are_counted_as_numpy_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 12, 3), dtype=np.uint8)
    found = embed(pixels)
    assert found.shape == (3, 512)
    for image, row in zip(pixels, found, strict=True):
        edges = [np.arange(0, 257, 32)] * 3
        counts, _ = np.histogramdd(image.reshape(-1, 3), bins=edges)
        assert row**2 == pytest.approx(counts.ravel() / (16 * 12), abs=1e-6)
        assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6)


def test_position_is_not_seen_and_colour_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    shuffled = np.random.default_rng(1).permutation(pixels.reshape(1, 256, 3), axis=1)
    assert (embed(pixels) == embed(shuffled.reshape(pixels.shape))).all()
    assert (embed(pixels) != embed(255 - pixels)).any()


def test_it_is_an_encoder_without_weights() -> None:
    encoder = build_encoder(NAME, input_px=32)
    assert variants() == (NAME,) == (encoder.name,)
    assert encoder.input_px == 32 and encoder.embed_dim == 512
    assert encoder.weights_sha256() == encoder.reinitialised(3).weights_sha256()
    assert encoder.weights_sha256() != build_encoder("resnet18").weights_sha256()
    assert list(encoder.parameters()) == []
    with pytest.raises(UsageError, match="no feature maps"):
        encoder.feature_maps(torch.zeros(1, 3, 8, 8))
    with pytest.raises(UsageError, match="takes no depth"):
        build_encoder(NAME, depth=3)
