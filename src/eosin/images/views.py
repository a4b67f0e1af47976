"""Views: what an encoder sees of a tile in self-supervised training.

Drawing the parameters (`ViewSpec.sample`) and applying them (`apply`) are apart, so that every view
can be replayed, shown and tested. The semantics are torchvision's: `RandomResizedCrop` with an
antialiased resize of the crop, `ColorJitter` in random order, then grayscale, blur and solarise.
Flips come before the colours, where they commute with everything that follows.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image as PillowImage

from eosin.errors import InputError, UsageError
from eosin.images import color
from eosin.images.color import Image

Interpolation = Literal["bicubic", "bilinear"]

_RESAMPLING = {
    "bicubic": PillowImage.Resampling.BICUBIC,
    "bilinear": PillowImage.Resampling.BILINEAR,
}
_CROP_TRIES = 10  # as in torchvision's RandomResizedCrop


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewParams:
    """One view's parameters, drawn: enough to make the same view of the same image again."""

    size_px: int
    interpolation: Interpolation
    crop_px: tuple[int, int, int, int]
    """Left, top, width and height in the image."""
    hflip: bool = False
    vflip: bool = False
    jitter: tuple[tuple[str, float], ...] = ()
    """Colour operations in the order to apply them, each a name of `color.JITTER` and its factor
    (for hue its shift in turns)."""
    grayscale: bool = False
    blur_sigma_px: float | None = None
    solarize_threshold: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives a plain dictionary for `json.dumps`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "ViewParams":
        """Rebuilds the parameters from what `to_json` gave, also after a trip through JSON."""
        crop_px = tuple(fields["crop_px"])
        jitter = tuple((name, factor) for name, factor in fields["jitter"])
        plain: dict[str, Any] = {**fields, "crop_px": crop_px, "jitter": jitter}
        return cls(**plain)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewSpec:
    """How one kind of view is drawn; every `_p` is the probability of what its name says.

    Raises:
        UsageError: a value that no view can be drawn with.
    """

    size_px: int
    """Side of the square view."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest share of the image's area that a crop covers."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest ratio of a crop's width to its height, drawn log-uniformly."""
    interpolation: Interpolation = "bicubic"
    """Filter of the antialiased resize."""
    hflip_p: float = 0.5
    vflip_p: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Strengths of brightness, contrast, saturation and hue; one of strength 0 is left out."""
    jitter_p: float = 0.0
    grayscale_p: float = 0.0
    blur_p: float = 0.0
    blur_sigma_px: tuple[float, float] = (0.1, 2.0)
    """Least and greatest standard deviation of the Gaussian, in pixels of the view."""
    solarize_p: float = 0.0
    solarize_threshold: int = 128
    """Levels from here upwards are inverted."""

    def __post_init__(self) -> None:
        for name in ("hflip_p", "vflip_p", "jitter_p", "grayscale_p", "blur_p", "solarize_p"):
            self._require(0 <= getattr(self, name) <= 1, name, "a probability, 0 to 1")
        for name, greatest in (("scale", 1.0), ("ratio", math.inf), ("blur_sigma_px", math.inf)):
            low, high = getattr(self, name)
            self._require(
                0 < low <= high <= greatest, name, f"0 < least <= greatest <= {greatest:g}"
            )
        self._require(self.size_px >= 1, "size_px", "at least 1")
        self._require(self.interpolation in _RESAMPLING, "interpolation", " or ".join(_RESAMPLING))
        self._require(
            len(self.jitter) == 4 and min(self.jitter) >= 0 and self.jitter[3] <= 0.5,
            "jitter",
            "four strengths, none below 0 and the last (hue) at most 0.5",
        )
        self._require(0 <= self.solarize_threshold <= 256, "solarize_threshold", "0 to 256")

    def _require(self, holds: bool, field: str, wanted: str) -> None:
        if not holds:
            raise UsageError(f"ViewSpec.{field} is {getattr(self, field)!r}; it must be {wanted}.")

    def sample(self, rng: np.random.Generator, height: int, width: int) -> ViewParams:
        """Draws the parameters of one view of an image of `height` x `width` pixels.

        Args:
            rng: where all randomness comes from.
            height: of the image, in pixels.
            width: of the image, in pixels.
        """
        crop_px = self._sample_crop(rng, height, width)
        return ViewParams(
            size_px=self.size_px,
            interpolation=self.interpolation,
            crop_px=crop_px,
            hflip=bool(rng.random() < self.hflip_p),
            vflip=bool(rng.random() < self.vflip_p),
            jitter=self._sample_jitter(rng) if rng.random() < self.jitter_p else (),
            grayscale=bool(rng.random() < self.grayscale_p),
            blur_sigma_px=(
                float(rng.uniform(*self.blur_sigma_px)) if rng.random() < self.blur_p else None
            ),
            solarize_threshold=(
                self.solarize_threshold if rng.random() < self.solarize_p else None
            ),
        )

    def _sample_crop(
        self, rng: np.random.Generator, height: int, width: int
    ) -> tuple[int, int, int, int]:
        log_ratio = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(_CROP_TRIES):
            area_px = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(*log_ratio))
            crop_width = round(math.sqrt(area_px * ratio))
            crop_height = round(math.sqrt(area_px / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                top = int(rng.integers(height - crop_height + 1))
                left = int(rng.integers(width - crop_width + 1))
                return left, top, crop_width, crop_height
        return self._central_crop(height, width)

    def _central_crop(self, height: int, width: int) -> tuple[int, int, int, int]:
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        crop_width = max(1, min(width, round(height * ratio)))
        crop_height = max(1, min(height, round(width / ratio)))
        return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height

    def _sample_jitter(self, rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
        drawn: list[tuple[str, float]] = []
        for name, strength in zip(color.JITTER, self.jitter, strict=True):
            if strength > 0:
                low, neutral = (-strength, 0.0) if name == "hue" else (max(0.0, 1 - strength), 1.0)
                drawn.append((name, float(rng.uniform(low, neutral + strength))))
        return tuple(drawn[i] for i in rng.permutation(len(drawn)))


@dataclass(frozen=True, slots=True)
class Views:
    """The views of one tile, in the order in which a method expects them.

    Two-view methods give two specs, equal or not; multi-crop gives the large ones first.

    Args:
        specs: one per view.

    Raises:
        UsageError: no view at all.
    """

    specs: tuple[ViewSpec, ...]

    def __post_init__(self) -> None:
        if not self.specs:
            raise UsageError("Views needs at least one ViewSpec; got none.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Side of each view in pixels."""
        return tuple(spec.size_px for spec in self.specs)

    def sample(self, rng: np.random.Generator, height: int, width: int) -> list[ViewParams]:
        """Draws the parameters of every view of one image of `height` x `width` pixels."""
        return [spec.sample(rng, height, width) for spec in self.specs]

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the views of each size, sizes in the order in which they come first."""
        return tuple(
            tuple(number for number, size in enumerate(self.sizes) if size == size_px)
            for size_px in dict.fromkeys(self.sizes)
        )

    def make_into(
        self, image: Image, rng: np.random.Generator, into: Sequence[Image], row: int
    ) -> None:
        """Draws and applies, and writes each view where a batch has it.

        Args:
            image: RGB, `uint8[H, W, 3]`.
            rng: where all randomness comes from.
            into: for each of `groups` an array `uint8[V, B, 3, S, S]` with V views of side S.
            row: number of the image in the batch.
        """
        made = self.make(image, rng)
        for group, numbers in zip(into, self.groups, strict=True):
            for place, number in enumerate(numbers):
                group[place, row] = made[number].transpose(2, 0, 1)

    def make(self, image: Image, rng: np.random.Generator) -> list[Image]:
        """Draws and applies: one `uint8[S, S, 3]` per spec from an image `uint8[H, W, 3]`."""
        height, width = image.shape[:2]
        return [apply(image, params) for params in self.sample(rng, height, width)]


def apply(image: Image, params: ViewParams) -> Image:
    """Makes the view that `params` describes.

    Args:
        image: RGB, `uint8[H, W, 3]`.
        params: as drawn for an image of this height and width.

    Returns:
        The view, `uint8[S, S, 3]` with S = `params.size_px`, contiguous and independent of `image`.

    Raises:
        InputError: the crop does not lie inside the image.
    """
    view = _crop_resize_flip(image, params)
    for name, factor in params.jitter:
        view = color.JITTER[name](view, factor)
    if params.grayscale:
        view = color.to_grayscale(view)
    if params.blur_sigma_px is not None:
        view = color.blur(view, params.blur_sigma_px)
    if params.solarize_threshold is not None:
        view = color.solarize(view, params.solarize_threshold)
    return view


def _crop_resize_flip(image: Image, params: ViewParams) -> Image:
    left, top, width, height = params.crop_px
    if left < 0 or top < 0 or left + width > image.shape[1] or top + height > image.shape[0]:
        raise InputError(
            f"The view's crop {params.crop_px} (left, top, width, height) leaves an image of "
            f"{image.shape[1]} x {image.shape[0]} px; apply it to the image it was drawn for."
        )
    # Cropped first: Pillow's own `box` would let pixels outside the crop into its borders.
    crop = PillowImage.fromarray(image[top : top + height, left : left + width])
    side = params.size_px
    view = crop.resize((side, side), _RESAMPLING[params.interpolation])
    if params.hflip:
        view = view.transpose(PillowImage.Transpose.FLIP_LEFT_RIGHT)
    if params.vflip:
        view = view.transpose(PillowImage.Transpose.FLIP_TOP_BOTTOM)
    return np.array(view)
