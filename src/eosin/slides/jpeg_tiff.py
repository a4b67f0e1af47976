"""The fast path: slides that are TIFF files of JPEG tiles (SVS, generic, OME and Philips TIFF).

OpenSlide says what the slide is: its vendor, resolution and levels. tifffile says where the tiles
of these levels lie, once; from then on they are read without either.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import tifffile

from eosin.errors import InputError
from eosin.slides.jpeg_layout import AS_RGB, AS_YCBCR, JpegLayout, JpegLevel
from eosin.slides.jpeg_tiles import first_jpeg
from eosin.slides.openslide_pixels import OpenSlidePixels, detect_vendor, mean_mpp
from eosin.slides.tiff_directories import check_complete

NAME = "jpeg_tiff"

_VENDORS = ("aperio", "generic-tiff", "philips")
_MICROMETRES = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}
_COLOURS: dict[int, tuple[str, bytes]] = {
    tifffile.PHOTOMETRIC.RGB: ("RGB", AS_RGB),
    tifffile.PHOTOMETRIC.YCBCR: ("YCbCr", AS_YCBCR),
}

# What tifffile thinks of a damaged header is said by whoever reads the slide then.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def read_layout(path: Path) -> JpegLayout | None:
    """Finds the JPEG tiles of a TIFF slide; None if OpenSlide has to read it.

    Raises:
        InputError: OpenSlide knows the format and refuses the file, or it is truncated.
    """
    vendor = detect_vendor(path)
    if vendor not in _VENDORS:
        return None
    check_complete(path)
    slide = OpenSlidePixels(path)
    try:
        with tifffile.TiffFile(path) as tiff:
            layout = _read_ome(path, tiff) if tiff.is_ome else _read_levels(path, tiff, slide)
    except InputError:
        raise
    except Exception:
        # A damaged header can break a parser in any way; OpenSlide has opened this one.
        return None
    finally:
        slide.close()
    return layout if layout is not None and _is_readable(path, layout) else None


def _read_levels(path: Path, tiff: tifffile.TiffFile, slide: OpenSlidePixels) -> JpegLayout | None:
    """Finds the page of each level that OpenSlide sees."""
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
    # Philips pads its levels to whole tiles, so only their order tells which page is which.
    by_order = slide.vendor == "philips"
    if by_order and len(pages) != len(slide.level_dimensions):
        return None
    if slide.vendor == "generic-tiff":
        # All pages but the first are levels only if they say so.
        pages = [page for page in pages if page.index == 0 or page.is_reduced]
    by_size = {(page.imagewidth, page.imagelength): page for page in reversed(pages)}
    levels: list[JpegLevel] = []
    for number, size in enumerate(slide.level_dimensions):
        level = _as_level(path, pages[number] if by_order else by_size.get(size), size)
        if level is None:
            return None
        levels.append(level)
    is_whole = all(level.lengths.all() for level in levels)
    if slide.vendor == "aperio" and len(levels) > 1 and not is_whole:
        # OpenSlide draws missing tiles from the next finer level, and takes those of the coarser
        # levels over a missing one for missing too.
        return None
    return JpegLayout(NAME, slide.vendor, slide.mpp, slide.level_downsamples, tuple(levels))


def _read_ome(path: Path, tiff: tifffile.TiffFile) -> JpegLayout | None:
    """Finds the levels of the first image of an OME-TIFF, which may lie in sub-directories."""
    levels: list[JpegLevel] = []
    for series in tiff.series[0].levels:
        page = series.keyframe
        if len(series.pages) != 1 or not page.is_tiled or page.parent is not tiff:
            return None
        level = _as_level(path, page, (page.imagewidth, page.imagelength))
        if level is None:
            return None
        levels.append(level)
    width, height = levels[0].width_px, levels[0].height_px
    downsamples = tuple((width / one.width_px + height / one.height_px) / 2 for one in levels)
    mpp = _ome_mpp(tiff.ome_metadata or "")
    return JpegLayout(NAME, "ome-tiff", mpp, downsamples, tuple(levels))


def _ome_mpp(xml: str) -> float | None:
    images = tifffile.xml2dict(xml)["OME"]["Image"]
    pixels: dict[str, Any] = (images[0] if isinstance(images, list) else images)["Pixels"]
    sizes: list[float | None] = []
    for axis in ("X", "Y"):
        size = pixels.get(f"PhysicalSize{axis}")
        unit = _MICROMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        sizes.append(None if size is None or unit is None else float(size) * unit)
    return mean_mpp(*sizes)


def _as_level(
    path: Path, page: tifffile.TiffPage | None, size: tuple[int, int]
) -> JpegLevel | None:
    if page is None or page.compression != tifffile.COMPRESSION.JPEG:
        return None
    kind = (page.samplesperpixel, page.planarconfig, page.bitspersample, page.imagedepth)
    if kind != (3, tifffile.PLANARCONFIG.CONTIG, 8, 1) or page.photometric not in _COLOURS:
        return None
    shape = (-(-page.imagelength // page.tilelength), -(-page.imagewidth // page.tilewidth))
    # The shared tables are a JPEG of their own: without its start and its end.
    tables = page.jpegtables[2:-2] if page.jpegtables else b""
    return JpegLevel(
        file_name=path.name,
        width_px=size[0],
        height_px=size[1],
        tile_width_px=page.tilewidth,
        tile_height_px=page.tilelength,
        head=_COLOURS[page.photometric][1] + tables,
        offsets=np.array(page.dataoffsets, np.int64).reshape(shape),
        lengths=np.array(page.databytecounts, np.int64).reshape(shape),
    )


def _is_readable(path: Path, layout: JpegLayout) -> bool:
    """Whether the first tile of each level is a JPEG of the size and colours that TIFF says."""
    for level in layout.levels:
        jpeg = first_jpeg(path, level)
        if jpeg is None:
            raise InputError(
                f"{path} is damaged: its header names no tile at all of"
                f" {level.width_px} x {level.height_px} px; get a whole copy of it."
            )
        try:
            height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg)
        except ValueError:
            return False
        said = next(name for name, marker in _COLOURS.values() if level.head.startswith(marker))
        if (height, width, colours) != (level.tile_height_px, level.tile_width_px, said):
            return False
    return True
