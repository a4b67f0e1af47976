"""Tiles straight from the slides, for a store that keeps no pixels of its own."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError
from eosin.slides.reader import open_slide

VARIABLE = "EOSIN_SLIDES"
"""Environment variable with more folders to look for slides in, separated as in PATH."""

_OPEN_SLIDES = 16


@dataclass(frozen=True, slots=True)
class SlideFile:
    """What a store knows of a slide's own file."""

    path: str
    """Relative to one of the folders that are searched."""
    mpp: float | None
    file_bytes: int | None
    layout: Path
    """The table of its tiles that was kept when it was cut, so that it opens faster."""


class WholeSlides:
    """Reads squares of many slides, and keeps the last used slides open.

    Safe to use from threads and from forked processes.

    Args:
        roots: folders that the slides' paths are relative to; those of the environment variable
            `EOSIN_SLIDES` are searched first.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = tuple(roots)
        self._open = functools.lru_cache(maxsize=_OPEN_SLIDES)(_OpenSlide)

    def read(
        self, slide: SlideFile, x_px: int, y_px: int, size_px: int, mpp: float
    ) -> npt.NDArray[np.uint8]:
        """Reads a square as `Slide.read` does.

        Raises:
            InputError: the slide is not there, has changed, or is damaged at this place.
        """
        # Held by a name, or another thread's read might drop it from the cache and close it.
        held = self._open(slide, self._roots)
        return held.slide.read(x_px, y_px, size_px, mpp)


def find(slide: SlideFile, roots: Sequence[Path]) -> Path:
    """Finds the file of a slide.

    Raises:
        InputError: it is in none of the folders, or is another file than the one that was cut.
    """
    relative = PurePosixPath(slide.path)
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(f"The store names a slide {slide.path!r}, which leaves its folder.")
    named = [Path(root) for root in os.environ.get(VARIABLE, "").split(os.pathsep) if root]
    found = [path for root in (*named, *roots) if (path := root / relative).is_file()]
    if not found:
        searched = " or ".join(map(str, (*named, *roots))) or "no folder"
        raise InputError(
            f"The slide {slide.path} is not below {searched}; put it back, or name the folder that"
            f" it lies in now in the environment variable {VARIABLE}."
        )
    size = found[0].stat().st_size
    if slide.file_bytes is not None and size != slide.file_bytes:
        raise InputError(
            f"{found[0]} has {size:,} bytes and had {slide.file_bytes:,} when its tiles were laid"
            " out: it has changed. Restore it, or run `eosin tile` on it into a new store."
        )
    return found[0]


class _OpenSlide:
    """A slide that lives while a thread reads from it, even if the cache drops it."""

    def __init__(self, slide: SlideFile, roots: tuple[Path, ...]) -> None:
        self.slide = open_slide(find(slide, roots), mpp=slide.mpp, layout=slide.layout)

    def __del__(self) -> None:
        # Where opening failed there is nothing to close.
        if hasattr(self, "slide"):
            self.slide.close()
