"""A small labelled folder and an encoder, for the tests of whole evaluations."""

from pathlib import Path

import numpy as np
from PIL import Image

from eosin.encoders import build_encoder
from eosin.weights import export_encoder


def texture(of_class: int, seed: int) -> np.ndarray:
    """Stripes across or along: classes differ in structure and not in colour."""
    image = np.full((24, 24, 3), 200, dtype=np.uint8)
    offset = seed % 4
    if of_class:
        image[offset::4] = (120, 60, 150)
    else:
        image[:, offset::4] = (120, 60, 150)
    noise = np.random.default_rng(seed).integers(0, 30, image.shape, dtype=np.uint8)
    return image - noise


def write_labelled(root: Path) -> Path:
    """Writes 24 images of each of two classes, two of each patient."""
    rows = ["file,patient"]
    for of_class, name in enumerate(("across", "along")):
        for number in range(24):
            path = root / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(texture(of_class, 100 * of_class + number)).save(path)
            rows.append(f"{name}/{number}.png,{name} patient {number // 2}")
    (root / "patients.csv").write_text("\n".join(rows) + "\n")
    return root


def write_encoder(folder: Path) -> Path:
    """Exports a small encoder with random weights, named as if it were trained."""
    encoder = build_encoder("resnet10t", input_px=24, seed=5)
    export_encoder(encoder, folder, {"name": "resnet10t.ours"})
    return folder
