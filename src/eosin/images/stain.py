"""RandStainNA and its Gaussian-mixture variant: images stained as in another slide.

What a `Stain` knows of many images is how the mean and the standard deviation of each channel vary
between them. A target is drawn from it, and an image is given the target's statistics
(`stain_channels.restain`; the source is named there). Drawing and applying are apart, so that every
view can be replayed.

Examples:
    stain = load("crc-lab")
    target = stain.draw(np.random.default_rng(0))
    view = restain(crop, target, measure(tile, stain.space))
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError
from eosin.images import stain_mixture
from eosin.images.stain_channels import (
    SPACES,
    ChannelStatistics,
    Space,
    StainTarget,
    Triple,
    measure,
    restain,
)
from eosin.images.stain_mixture import Mixture, array
from eosin.images.stain_statistics import DISTRIBUTIONS, STD_HYPER, Distribution, Stain

__all__ = [
    "DISTRIBUTIONS",
    "FEWEST_IMAGES",
    "PUBLISHED",
    "SPACES",
    "ChannelStatistics",
    "Distribution",
    "Mixture",
    "Space",
    "Stain",
    "StainTarget",
    "fit",
    "load",
    "measure",
    "published",
    "restain",
]

FEWEST_IMAGES = 32

_PUBLISHED_SOURCE = "yiqings/RandStainNA 4897b03, classification/norm_jitter/CRC"
_PUBLISHED: dict[Space, tuple[Triple, Triple, Triple, Triple]] = {
    "lab": (
        (158.033, 151.187, 116.812),
        (48.792, 10.958, 6.643),
        (36.899, 8.134, 6.129),
        (14.383, 2.822, 2.013),
    ),
    "hsv": (
        (144.115, 79.862, 185.404),
        (20.718, 43.756, 41.451),
        (22.595, 30.394, 32.755),
        (16.568, 12.883, 14.146),
    ),
    "hed": (
        (0.033, 0.021, 0.029),
        (0.031, 0.014, 0.023),
        (0.025, 0.013, 0.013),
        (0.019, 0.016, 0.009),
    ),
}
PUBLISHED = tuple(f"crc-{space}" for space in _PUBLISHED)
"""Names of the statistics that `load` knows without a file."""


def published(space: Space) -> Stain:
    """Gives the statistics of NCT-CRC-HE that RandStainNA's repository has, drawn normally."""
    means, std_of_means, stds, std_of_stds = _PUBLISHED[space]
    return Stain(
        name=f"crc-{space}",
        source=_PUBLISHED_SOURCE,
        space=space,
        mean_of_means=means,
        std_of_means=std_of_means,
        mean_of_stds=stds,
        std_of_stds=std_of_stds,
    )


def load(name_or_path: str | Path) -> Stain:
    """Gives a published stain by its name, or reads one from a file.

    Args:
        name_or_path: `crc-lab`, `crc-hsv`, `crc-hed`, or the path of what `eosin stain fit` wrote.

    Raises:
        InputError: it is neither.
    """
    for space in SPACES:
        if str(name_or_path) == f"crc-{space}":
            return published(space)
    if not Path(name_or_path).is_file():
        raise InputError(
            f"Stain {name_or_path} is none of {', '.join(PUBLISHED)}, and no such file exists; "
            "write one with `eosin stain fit`."
        )
    return Stain.load(name_or_path)


def fit(
    rows: npt.NDArray[np.float64],
    space: Space,
    *,
    name: str = "fitted",
    source: str = "",
    distribution: Distribution = "mixture",
    std_hyper: float = STD_HYPER,
    seed: int = 0,
) -> Stain:
    """Fits all distributions to the statistics of images; `distribution` says which one is drawn.

    Args:
        rows: means and then standard deviations of each image's channels, `float64[N, 6]`.
        space: what they were measured in.
        name: for reports.
        source: where the images come from, for people.
        distribution: the one to draw from.
        std_hyper: see `Stain`.
        seed: of the mixture's starts.

    Raises:
        InputError: fewer than 32 images, or statistics that are not finite.
    """
    if len(rows) < FEWEST_IMAGES:
        raise InputError(
            f"A stain needs at least {FEWEST_IMAGES} images to be fitted to; these are {len(rows)}."
        )
    rows = array(rows, (len(rows), 6), "statistics of images")
    middle, spread = rows.mean(axis=0).tolist(), rows.std(axis=0).tolist()
    return Stain(
        name=name,
        source=source,
        space=space,
        distribution=distribution,
        std_hyper=std_hyper,
        mean_of_means=tuple(middle[:3]),
        std_of_means=tuple(spread[:3]),
        mean_of_stds=tuple(middle[3:]),
        std_of_stds=tuple(spread[3:]),
        mixture=stain_mixture.fit(rows, seed),
    )
