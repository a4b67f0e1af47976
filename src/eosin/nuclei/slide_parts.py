"""The nuclei of a slide, part by part, each of which is computed once even if a run is killed."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eosin.atomic import replacing, write_json
from eosin.nuclei.model_files import Saved
from eosin.nuclei.postprocess import Segmented
from eosin.nuclei.predicting import NucleiPredictor
from eosin.nuclei.stitching import Part, segment_in_parts
from eosin.progress import Bar
from eosin.provenance import sha256_of
from eosin.slides.reader import Slide
from eosin.slides.tissue import MASK_MPP, find_tissue

Image = NDArray[np.uint8]
_Box = tuple[int, int, int, int]

_PART_WINDOWS, _MARGIN_WINDOWS = 10, 2
"""Sides of a part and of the margin around it, in windows' outputs: all lie on one grid.

The outer of two windows sees mirrored pixels; those at a border of parts see the same in both.
"""


class SlideParts:
    """Gives the parts of a slide that hold tissue, with their nuclei, row by row.

    Args:
        slide: what is segmented.
        predict: finds the nuclei of an image.
        saved: the network, at whose mpp the slide is read.
        tissue: how tissue is found; `all` takes everything.
        folder: for parts that are done.

    Raises:
        InputError: the slide has no mpp, is coarser than the network's, or is damaged.
    """

    def __init__(
        self, slide: Slide, predict: NucleiPredictor, saved: Saved, tissue: str, folder: Path
    ) -> None:
        self._slide, self._predict, self._mpp = slide, predict, saved.mpp
        self._scale = saved.mpp / slide.mpp
        slide.reading(saved.mpp)
        self._width, self._height = (int(side / self._scale) for side in slide.dimensions)
        self._part_px = _PART_WINDOWS * predict.output_px
        self._margin_px = _MARGIN_WINDOWS * predict.output_px
        self._folder, self._box = folder, (0, 0, 0, 0)
        self._mask = (
            None if tissue == "all" else find_tissue(slide.thumbnail(MASK_MPP), MASK_MPP, tissue)
        )
        self._claim(saved, tissue)

    def __iter__(self) -> Iterator[Part]:
        with Bar("segmenting", self._count(), "parts") as bar:
            for part in segment_in_parts(
                self._read,
                self._width,
                self._height,
                self._part_px,
                self._margin_px,
                self._segment,
                is_wanted=self._is_wanted,
            ):
                bar.advance(1, f"{len(part.found):,} nuclei")
                yield part

    def painted(self, whole: NDArray[np.int32], types: list[NDArray[np.int64]]) -> Iterator[Part]:
        """Gives the parts, and numbers their nuclei on in a map of the whole slide.

        Args:
            whole: int32 [height, width], zeros; written to.
            types: of the nuclei, part by part; appended to.
        """
        count = 0
        for part in self:
            found = part.found.instances
            here = whole[part.y : part.y + found.shape[0], part.x : part.x + found.shape[1]]
            is_new = (found > 0) & (here == 0)
            here[is_new] = found[is_new] + count
            count += len(part.found)
            types.append(part.found.types)
            yield part

    def pixels(self) -> Image:
        """Reads the whole slide at the network's mpp, [height, width, 3]."""
        return self._pixels(0, 0, self._width, self._height)

    def forget(self) -> None:
        """Removes what was kept of the parts."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _pixels(self, x: int, y: int, width: int, height: int) -> Image:
        side = max(width, height)
        left, top = round(x * self._scale), round(y * self._scale)
        return self._slide.read(left, top, side, self._mpp)[:height, :width]

    def _read(self, x: int, y: int, width: int, height: int) -> Image:
        self._box = (x, y, width, height)
        if self._path().is_file():
            return np.empty((0, 0, 3), np.uint8)  # it is known what is there
        return self._pixels(x, y, width, height)

    def _segment(self, image: Image) -> Segmented:
        path = self._path()
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return Segmented(kept["instances"], kept["types"], kept["type_probability"])
        found = self._predict(image, self._mpp)
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                instances=found.instances,
                types=found.types,
                type_probability=found.type_probability,
            )
        return found

    def _path(self) -> Path:
        x, y, *_ = self._box
        return self._folder / f"{x}-{y}.npz"

    def _is_wanted(self, x: int, y: int, width: int, height: int) -> bool:
        if self._mask is None:
            return True
        to_mask = self._mpp / MASK_MPP
        left, top = int(x * to_mask), int(y * to_mask)
        right, bottom = (int(np.ceil(end * to_mask)) for end in (x + width, y + height))
        return bool(self._mask[top : bottom + 1, left : right + 1].any())

    def _count(self) -> int:
        part = self._part_px
        return sum(
            self._is_wanted(x, y, min(part, self._width - x), min(part, self._height - y))
            for y in range(0, self._height, part)
            for x in range(0, self._width, part)
        )

    def _claim(self, saved: Saved, tissue: str) -> None:
        """Takes up the parts of the very same work, and removes those of another."""
        state = self._slide.path.stat()
        weights = sha256_of(
            [float(each.double().sum()) for each in saved.network.state_dict().values()]
        )
        settings = [repr(saved.training), self._scale, tissue]
        job = sha256_of([weights, state.st_size, state.st_mtime_ns, *settings])
        path = self._folder / "job.json"
        if not (path.is_file() and json.loads(path.read_text()).get("job") == job):
            shutil.rmtree(self._folder, ignore_errors=True)
            write_json(path, {"job": job})
