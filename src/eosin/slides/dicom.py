"""DICOM slides that OpenSlide refuses: their frames are JPEG tiles like those of a TIFF.

pydicom, an extra, reads the headers, and `dicom_frames` finds the frames; from then on the slide is
read without either.
"""

import importlib
import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from eosin.errors import InputError
from eosin.slides.dicom_frames import (
    DicomFile,
    damaged,
    find_frames,
    is_order_known,
    place_frames,
    positive,
)
from eosin.slides.dicom_order import order_frames
from eosin.slides.dicom_series import files_of_series, is_dicom
from eosin.slides.jpeg_layout import AS_RGB, AS_YCBCR, JpegLayout, JpegLevel
from eosin.slides.jpeg_tiles import first_jpeg
from eosin.slides.openslide_pixels import OpenSlidePixels, mean_mpp

NAME = "dicom"

_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_COLOURS = {"RGB": "RGB", "YBR_FULL": "YCbCr", "YBR_FULL_422": "YCbCr"}
_MARKERS = {"RGB": AS_RGB, "YCbCr": AS_YCBCR}
_MOST_TILES = 2**24
_TAGS = [
    "Columns",
    "ConcatenationUID",
    "DimensionOrganizationType",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "ImageType",
    "ImagedVolumeHeight",
    "ImagedVolumeWidth",
    "NumberOfFrames",
    "NumberOfOpticalPaths",
    "PerFrameFunctionalGroupsSequence",
    "PhotometricInterpretation",
    "Rows",
    "SOPClassUID",
    "SharedFunctionalGroupsSequence",
    "SpecimenLabelInImage",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixFocalPlanes",
    "TotalPixelMatrixRows",
]


def read_layout(path: Path) -> JpegLayout | None:
    """Finds the JPEG frames of a DICOM slide; None if it is none, or OpenSlide reads it.

    Raises:
        InputError: OpenSlide refuses it, and it cannot be read here either.
    """
    if not is_dicom(path):
        return None
    try:
        OpenSlidePixels(path).close()
    except InputError as error:
        refused = error
    else:
        return None
    pydicom = _import_pydicom(refused)
    try:
        # Real files break many rules that do not concern us, such as how long a name may be.
        with warnings.catch_warnings(action="ignore"), pydicom.config.disable_value_validation():
            return _read_series(pydicom, path)
    except (InputError, OSError):
        raise
    except Exception as error:
        # A damaged header can break a parser in any way.
        raise damaged(path, f"its header cannot be read ({error})") from error


def _import_pydicom(refused: InputError) -> Any:
    try:
        return importlib.import_module("pydicom")
    except ImportError as error:
        raise InputError(
            f'{str(refused).rstrip(".")}; pip install "eosin[dicom]" reads more DICOM slides.'
        ) from error


def _read_series(pydicom: Any, path: Path) -> JpegLayout:
    files = [_read_header(pydicom, one) for one in files_of_series(path)]
    levels = [_read_level(one) for one in files if _is_level(one)]
    if not levels:
        raise InputError(
            f"{path} is DICOM, but neither it nor another file of its series in this folder is the"
            " image of a whole slide (of the flavour VOLUME); leave it out of --slides."
        )
    levels.sort(key=lambda level: (-level.width_px, -level.height_px))
    first = levels[0]
    for one, other in itertools.pairwise(levels):
        if (one.width_px, one.height_px) == (other.width_px, other.height_px):
            raise InputError(
                f"{path.parent / one.file_name} and {other.file_name} are of one series and one"
                " size, such as focal planes; put each into a folder of its own."
            )
    downsamples = tuple(
        (first.width_px / one.width_px + first.height_px / one.height_px) / 2 for one in levels
    )
    header = next(one.header for one in files if one.path.name == first.file_name)
    return JpegLayout(NAME, "dicom", _mpp_of(header), downsamples, tuple(levels))


def _read_header(pydicom: Any, path: Path) -> DicomFile:
    with open(path, "rb") as file:
        header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        return DicomFile(path, header, file.tell())


