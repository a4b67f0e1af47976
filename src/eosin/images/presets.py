"""The views that the methods were published with, VISSL's renditions, and ours for pathology.

Sources, cited by file and line: facebookresearch/moco 132aea9, swav 06b1b7c, barlowtwins 8e8d284,
dino 7c446df, vissl 09270ed2 (configs/config/pretrain). Where a line leaves out the scale, the ratio
or the filter of a crop, torchvision's defaults hold: 0.08 to 1, 3/4 to 4/3, bilinear. VISSL's
`ImgPilColorDistortion` of strength s is SimCLR's: jitter of (0.8 s, 0.8 s, 0.8 s, 0.2 s) with
probability 0.8, then grayscale with probability 0.2 (img_pil_color_distortion.py 24-46).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from eosin.errors import UsageError
from eosin.images.stain import published
from eosin.images.views import Views, ViewSpec

Preset = Literal["official", "vissl", "pathology"]

PRESETS: tuple[Preset, ...] = ("official", "vissl", "pathology")
STAIN_P = 0.5
"""How many views RandStainNA meets, as in its own benchmark runs."""


def moco_v2(preset: Preset) -> Views:
    """Two views drawn alike.

    official: main_moco.py 329-344. vissl: moco/moco_1node_resnet.yaml 25-37; crops are smaller.
    """
    official = ViewSpec(
        size_px=224,
        scale=(0.2, 1.0),
        interpolation="bilinear",
        jitter=(0.4, 0.4, 0.4, 0.1),
        jitter_p=0.8,
        grayscale_p=0.2,
        blur_p=0.5,
    )
    vissl = replace(official, scale=(0.08, 1.0))
    return _choose(preset, Views((official,) * 2), Views((vissl,) * 2))


def swav(preset: Preset) -> Views:
    """Two large and six small views.

    official: src/multicropdataset.py 39-53 and 88-94, scripts/swav_800ep_pretrain.sh. vissl:
    swav/swav_8node_resnet.yaml 20-33, which is the same.
    """
    large = ViewSpec(
        size_px=224,
        scale=(0.14, 1.0),
        interpolation="bilinear",
        jitter=(0.8, 0.8, 0.8, 0.2),
        jitter_p=0.8,
        grayscale_p=0.2,
        blur_p=0.5,
    )
    small = replace(large, size_px=96, scale=(0.05, 0.14))
    views = Views((large, large, *[small] * 6))
    return _choose(preset, views, views)


def barlow_twins(preset: Preset) -> Views:
    """Two views, which differ in blur and solarisation.

    official: main.py 290-321. vissl: barlow_twins/barlow_twins_4node_resnet.yaml 20-41; bilinear,
    and twice the jitter of saturation.
    """
    first = ViewSpec(
        size_px=224,
        interpolation="bicubic",
        jitter=(0.4, 0.4, 0.2, 0.1),
        jitter_p=0.8,
        grayscale_p=0.2,
        blur_p=1.0,
    )
    official = Views((first, replace(first, blur_p=0.1, solarize_p=0.2)))
    return _choose(preset, official, _as_vissl(official))


def dino(preset: Preset) -> Views:
    """Two large views, which differ in blur and solarisation, and eight small ones.

    official: main_dino.py 108-117 and 419-456. vissl: dino/dino_16gpus_deits16.yaml 21-36;
    bilinear, and twice the jitter of saturation.
    """
    first = ViewSpec(
        size_px=224,
        scale=(0.4, 1.0),
        interpolation="bicubic",
        jitter=(0.4, 0.4, 0.2, 0.1),
        jitter_p=0.8,
        grayscale_p=0.2,
        blur_p=1.0,
    )
    second = replace(first, blur_p=0.1, solarize_p=0.2)
    small = replace(first, size_px=96, scale=(0.05, 0.4), blur_p=0.5)
    official = Views((first, second, *[small] * 8))
    return _choose(preset, official, _as_vissl(official))


def dino_patch8(preset: Preset) -> Views:
    """DINO's views for patches of 8 px, of which VISSL has fewer and other small ones.

    vissl: dino/dino_64gpus_deits8.yaml 21-36. official: those of `dino`.
    """
    first, second, small, *_ = dino("vissl").specs
    large = {"scale": (0.25, 1.0)}
    vissl = Views(
        (
            replace(first, **large),
            replace(second, **large),
            *[replace(small, scale=(0.05, 0.25))] * 6,
        )
    )
    return _choose(preset, dino("official"), vissl)


METHODS: dict[str, Callable[[Preset], Views]] = {
    each.__name__: each for each in (moco_v2, swav, barlow_twins, dino, dino_patch8)
}


def names() -> list[str]:
    """Lists what `load` takes."""
    return [f"{method}/{preset}" for method in METHODS for preset in PRESETS]


def load(name: str) -> Views:
    """Gives views by method and preset, such as `dino/pathology`.

    Raises:
        UsageError: there are none of this name.
    """
    method, _, preset = name.partition("/")
    for each in PRESETS:
        if method in METHODS and preset == each:
            return METHODS[method](each)
    raise UsageError(f"There are no views {name!r}; choose one of: {', '.join(names())}.")


def _choose(preset: Preset, official: Views, vissl: Views) -> Views:
    if preset == "official":
        return official
    return vissl if preset == "vissl" else _for_pathology(vissl)


def _as_vissl(views: Views) -> Views:
    """VISSL's differences where it has no other scales: filter, and jitter of strength 0.5."""
    return views.changed(interpolation="bilinear", jitter=(0.4, 0.4, 0.4, 0.1))


def _for_pathology(views: Views) -> Views:
    """Adds what suits tissue to VISSL's views, with which the released encoders were trained.

    Vertical flips, since a tile has no up; a jitter that leaves the colours those of a stain, and
    RandStainNA before it. Kang et al. 2023 name the three and no public source gives their numbers:
    the jitter is one of two that users report, the other is half as strong; that RandStainNA meets
    every second view, and by 0.7 of the fitted spread, are settings of its own benchmark runs
    (yiqings/RandStainNA 4897b03, classification/output). A stain fitted to the tiles at hand is
    better than the published one of CRC, which stands here: `eosin stain fit`.
    """
    return views.changed(
        vflip_p=0.5, jitter=(0.2, 0.2, 0.2, 0.1), stain=published("lab"), stain_p=STAIN_P
    )
