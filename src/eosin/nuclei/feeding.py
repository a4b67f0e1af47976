"""Batches of augmented crops with their targets: a pure function of the seed and the update."""

from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eosin.datasets._instances import InstanceImages, Labelled
from eosin.encoders import Encoder
from eosin.engine.ahead import Row, batches_ahead
from eosin.engine.sharing import together
from eosin.engine.trainable import Batch
from eosin.images.opencv_threads import one_opencv_thread
from eosin.nuclei.augment import crop, draw_placement, recolour
from eosin.nuclei.settings import Training
from eosin.nuclei.targets import Targets, make_targets

Indices = NDArray[np.int64]

_KEPT = 64  # images
_ORDER, _AUGMENTATION = 1, 2  # what a random stream is for
_MARGIN_PX = 32
"""How far around an output nuclei are seen whole, where the network's input shows no more."""


@dataclass(frozen=True)
class Window:
    """A window of an image.

    Attributes:
        image: number of the image.
        centre: x and y of the window's middle.
    """

    image: int
    centre: tuple[float, float]


def windows_of(sizes: Sequence[tuple[int, int]], window_px: int, step_px: int) -> list[Window]:
    """Lays windows over images, as the authors of HoVer-Net do.

    Images are thought to be mirrored by half of what a window is larger than a step; windows begin
    a step apart, and one more ends at the border where steps do not: 49 windows of 540 pixels, 164
    apart, for 1,000 by 1,000 pixels.

    Args:
        sizes: height and width of each image.
        window_px: side of a window.
        step_px: from window to window.
    """
    return [
        Window(number, (x, y))
        for number, (height, width) in enumerate(sizes)
        for y in _centres(height, window_px, step_px)
        for x in _centres(width, window_px, step_px)
    ]


def _centres(length: int, window_px: int, step_px: int) -> list[float]:
    before = (window_px - step_px) // 2
    spare = max(0, length + (window_px - step_px) - window_px)
    starts = list(range(0, spare + 1, step_px))
    starts += [spare] if spare % step_px else []
    return [start - before + (window_px - 1) / 2 for start in starts]


class Feed:
    """Gives this process's share of the batches from any update on.

    Which windows they are and how they are augmented depends on the seed and their place in the
    endless row of shuffled epochs alone.

    Args:
        images: the dataset's training images.
        chosen: which of them are trained on.
        encoder: whose normalisation is used.
        training: windows and augmentation.
        output_px: side of the network's outputs.
        batch_size: windows of an update over all processes.
        updates: length of the training.
        seed: of order and augmentation.
        device: where batches go.
    """

    def __init__(
        self,
        images: InstanceImages,
        chosen: Indices,
        encoder: Encoder,
        training: Training,
        *,
        output_px: int,
        batch_size: int,
        updates: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._images, self._chosen, self._encoder = images, chosen, encoder
        self._training, self._output_px, self._device = training, output_px, device
        self._batch_size, self._updates, self._seed = batch_size, updates, seed
        self._read = lru_cache(maxsize=_KEPT)(images.read)
        self._windows = training_windows(images, chosen, training)
        self._row = Row(len(self._windows), seed, _ORDER)

    def __call__(self, start: int) -> Generator[Batch]:
        """Yields the batches of update `start` and those that follow; closing ends the threads.

        Raises:
            InputError: an image cannot be read.
        """
        with one_opencv_thread():
            yield from batches_ahead(self._begin, self._finish, range(start, self._updates))

    def _begin(self, update: int, pool: ThreadPoolExecutor) -> "_Unfinished":
        places, numbers = self._row.share(update, self._batch_size)
        windows = [self._windows[number] for number in numbers.tolist()]
        tasks = [
            pool.submit(self._make_at, place, window)
            for place, window in zip(places.tolist(), windows, strict=True)
        ]
        return _Unfinished([self._name(window) for window in windows], tasks)

    def _make_at(self, place: int, window: Window) -> "Sample":
        labelled = self._read(int(self._chosen[window.image]))
        rng = np.random.default_rng((self._seed, _AUGMENTATION, place))
        return make_sample(labelled, window, rng, self._training, self._output_px)

    def _name(self, window: Window) -> str:
        x, y = window.centre
        return f"{self._images.ids[int(self._chosen[window.image])]} at {x:.0f}, {y:.0f}"

    def _finish(self, batch: "_Unfinished") -> Batch:
        # Processes that took an update without the one that failed would wait for it.
        samples = together(batch.wait)
        pixels = torch.from_numpy(np.stack([each.image for each in samples])).movedim(-1, 1)
        images = self._encoder.normalise(pixels.to(self._device))
        arrays = [
            np.stack([each.targets.foreground for each in samples]).astype(np.int64),
            np.stack([each.targets.hv for each in samples]),
            np.stack([each.targets.types for each in samples]),
        ]
        truth = [torch.from_numpy(each).to(self._device) for each in arrays]
        images = images.contiguous(memory_format=torch.channels_last)
        names: Any = partial(list[str], batch.names)
        return Batch(micro=[[images, *truth]], tiles=names)


@dataclass(frozen=True, eq=False)
class Sample:
    """A crop as the network sees it, and what it should say."""

    image: NDArray[np.uint8]
    targets: Targets


def make_sample(
    labelled: Labelled,
    window: Window,
    rng: np.random.Generator,
    training: Training,
    output_px: int,
) -> Sample:
    """Draws one augmented crop [S, S, 3] of a window, and its targets."""
    placed = draw_placement(rng, window.centre, training.window_px)
    map_px = max(training.input_px, output_px + 2 * _MARGIN_PX)
    image, instances = crop(labelled.image, labelled.instances, placed, training.input_px, map_px)
    image = recolour(image, rng, contrast=training.contrast)
    targets = make_targets(instances, labelled.types, output_px, official=training.official_targets)
    return Sample(image, targets)


def training_windows(images: InstanceImages, chosen: Indices, training: Training) -> list[Window]:
    """Lays windows over the chosen images, which are read for their sizes."""
    sizes = [images.read(number).image.shape[:2] for number in chosen.tolist()]
    return windows_of([(h, w) for h, w in sizes], training.window_px, training.step_px)


@dataclass(frozen=True, eq=False)
class _Unfinished:
    names: list[str]
    tasks: list[Future[Sample]]

    def wait(self) -> list[Sample]:
        return [task.result() for task in self.tasks]
