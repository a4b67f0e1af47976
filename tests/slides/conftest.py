"""Generated slides: pyramidal TIFFs of JPEG tiles with a resolution, as OpenSlide opens them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
import tifffile

RGB = npt.NDArray[np.uint8]
_TILE_PX = 128


def draw_tissue(width_px: int, height_px: int, seed: int) -> RGB:
    """Glass with an ellipse of pink tissue full of purple dots, all a little noisy."""
    rng = np.random.default_rng(seed)
    image = np.full((height_px, width_px, 3), 242, np.uint8)
    middle, axes = (width_px // 2, height_px // 2), (int(width_px * 0.42), int(height_px * 0.42))
    cv2.ellipse(image, middle, axes, 0, 0, 360, (225, 150, 190), -1)
    places = rng.uniform(-0.6, 0.6, (width_px * height_px // 600, 2)) * axes + middle
    for x, y in places.astype(int).tolist():
        cv2.circle(image, (x, y), int(rng.integers(3, 7)), (110, 60, 140), -1)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def _jpeg_tiles(level: RGB) -> Iterator[bytes]:
    height, width, _ = level.shape
    padding = ((0, -height % _TILE_PX), (0, -width % _TILE_PX), (0, 0))
    padded = np.pad(level, padding, mode="edge")
    for y in range(0, padded.shape[0], _TILE_PX):
        for x in range(0, padded.shape[1], _TILE_PX):
            tile = np.ascontiguousarray(padded[y : y + _TILE_PX, x : x + _TILE_PX])
            yield simplejpeg.encode_jpeg(tile, 90, "RGB", "444")


def write_tiff(path: Path, image: RGB, mpp: float | None, levels: int = 2) -> Path:
    """Writes an image as a pyramid whose levels halve; without an mpp, TIFF has no unit."""
    per_cm = (1e4 / mpp, 1e4 / mpp) if mpp is not None else (1.0, 1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as tiff:
        for number in range(levels):
            tiff.write(
                _jpeg_tiles(image),
                shape=image.shape,
                dtype=np.uint8,
                tile=(_TILE_PX, _TILE_PX),
                photometric="ycbcr",
                subsampling=(1, 1),
                compression="jpeg",
                resolution=per_cm,
                resolutionunit="CENTIMETER" if mpp is not None else "NONE",
                subfiletype=int(number > 0),
                metadata=None,
            )
            half = (image.shape[1] // 2, image.shape[0] // 2)
            image = np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA), np.uint8)
    return path


WriteSlide = Callable[..., Path]


@pytest.fixture
def write_slide(tmp_path: Path) -> WriteSlide:
    """Writes `tmp_path/slides/<name>`, of 700 x 600 px at 0.5 mpp unless told otherwise."""

    def write(
        name: str = "a.tif",
        *,
        size_px: tuple[int, int] = (700, 600),
        mpp: float | None = 0.5,
        levels: int = 2,
        seed: int = 0,
    ) -> Path:
        image = draw_tissue(*size_px, seed)
        return write_tiff(tmp_path / "slides" / name, image, mpp, levels)

    return write
