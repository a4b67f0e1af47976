"""Batches of augmented training images: a pure function of the seed and the update."""

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from eosin.datasets._base import LabelledImages
from eosin.encoders import Encoder
from eosin.engine.ahead import Row, batches_ahead
from eosin.engine.sharing import together
from eosin.engine.trainable import Batch
from eosin.finetuning.image_cache import Image, ImageCache
from eosin.images.opencv_threads import one_opencv_thread
from eosin.images.rendering import Renderer
from eosin.images.resampling import SUPPORT, Interpolation
from eosin.images.views import ViewSpec
from eosin.protocols._base import FineTuning
from eosin.protocols._division import Part

Labels = NDArray[np.int64]

_IMAGES_PER_TASK = 4
_ORDER, _AUGMENTATION = 1, 2  # what a random stream is for


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """The labelled images that are trained on, numbered over their parts.

    Attributes:
        splits: all images.
        parts: which of them.
    """

    splits: Mapping[str, LabelledImages]
    parts: Sequence[Part]
    places: list[tuple[str, int]] = field(init=False)
    labels: Labels = field(init=False)

    def __post_init__(self) -> None:
        places = [(part.split, number) for part in self.parts for number in part.index.tolist()]
        labels = [self.splits[part.split].labels[part.index] for part in self.parts]
        object.__setattr__(self, "places", places)
        object.__setattr__(self, "labels", np.concatenate(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def names(self, numbers: NDArray[np.int64]) -> list[str]:
        """Gives the ids of images."""
        places = [self.places[number] for number in numbers.tolist()]
        return [self.splits[split].ids[index] for split, index in places]


def augmentation(settings: FineTuning, encoder: Encoder) -> ViewSpec:
    """Gives what is drawn for each image besides turns by 90 degrees.

    The filter is the encoder's where it is bilinear or bicubic, and else bicubic.
    """
    known = encoder.interpolation in SUPPORT
    return ViewSpec(
        size_px=encoder.input_px,
        scale=settings.crop_scale,
        interpolation=cast(Interpolation, encoder.interpolation) if known else "bicubic",
        hflip_p=0.5 if settings.flips else 0.0,
        vflip_p=0.5 if settings.flips else 0.0,
        jitter=settings.jitter,
        jitter_p=settings.jitter_p,
    )


def augment(
    image: Image, spec: ViewSpec, rng: np.random.Generator, *, turns: bool, into: Image
) -> None:
    """Draws and writes one view.

    A transposition with both flips makes all eight orientations equally likely.

    Args:
        image: RGB, uint8 [H, W, 3].
        spec: what is drawn.
        rng: where all randomness comes from.
        turns: whether it may be transposed.
        into: where to write, uint8 [3, S, S], contiguous.
    """
    Renderer(image).render(spec.sample(rng, *image.shape[:2]), into)
    if turns and rng.random() < 0.5:
        into[:] = into.transpose(0, 2, 1).copy()


class Feed:
    """Gives this process's share of the batches from any update on.

    Images stand in an endless row of shuffled epochs, of which each update takes the next
    `batch_size`. Which they are and how they are augmented depends on the seed and their place in
    the row alone, never on threads, on the number of processes or on where training was resumed.

    Args:
        images: what to train on.
        cache: where to read it.
        encoder: whose input size and normalisation are used.
        settings: how images are augmented.
        batch_size: images of an update over all processes.
        updates: length of the training.
        seed: of order and augmentation.
        device: where batches go.
    """

    def __init__(
        self,
        images: TrainingSet,
        cache: ImageCache,
        encoder: Encoder,
        settings: FineTuning,
        *,
        batch_size: int,
        updates: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self._images, self._cache, self._encoder = images, cache, encoder
        self._spec, self._turns = augmentation(settings, encoder), settings.flips
        self._batch_size, self._updates, self._seed = batch_size, updates, seed
        self._device = device
        self._row = Row(len(images), seed, _ORDER)

    def __call__(self, start: int) -> Generator[Batch]:
        """Yields the batches of update `start` and those that follow; closing ends the threads.

        Raises:
            InputError: an image cannot be read, by this process or another.
        """
        with one_opencv_thread():
            yield from batches_ahead(self._begin, self._finish, range(start, self._updates))

    def share(self, update: int) -> tuple[NDArray[np.int64], Labels]:
        """Gives the places in the row of this process's images of an update, and their numbers."""
        return self._row.share(update, self._batch_size)

    def _begin(self, update: int, pool: ThreadPoolExecutor) -> "_Unfinished":
        places, numbers = self.share(update)
        side = self._spec.size_px
        shape = (len(numbers), 3, side, side)
        pixels = torch.empty(shape, dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        rows = range(len(numbers))
        tasks = [
            pool.submit(self._fill, pixels.numpy(), places, numbers, rows[i : i + _IMAGES_PER_TASK])
            for i in range(0, len(rows), _IMAGES_PER_TASK)
        ]
        return _Unfinished(pixels, numbers, tasks)

    def _fill(
        self, pixels: Image, places: NDArray[np.int64], numbers: Labels, rows: Sequence[int]
    ) -> None:
        for row in rows:
            image = self._cache.read(*self._images.places[int(numbers[row])])
            rng = np.random.default_rng((self._seed, _AUGMENTATION, int(places[row])))
            augment(image, self._spec, rng, turns=self._turns, into=pixels[row])

    def _finish(self, batch: "_Unfinished") -> Batch:
        # Processes that took an update without the one that failed would wait for it.
        together(batch.wait)
        pixels = batch.pixels.to(self._device, non_blocking=True)
        images = self._encoder.normalise(pixels).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(self._images.labels[batch.numbers]).to(self._device)
        names: Any = partial(self._images.names, batch.numbers)
        return Batch(micro=[[images, labels]], tiles=names)


@dataclass(frozen=True, eq=False)
class _Unfinished:
    """A batch whose images are being written."""

    pixels: Tensor
    numbers: Labels
    tasks: list[Future[None]]

    def wait(self) -> None:
        """Returns when all are written.

        Raises:
            InputError: one cannot be read.
        """
        for task in self.tasks:
            task.result()
