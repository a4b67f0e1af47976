"""`eosin segment`: the nuclei of an image or a slide, as outlines, instance map and overlay."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import tifffile
import tyro
from numpy.typing import NDArray

from eosin.atomic import replacing
from eosin.engine.precision import Precision, default_device
from eosin.engine.precision import resolve as resolve_precision
from eosin.errors import InputError, UsageError
from eosin.images.files import read_image
from eosin.nuclei import geojson
from eosin.nuclei.model_files import Saved, load_segmenter
from eosin.nuclei.overlay import draw
from eosin.nuclei.postprocess import Segmented
from eosin.nuclei.predicting import NucleiPredictor
from eosin.nuclei.slide_parts import SlideParts
from eosin.slides.reader import Slide, open_slide

Image = NDArray[np.uint8]

_PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
_LARGEST_MAP_PX = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Which network finds the nuclei of what, and where they go."""

    network: Annotated[Path, tyro.conf.Positional]
    """Folder of a trained network: models/<row> of the results of eosin evaluate --task nuclei."""
    image: Annotated[Path, tyro.conf.Positional]
    """An image, or a slide in any format that eosin tile reads."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """GeoJSON file for the outlines, in pixels of the image or of the slide's level 0."""
    map: Path | None = None
    """TIFF file for the instance map, at the resolution of the image, or for a slide at that of the
    network."""
    overlay: Path | None = None
    """PNG file for the image with the nuclei outlined by type, at the same resolution."""
    mpp: float | None = None
    """Micrometres a pixel of the image, or of the slide's level 0, where its file has none or a
    wrong one; for an image by default those of the images that the network was trained on."""
    tissue: Literal["optical_density", "hsv", "otsu", "all"] = "optical_density"
    """How tissue is found on a slide; nothing else is looked at."""
    precision: Precision = "auto"
    """Number format of the network."""

    def __post_init__(self) -> None:
        if self.out.suffix.lower() not in (".geojson", ".json"):
            raise UsageError(f"-o {self.out}: outlines are written as .geojson.")
        if self.map is not None and self.map.suffix.lower() not in (".tif", ".tiff"):
            raise UsageError(f"--map {self.map}: the instance map is written as .tif.")
        if self.overlay is not None and self.overlay.suffix.lower() != ".png":
            raise UsageError(f"--overlay {self.overlay}: the overlay is written as .png.")
        if self.mpp is not None and not self.mpp > 0:
            raise UsageError(f"--mpp {self.mpp:g}: micrometres a pixel are more than 0.")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was found, and where it is written."""

    nuclei: int
    files: tuple[Path, ...]


def segment(config: Config) -> Written:
    """Finds the nuclei, and writes what was asked for.

    A slide is done part by part; what is done stays beside the output until all is, so that the
    same command goes on where a run was killed.

    Raises:
        InputError: the network, the image or the slide cannot be read, or has no mpp.
        UsageError: a map or an overlay is asked for of a slide that is too large for one.
    """
    saved = load_segmenter(config.network)
    device = default_device()
    network = saved.network.to(device)
    precision = resolve_precision(config.precision, device)
    predict = NucleiPredictor(network, saved.training, precision, device)
    if config.image.suffix.lower() in _PICTURES:
        return _segment_image(config, saved, predict)
    with open_slide(config.image, mpp=config.mpp) as slide:
        return _segment_slide(config, saved, predict, slide)


def _segment_image(config: Config, saved: Saved, predict: NucleiPredictor) -> Written:
    if not config.image.is_file():
        raise InputError(f"There is no image at {config.image}.")
    image = read_image(config.image)
    mpp = saved.mpp if config.mpp is None else config.mpp
    found = _restored(predict(_resized(image, mpp / saved.mpp), saved.mpp), image)
    count = geojson.write(
        config.out,
        found.instances,
        found.types,
        saved.classes,
        type_probability=found.type_probability,
    )
    return _written(config, count, found, image, saved.classes)


def _segment_slide(config: Config, saved: Saved, predict: NucleiPredictor, slide: Slide) -> Written:
    scale = _scale(slide, saved.mpp)
    width, height = (int(side / scale) for side in slide.dimensions)
    is_drawn = config.map is not None or config.overlay is not None
    if is_drawn and max(width, height) > _LARGEST_MAP_PX:
        raise UsageError(
            f"{config.image} has {width:,} x {height:,} pixels at {saved.mpp:g} mpp; --map and "
            f"--overlay are for {_LARGEST_MAP_PX:,} at most. Open the outlines in QuPath instead."
        )
    parts = SlideParts(
        slide,
        predict,
        saved,
        config.tissue,
        folder=config.out.with_name(f"{config.out.name}.parts"),
    )
    whole = np.zeros((height, width), np.int32) if is_drawn else None
    types: list[NDArray[np.int64]] = []
    if whole is None:
        count = geojson.write_parts(config.out, parts, saved.classes, scale=scale)
    else:
        count = geojson.write_parts(
            config.out, parts.painted(whole, types), saved.classes, scale=scale
        )
    written = Written(nuclei=count, files=(config.out,))
    if whole is not None:
        every = np.concatenate([*types, np.empty(0, np.int64)])
        found = Segmented(whole, every, np.ones(len(every), np.float32))
        pixels = parts.pixels() if config.overlay is not None else None
        written = _written(config, count, found, pixels, saved.classes)
    parts.forget()
    return written


def _scale(slide: Slide, mpp: float) -> float:
    """Gives how many pixels of level 0 a pixel of the network is wide."""
    try:
        own = slide.mpp
    except InputError:
        raise InputError(
            f"{slide.path} has no usable mpp (micrometres a pixel): it is missing, implausible or "
            "unequal along x and y. Give that of its level 0 with --mpp."
        ) from None
    try:
        slide.reading(mpp)
    except InputError:
        raise InputError(
            f"{slide.path} was scanned at {own:.4g} mpp, which is coarser than the {mpp:.4g} mpp "
            "that the network was trained at, and slides are not enlarged. Take a network for "
            "coarser images; or, if the slide's mpp is wrong, give that of its level 0 with --mpp."
        ) from None
    return mpp / own


def _written(
    config: Config, count: int, found: Segmented, image: Image | None, classes: tuple[str, ...]
) -> Written:
    files = [config.out]
    if config.map is not None:
        with replacing(config.map) as temporary:
            content = found.instances.astype(np.uint32)
            tifffile.imwrite(temporary, content, compression="zlib", photometric="minisblack")
        files.append(config.map)
    if config.overlay is not None and image is not None:
        drawn = draw(image, (found.instances, found.types), classes)
        done, encoded = cv2.imencode(".png", drawn[..., ::-1])
        if not done:
            raise InputError(f"{config.overlay} cannot be written as PNG.")
        with replacing(config.overlay) as temporary:
            temporary.write_bytes(encoded.tobytes())
        files.append(config.overlay)
    return Written(nuclei=count, files=tuple(files))


def _resized(image: Image, factor: float) -> Image:
    """Brings an image to the resolution of the network."""
    if abs(factor - 1) < 0.02:
        return image
    size = tuple(max(1, round(side * factor)) for side in image.shape[1::-1])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def _restored(found: Segmented, image: Image) -> Segmented:
    """Brings an instance map to the size of the image; what has no pixel there is left out."""
    height, width = image.shape[:2]
    if found.instances.shape == (height, width):
        return found
    resized = cv2.resize(
        found.instances.astype(np.float64), (width, height), interpolation=cv2.INTER_NEAREST
    ).astype(np.int32)
    is_there = np.bincount(resized.ravel(), minlength=len(found) + 1)[1:] > 0
    return Segmented(resized, found.types, found.type_probability).keep(is_there)
