"""Views: what an encoder sees of a tile in self-supervised training.

Drawing the parameters (`ViewSpec.sample`) and applying them (`apply`) are apart, so that every view
can be replayed, shown and tested. The semantics are torchvision's: `RandomResizedCrop` with an
antialiased resize of the crop, `ColorJitter` in random order, then grayscale, blur and solarise;
RandStainNA stands before them.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eosin.errors import UsageError
from eosin.images.color import JITTER
from eosin.images.rendering import Image, Renderer, ViewParams, apply
from eosin.images.resampling import SUPPORT, Crop, Interpolation
from eosin.images.stain import Stain

__all__ = ["Image", "ViewParams", "ViewSpec", "Views", "apply"]

_CROP_TRIES = 10  # as in torchvision's RandomResizedCrop
_PROBABILITIES = (
    "hflip_p",
    "vflip_p",
    "stain_p",
    "jitter_p",
    "grayscale_p",
    "blur_p",
    "solarize_p",
)
_DRAWS = 2 * _CROP_TRIES + 20  # uniform numbers of one view, drawn at once, which is much faster


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
    stain: Stain | None = None
    """What RandStainNA draws from."""
    stain_p: float = 0.0
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
        for name in _PROBABILITIES:
            self._require(0 <= getattr(self, name) <= 1, name, "a probability, 0 to 1")
        for name, greatest in (("scale", 1.0), ("ratio", math.inf), ("blur_sigma_px", math.inf)):
            low, high = getattr(self, name)
            self._require(
                0 < low <= high <= greatest, name, f"0 < least <= greatest <= {greatest:g}"
            )
        self._require(self.size_px >= 1, "size_px", "at least 1")
        self._require(self.interpolation in SUPPORT, "interpolation", " or ".join(SUPPORT))
        self._require(
            len(self.jitter) == 4 and min(self.jitter) >= 0 and self.jitter[3] <= 0.5,
            "jitter",
            "four strengths, none below 0 and the last (hue) at most 0.5",
        )
        self._require(0 <= self.solarize_threshold <= 256, "solarize_threshold", "0 to 256")
        self._require(self.stain is not None or self.stain_p == 0, "stain_p", "0 without a stain")

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
        uniform = iter(rng.random(_DRAWS).tolist())
        return ViewParams(
            size_px=self.size_px,
            interpolation=self.interpolation,
            hflip=next(uniform) < self.hflip_p,
            vflip=next(uniform) < self.vflip_p,
            grayscale=next(uniform) < self.grayscale_p,
            blur_sigma_px=_between(self.blur_sigma_px, uniform, self.blur_p),
            solarize_threshold=(
                self.solarize_threshold if next(uniform) < self.solarize_p else None
            ),
            jitter=self._sample_jitter(uniform) if next(uniform) < self.jitter_p else (),
            crop_px=self._sample_crop(uniform, height, width),
            stain=(
                self.stain.draw(rng)
                if self.stain is not None and rng.random() < self.stain_p
                else None
            ),
        )

    def _sample_crop(self, uniform: Iterator[float], height: int, width: int) -> Crop:
        least, most = self.scale
        log_least, log_most = math.log(self.ratio[0]), math.log(self.ratio[1])
        across, down = next(uniform), next(uniform)
        for _ in range(_CROP_TRIES):
            area_px = height * width * (least + (most - least) * next(uniform))
            ratio = math.exp(log_least + (log_most - log_least) * next(uniform))
            crop_width = round(math.sqrt(area_px * ratio))
            crop_height = round(math.sqrt(area_px / ratio))
            if 0 < crop_width <= width and 0 < crop_height <= height:
                left = int(across * (width - crop_width + 1))
                top = int(down * (height - crop_height + 1))
                return left, top, crop_width, crop_height
        return self._central_crop(height, width)

    def _central_crop(self, height: int, width: int) -> Crop:
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        crop_width = max(1, min(width, round(height * ratio)))
        crop_height = max(1, min(height, round(width / ratio)))
        return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height

    def _sample_jitter(self, uniform: Iterator[float]) -> tuple[tuple[str, float], ...]:
        drawn: list[tuple[float, str, float]] = []
        for name, strength in zip(JITTER, self.jitter, strict=True):
            place, share = next(uniform), next(uniform)
            if strength > 0:
                least, neutral = (
                    (-strength, 0.0) if name == "hue" else (max(0.0, 1 - strength), 1.0)
                )
                drawn.append((place, name, least + (neutral + strength - least) * share))
        return tuple((name, factor) for _, name, factor in sorted(drawn))


def _between(bounds: tuple[float, float], uniform: Iterator[float], p: float) -> float | None:
    """A number between the bounds with probability `p`; the next two of `uniform` decide."""
    fires, share = next(uniform) < p, next(uniform)
    return bounds[0] + (bounds[1] - bounds[0]) * share if fires else None


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

    def changed(self, **fields: Any) -> "Views":
        """The same views with some fields of every spec replaced."""
        return Views(tuple(replace(spec, **fields) for spec in self.specs))

    def make(self, image: Image, rng: np.random.Generator) -> list[Image]:
        """Draws and applies: one `uint8[S, S, 3]` per spec from an image `uint8[H, W, 3]`."""
        renderer = Renderer(image)
        drawn = self.sample(rng, *image.shape[:2])
        return [np.ascontiguousarray(renderer.render(p).transpose(1, 2, 0)) for p in drawn]

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
        renderer = Renderer(image)
        drawn = self.sample(rng, *image.shape[:2])
        for group, numbers in zip(into, self.groups, strict=True):
            for place, number in enumerate(numbers):
                renderer.render(drawn[number], group[place, row])
