"""Small images and an encoder for the tests of embedding."""

from pathlib import Path

import numpy as np
from PIL import Image

from eosin.encoders import build_encoder
from eosin.weights import export_encoder

HISTOGRAM = "colour_histogram"


def draw_images(folder: Path, count: int, px: int = 40, seed: int = 0) -> Path:
    """PNG files of noise in two folders below."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        path = folder / f"part-{number % 2}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (px, px + 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, compress_level=1)
    return folder


def export_small(folder: Path, architecture: str = "resnet10t", seed: int = 0) -> str:
    """A network for images of 32 px, as `eosin pretrain` would export it."""
    encoder = build_encoder(architecture, input_px=32, seed=seed).eval()
    export_encoder(encoder, folder, {"data": "none"})
    return str(folder)
