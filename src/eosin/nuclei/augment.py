"""One augmented crop of an image and its instance map, as HoVer-Net trains on.

The authors' augmentation (vqdang/hover_net at 67e2ce5, dataloader/train_loader.py): scale, shift,
shear and turn, flips, one of blur, median filter or noise, then hue, saturation, brightness and
contrast in random order. One affine map takes the crop straight out of the image, which is bilinear
where the authors take the nearest pixel of the image too.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Instances = NDArray[np.int32]
Matrix = NDArray[np.float64]

SCALE = (0.8, 1.2)
SHIFT = 0.01
SHEAR_DEGREES = 5.0
TURN_DEGREES = 179.0
KERNELS = (1, 3, 5)
NOISE = 0.05 * 255
HUE_STEPS = 8
SATURATION = 0.2
BRIGHTNESS = 26
CONTRAST = (0.75, 1.25)


@dataclass(frozen=True)
class Placed:
    """Where a crop's pixels lie in the image: `matrix` [2, 3] takes (x, y, 1) of the crop there."""

    matrix: Matrix


def draw_placement(rng: np.random.Generator, centre: tuple[float, float], window_px: int) -> Placed:
    """Draws scale, shift, shear, turn and flips about the middle of a window.

    Args:
        rng: where the randomness comes from.
        centre: x and y of the window's middle in the image.
        window_px: side of the window, of which shifts are a share.
    """
    scale = rng.uniform(*SCALE, size=2)
    shift = rng.uniform(-SHIFT, SHIFT, size=2) * window_px
    shear = np.deg2rad(rng.uniform(-SHEAR_DEGREES, SHEAR_DEGREES))
    turn = np.deg2rad(rng.uniform(-TURN_DEGREES, TURN_DEGREES))
    flips = np.where(rng.random(2) < 0.5, -1.0, 1.0)
    # From the image to the crop: scale, shear, turn; the inverse looks the pixels up.
    forward = (
        np.array([[np.cos(turn), -np.sin(turn + shear)], [np.sin(turn), np.cos(turn + shear)]])
        * scale
    )
    backward = np.linalg.inv(np.diag(flips) @ forward)
    offset = np.asarray(centre) - backward @ shift
    return Placed(np.concatenate([backward, offset[:, None]], axis=1, dtype=np.float64))


def centred(placed: Placed, side_px: int) -> Matrix:
    """Gives the map from the pixels of a crop of a side, whose middle is the placement's."""
    middle = (side_px - 1) / 2
    matrix = placed.matrix.copy()
    matrix[:, 2] -= matrix[:, :2] @ np.array([middle, middle])
    return matrix


def crop(
    image: Image, instances: Instances, placed: Placed, image_px: int, map_px: int
) -> tuple[Image, Instances]:
    """Takes a crop of the image and a larger one of its instance map, with the same middle.

    Beyond the border both are mirrored; a nucleus and its mirror image then have the same number.

    Args:
        image: uint8 [H, W, 3].
        instances: int32 [H, W].
        placed: where the crops lie.
        image_px: side of the image's crop.
        map_px: side of the instance map's crop.
    """
    inverse = cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(
        image,
        centred(placed, image_px),
        (image_px, image_px),
        flags=cv2.INTER_LINEAR | inverse,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    # OpenCV moves float32 but no int32; numbers below 2^24 are exact in it.
    numbers = cv2.warpAffine(
        instances.astype(np.float32),
        centred(placed, map_px),
        (map_px, map_px),
        flags=cv2.INTER_NEAREST | inverse,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(pixels, dtype=np.uint8), numbers.astype(np.int32)


def recolour(image: Image, rng: np.random.Generator, *, contrast: bool = True) -> Image:
    """Blurs or adds noise, and changes hue, saturation, brightness and contrast in random order.

    Args:
        image: uint8 [h, w, 3].
        rng: where the randomness comes from.
        contrast: whether the contrast is changed.
    """
    match int(rng.integers(3)):
        case 0:
            sides = [int(rng.choice(KERNELS)) for _ in range(2)]
            blurred = cv2.GaussianBlur(image, sides, 0, borderType=cv2.BORDER_REPLICATE)
            image = np.asarray(blurred, dtype=np.uint8)
        case 1:
            image = np.asarray(cv2.medianBlur(image, int(rng.choice(KERNELS))), dtype=np.uint8)
        case _:
            image = _noisy(image, rng)
    steps = [_hue, _saturation, _brightness, *([_contrast] if contrast else [])]
    for step in rng.permutation(len(steps)).tolist():
        image = steps[step](image, rng)
    return image


def _noisy(image: Image, rng: np.random.Generator) -> Image:
    # In half of the cases the same for the three channels.
    channels = 3 if rng.random() < 0.5 else 1
    noise = rng.standard_normal((*image.shape[:2], channels), dtype=np.float32)
    return _clipped(image + noise * np.float32(rng.uniform(0, NOISE)))


def _hue(image: Image, rng: np.random.Generator) -> Image:
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    shift = round(rng.uniform(-HUE_STEPS, HUE_STEPS))
    turned[..., 0] = (turned[..., 0].astype(np.int16) + shift) % 180
    return np.asarray(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB), dtype=np.uint8)


def _saturation(image: Image, rng: np.random.Generator) -> Image:
    factor = np.float32(1 + rng.uniform(-SATURATION, SATURATION))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    return _clipped(image * factor + grey * (1 - factor))


def _brightness(image: Image, rng: np.random.Generator) -> Image:
    return _clipped(image.astype(np.float32) + np.float32(rng.uniform(-BRIGHTNESS, BRIGHTNESS)))


def _contrast(image: Image, rng: np.random.Generator) -> Image:
    factor = np.float32(rng.uniform(*CONTRAST))
    mean = image.mean((0, 1), keepdims=True, dtype=np.float32)
    return _clipped(image * factor + mean * (1 - factor))


def _clipped(values: NDArray[np.floating[Any]]) -> Image:
    return np.clip(values, 0, 255).astype(np.uint8)
