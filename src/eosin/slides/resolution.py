"""How a slide reaches a resolution: which level is read, and how its pixels are reduced."""

from collections.abc import Sequence
from dataclasses import dataclass

MPP_TOLERANCE = 0.02
"""Pixels whose mpp is within this fraction of the target are used as they are."""


def is_plausible_mpp(mpp: float) -> bool:
    """Tells whether a microscope may have made pixels of so many micrometres."""
    return 0.02 <= mpp <= 50


@dataclass(frozen=True, slots=True)
class Reading:
    """How a slide gives pixels of a wanted resolution."""

    level: int
    """The level to read."""
    scale: int
    """By how much its JPEGs are reduced while they are decoded: 1, 2, 4 or 8."""
    reduction: float
    """By how much that is averaged along an edge; 1 where it is taken as it is."""
    downsample: float
    """How many level-0 pixels make one output pixel, along an edge."""
    mpp: float
    """The resolution that comes out, in micrometres per pixel."""

    @property
    def is_native(self) -> bool:
        """Whether the output is the pixels of a level, unchanged."""
        return self.scale == 1 and self.reduction == 1

    def __str__(self) -> str:
        steps = [f"level {self.level}"]
        if self.scale > 1:
            steps.append(f"decoded at 1/{self.scale}")
        if self.reduction != 1:
            steps.append(f"averaged by {self.reduction:.3f}")
        return ", ".join(steps)


def choose_reading(
    slide_mpp: float,
    level_downsamples: Sequence[float],
    scales: Sequence[Sequence[int]],
    mpp: float,
) -> Reading | None:
    """Chooses how to reach a resolution of `mpp`, or None if the slide is coarser.

    A level within `MPP_TOLERANCE` is taken as it is. Else the next finer level is reduced: first
    while decoding, as far as its scales allow, then, unless that is within the tolerance already,
    by an area average over what is left.

    Args:
        slide_mpp: micrometres per level-0 pixel.
        level_downsamples: level-0 pixels per pixel of each level.
        scales: for each level, the reductions that its decoder offers, 1 among them.
        mpp: the resolution wanted.
    """
    level_mpps = [slide_mpp * downsample for downsample in level_downsamples]
    nearest = min(range(len(level_mpps)), key=lambda level: abs(level_mpps[level] - mpp))
    if _is_close(level_mpps[nearest], mpp):
        return Reading(nearest, 1, 1.0, level_downsamples[nearest], level_mpps[nearest])
    finer = [level for level, level_mpp in enumerate(level_mpps) if level_mpp < mpp]
    if not finer:
        return None
    level = max(finer, key=lambda level: level_mpps[level])
    decoded_mpps = {scale: level_mpps[level] * scale for scale in scales[level]}
    scale = max(
        scale
        for scale, decoded_mpp in decoded_mpps.items()
        if decoded_mpp <= mpp or _is_close(decoded_mpp, mpp)
    )
    decoded_mpp = decoded_mpps[scale]
    if _is_close(decoded_mpp, mpp):
        return Reading(level, scale, 1.0, level_downsamples[level] * scale, decoded_mpp)
    return Reading(level, scale, mpp / decoded_mpp, mpp / slide_mpp, mpp)


def _is_close(mpp: float, target_mpp: float) -> bool:
    # The last bit of a product must not decide about 0.51 and 0.5.
    return abs(mpp / target_mpp - 1) <= MPP_TOLERANCE + 1e-9
