"""From a tile and a view's drawn parameters to the view.

The order is crop, resize, flip, stain, jitter, grayscale, blur, solarise. Flips come before the
colours, where they commute with everything that follows.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError
from eosin.images.color import recolor
from eosin.images.resampling import Crop, Interpolation, crop_and_resize
from eosin.images.stain import ChannelStatistics, Space, StainTarget, measure, restain

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewParams:
    """One view's parameters, drawn: enough to make the same view of the same image again."""

    size_px: int
    interpolation: Interpolation
    crop_px: Crop
    """Left, top, width and height in the image."""
    hflip: bool = False
    vflip: bool = False
    stain: StainTarget | None = None
    """What the image is stained to, as RandStainNA does it."""
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
        stain = fields["stain"]
        plain: dict[str, Any] = {
            **fields,
            "crop_px": tuple(fields["crop_px"]),
            "jitter": tuple((name, factor) for name, factor in fields["jitter"]),
            "stain": None if stain is None else StainTarget.from_json(stain),
        }
        return cls(**plain)


class Renderer:
    """Makes views of one image; what they share of it is measured once, when first needed.

    A view is stained by the statistics of the whole image, as if the image had been stained before
    it was cropped, which is how RandStainNA was published.

    Args:
        image: RGB, `uint8[H, W, 3]`.
    """

    def __init__(self, image: Image) -> None:
        self.image = image
        self._statistics: dict[Space, ChannelStatistics] = {}

    def render(self, params: ViewParams, into: Image | None = None) -> Image:
        """Makes one view as planes of red, green and blue.

        Args:
            params: as drawn for an image of this height and width.
            into: where to write, `uint8[3, S, S]`, contiguous, with S = `params.size_px`.

        Returns:
            `into`, or a new array.

        Raises:
            InputError: the crop does not lie inside the image.
        """
        _check_crop(self.image, params.crop_px)
        view = crop_and_resize(
            self.image,
            params.crop_px,
            params.size_px,
            params.interpolation,
            params.hflip,
            params.vflip,
        )
        if params.stain is not None:
            view = restain(view, params.stain, self._measured(params.stain.space))
        return recolor(
            view,
            params.jitter,
            params.grayscale,
            params.blur_sigma_px,
            params.solarize_threshold,
            into,
        )

    def _measured(self, space: Space) -> ChannelStatistics:
        if space not in self._statistics:
            self._statistics[space] = measure(self.image, space)
        return self._statistics[space]


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
    return np.ascontiguousarray(Renderer(image).render(params).transpose(1, 2, 0))


def _check_crop(image: Image, crop_px: Crop) -> None:
    left, top, width, height = crop_px
    if left < 0 or top < 0 or left + width > image.shape[1] or top + height > image.shape[0]:
        raise InputError(
            f"The view's crop {crop_px} (left, top, width, height) leaves an image of "
            f"{image.shape[1]} x {image.shape[0]} px; apply it to the image it was drawn for."
        )
