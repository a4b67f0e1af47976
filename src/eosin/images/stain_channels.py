"""An image's channel statistics in a colour space, and the image with others: RandStainNA's core.

Shen et al. 2022, "RandStainNA: Learning Stain-Agnostic Features from Histology Slides by Bridging
Stain Augmentation and Normalization" (MICCAI); repository yiqings/RandStainNA at 4897b03. In LAB
or HSV of 8 bits, as OpenCV makes them, or in scikit-image's HED, each channel x becomes

    (x - mean) * (target std / std) + target mean

with std clipped to [1e-4, 255]. LAB and HSV are then clipped to 0..255 and truncated: a function of
256 levels, so it is done by table, and the bytes are those of the repository. It clips hue at 255
too, although 180 is a full turn; OpenCV takes a hue past the turn as the angle it is, and so do we.
HED is stretched to 0..255 (see `stain_hed`). All images here are RGB, in and out; the repository's
training mode returns BGR.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import cv2
import numpy as np
import numpy.typing as npt

from eosin.errors import InputError
from eosin.images import stain_hed
from eosin.images.stain_buffers import Buffers
from eosin.images.stain_hed import STD_RANGE, Image

Space = Literal["lab", "hsv", "hed"]
Triple = tuple[float, float, float]

SPACES: tuple[Space, ...] = ("lab", "hsv", "hed")

_CODES = {
    "lab": (cv2.COLOR_RGB2LAB, cv2.COLOR_LAB2RGB),
    "hsv": (cv2.COLOR_RGB2HSV, cv2.COLOR_HSV2RGB),
}
_LEVELS = np.arange(256, dtype=np.float64)
# Far above the rounding of sums over any tile, far below the distance of drawn levels.
_NEAR = 1e-8

_buffers = Buffers()


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelStatistics:
    """Mean and population standard deviation of each channel of one image in one space.

    LAB and HSV are in OpenCV's levels of 8 bits (hue 0 to 179), HED in scikit-image's units.
    """

    means: Triple
    stds: Triple


@dataclass(frozen=True, kw_only=True, slots=True)
class StainTarget:
    """What one view is stained to: enough to make it again.

    Raises:
        InputError: no such space, or a number that is none.
    """

    space: Space
    means: Triple
    stds: Triple
    """May be below 0, which inverts a channel; see `Stain.draw`."""

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise InputError(f"Stain space {self.space!r} must be one of {', '.join(SPACES)}.")
        if not all(map(math.isfinite, self.means + self.stds)):
            raise InputError(f"Stain target {self.means}, {self.stds} must have finite numbers.")

    def to_json(self) -> dict[str, Any]:
        """Gives a plain dictionary for `json.dumps`."""
        return {"space": self.space, "means": list(self.means), "stds": list(self.stds)}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "StainTarget":
        """Rebuilds the target from what `to_json` gave, also after a trip through JSON.

        Raises:
            InputError: it is not that.
        """
        try:
            means, stds = _triple(fields["means"]), _triple(fields["stds"])
            return cls(space=fields["space"], means=means, stds=stds)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"A stain target needs a space, 3 means and 3 stds; this one is {fields!r}."
            ) from error


def measure(image: Image, space: Space) -> ChannelStatistics:
    """Measures an image's channels.

    Args:
        image: RGB, `uint8[H, W, 3]`.
        space: the colour space to measure in.

    Raises:
        InputError: `image` is no such image.
    """
    _check(image)
    if space == "hed":
        means, stds = stain_hed.measure(image)
        return ChannelStatistics(means=_triple(means.tolist()), stds=_triple(stds.tolist()))
    return _statistics(_split(_converted(image, space)))


def restain(
    image: Image, target: StainTarget, statistics: ChannelStatistics | None = None
) -> Image:
    """Gives an image the channel statistics of `target`, as RandStainNA does.

    Args:
        image: RGB, `uint8[H, W, 3]`.
        target: the statistics to reach.
        statistics: those to normalise by, of the whole tile when `image` is a crop of it; the
            image's own by default.

    Returns:
        A new image of the same shape. In LAB and HSV it has the bytes of the published algorithm,
        in HED it is within one level of it, and where that would divide by zero (all values are
        one grey) a copy of `image`.

    Raises:
        InputError: `image` is no such image.
    """
    _check(image)
    if target.space == "hed":
        foreign = None
        if statistics is not None:
            foreign = np.array(statistics.means), np.array(statistics.stds)
        return stain_hed.restain(image, (np.array(target.means), np.array(target.stds)), foreign)
    coded = _converted(image, target.space)
    planes = _split(coded)
    levels = _levels(statistics or _statistics(planes), target)
    if statistics is None and _is_near_a_step(levels, target):
        levels = _levels(_statistics_as_summed_by_numpy(coded), target)
    tables = np.clip(levels, 0, 255).astype(np.uint8)
    for plane, table in zip(planes, tables, strict=True):
        cv2.LUT(plane, table, dst=plane)
    coded = cv2.merge(planes, dst=coded)
    return cast(Image, cv2.cvtColor(coded, _CODES[target.space][1]))


def _check(image: Image) -> None:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise InputError(
            f"A stain needs an RGB image uint8[H, W, 3] with pixels; this is {image.dtype}"
            f"{list(image.shape)}."
        )


def _triple(numbers: Sequence[float]) -> Triple:
    first, second, third = map(float, numbers)
    return first, second, third


def _converted(image: Image, space: Space) -> Image:
    """The image in `space`, in a buffer."""
    coded = _buffers.get("coded", image.shape, np.uint8)
    return cast(Image, cv2.cvtColor(image, _CODES[space][0], dst=coded))


def _split(coded: Image) -> list[Image]:
    """The three channels, in buffers; OpenCV is far faster on each than on all at once."""
    planes = _buffers.get("planes", (3, *coded.shape[:2]), np.uint8)
    return cast(list[Image], list(cv2.split(coded, list(planes))))


def _statistics(planes: list[Image]) -> ChannelStatistics:
    means, stds = zip(*map(_mean_and_std, planes), strict=True)
    return ChannelStatistics(means=means, stds=stds)


def _mean_and_std(plane: Image) -> tuple[float, float]:
    mean, std = (float(each[0, 0]) for each in cv2.meanStdDev(plane))
    # Both sums are integers far below 2^53, so rounding gives them back without any error.
    count = plane.size
    total = round(mean * count)
    squares = round((std * std + mean * mean) * count)
    return total / count, math.sqrt((count * squares - total * total) / (count * count))


def _statistics_as_summed_by_numpy(coded: Image) -> ChannelStatistics:
    """NumPy's rounding depends on the order in which it adds; the published code inherits it."""
    channels = [coded[..., channel] for channel in range(3)]
    return ChannelStatistics(
        means=_triple([float(np.mean(channel)) for channel in channels]),
        stds=_triple([float(np.std(channel)) for channel in channels]),
    )


def _levels(statistics: ChannelStatistics, target: StainTarget) -> npt.NDArray[np.float64]:
    """What each of the 256 levels of each channel becomes, [3, 256], before it is truncated."""
    least, greatest = STD_RANGE
    stds = (min(max(std, least), greatest) for std in statistics.stds)
    gain = np.array([to / std for to, std in zip(target.stds, stds, strict=True)])
    from_mean = _LEVELS - np.array(statistics.means)[:, None]
    return from_mean * gain[:, None] + np.array(target.means)[:, None]


def _is_near_a_step(levels: npt.NDArray[np.float64], target: StainTarget) -> bool:
    """Whether a level is so near a whole number that the last bits of a sum decide its byte."""
    steps = np.rint(levels)
    size = 256 + max(map(abs, target.means))
    near = (np.abs(levels - steps) < _NEAR * size) & (steps > 0) & (steps < 256)
    return bool(near.any())