def _is_level(file: DicomFile) -> bool:
    """Whether it shows the slide; a label, an overview or a thumbnail does not."""
    header = file.header
    if header.get("SOPClassUID") != _WHOLE_SLIDE:
        return False
    kind = header.get("ImageType")
    if not kind:
        return header.get("SpecimenLabelInImage") != "YES"
    return len(kind) > 2 and kind[2] == "VOLUME"


def _read_level(file: DicomFile) -> JpegLevel:
    _check_kind(file)
    header = file.header
    tile_px = (positive(file, "Columns"), positive(file, "Rows"))
    whole = ("TotalPixelMatrixColumns", "TotalPixelMatrixRows")
    width, height = (positive(file, name) for name in whole) if whole[0] in header else tile_px
    shape = (-(-height // tile_px[1]), -(-width // tile_px[0]))
    if shape[0] * shape[1] > _MOST_TILES:
        raise damaged(file.path, f"{width} x {height} px in frames of {tile_px} px are too many")
    places = place_frames(file, shape, tile_px)
    offsets, lengths = np.zeros((2, *shape), np.int64)
    offsets.flat[places], lengths.flat[places] = find_frames(file, len(places))
    said = _COLOURS[header.PhotometricInterpretation]
    level = JpegLevel(
        file_name=file.path.name,
        width_px=width,
        height_px=height,
        tile_width_px=tile_px[0],
        tile_height_px=tile_px[1],
        head=_MARKERS[said],
        offsets=offsets,
        lengths=lengths,
    )
    level = replace(level, head=_MARKERS[_colours_of_frames(file, level, said)])
    return level if is_order_known(file) else order_frames(file.path, level)


def _check_kind(file: DicomFile) -> None:
    header, path = file.header, file.path
    syntax = header.file_meta.TransferSyntaxUID
    if syntax != _JPEG_BASELINE:
        raise InputError(
            f"{path} is DICOM that OpenSlide refuses, and its frames are {syntax.name}, of which"
            " Eosin reads only JPEG Baseline; convert it."
        )
    if header.get("PhotometricInterpretation") not in _COLOURS:
        raise InputError(
            f"{path} is in {header.get('PhotometricInterpretation')} and not in colours as H&E is"
            f" ({', '.join(_COLOURS)}); leave it out of --slides."
        )
    for tag, things in (
        ("NumberOfOpticalPaths", "optical paths"),
        ("TotalPixelMatrixFocalPlanes", "focal planes"),
    ):
        if int(header.get(tag) or 1) > 1:
            raise InputError(
                f"{path} has {header.get(tag)} {things} in one file; export one of them."
            )
    if header.get("ConcatenationUID"):
        raise InputError(
            f"{path} is only a part of a level (a concatenation); export the level as one file."
        )


def _colours_of_frames(file: DicomFile, level: JpegLevel, said: str) -> str:
    """What the frames hold; their own marker, as JFIF has one, counts more than DICOM's header."""
    jpeg = first_jpeg(file.path, level)
    if jpeg is None:
        return said
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg)
    except ValueError as error:
        raise damaged(file.path, f"its first frame is no JPEG ({error})") from error
    if (width, height) != (level.tile_width_px, level.tile_height_px) or colours not in _MARKERS:
        raise damaged(
            file.path,
            f"its first frame is {width} x {height} px of {colours} instead of"
            f" {level.tile_width_px} x {level.tile_height_px} px of {said}",
        )
    return colours


def _mpp_of(header: Any) -> float | None:
    """The distance of pixels, or what the size of the whole amounts to."""
    shared = header.get("SharedFunctionalGroupsSequence") or [{}]
    measures = shared[0].get("PixelMeasuresSequence") or [{}]
    spacing = measures[0].get("PixelSpacing")
    if spacing is not None and len(spacing) == 2:
        return mean_mpp(1e3 * float(spacing[1]), 1e3 * float(spacing[0]))
    sizes: list[float | None] = []
    for axis, pixels in (("Width", "Columns"), ("Height", "Rows")):
        size_mm, count = header.get(f"ImagedVolume{axis}"), header.get(f"TotalPixelMatrix{pixels}")
        sizes.append(1e3 * float(size_mm) / count if size_mm and count else None)
    return mean_mpp(*sizes)
