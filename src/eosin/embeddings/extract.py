"""From images to one matrix of embeddings."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from eosin.embeddings.backends import BACKENDS, open_backend
from eosin.encoders import Encoder
from eosin.engine import precision as formats
from eosin.errors import Diverged, InputError, UsageError
from eosin.images import stain_shift
from eosin.progress import Bar

Image = NDArray[np.uint8]
Matrix = NDArray[np.float32]

NO_SHIFT = "none"
SHIFTS: Mapping[str, Callable[[Image], Image]] = {stain_shift.NAME: stain_shift.shift_stain}

_BATCHES_AHEAD = 3


class Images(Protocol):
    """Images with names, read one at a time by several threads."""

    @property
    def ids(self) -> Sequence[str]:
        """One unique name an image."""
        ...

    @property
    def manifest_sha256(self) -> str:
        """Hash of all that the images consist of."""
        ...

    def read(self, index: int) -> Image:
        """Gives an image as uint8 RGB [H, W, 3]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """How embeddings are computed; precision and back end have an effect on their values."""

    precision: formats.Precision = "auto"
    """Number format of the forward pass: `auto` is bf16 where the hardware computes in it."""
    batch_size: int = 64
    """Images a forward pass."""
    workers: int = 0
    """Threads that read and resize images; 0: as many as PyTorch computes with."""
    backend: str = "auto"
    """What computes: torch, onnxruntime or openvino; auto is torch."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} must be at least 1.")
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers} must be 0 (chosen for you) or more.")
        if self.backend not in BACKENDS:
            raise UsageError(f"--backend {self.backend} must be one of {', '.join(BACKENDS)}.")

    @property
    def backend_name(self) -> str:
        """The back end that `auto` stands for, or the one asked for."""
        return "torch" if self.backend == "auto" else self.backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What became of images that went through the encoder together."""

    images: range
    """Their numbers."""
    embeddings: Matrix
    """[B, D]; a row of no meaning stands for an image that could not be read."""
    unreadable: Mapping[int, str] = field(default_factory=dict[int, str])
    """The numbers of those, each with the reason."""


def batches_of(count: int, size: int) -> list[range]:
    """Cuts the numbers 0 to `count` - 1 into runs of `size`, the last of which may be shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


class Extractor:
    """An encoder ready to embed any batches of some images; a process or an actor holds one.

    Args:
        encoder: in evaluation mode; it is moved to the GPU where there is one.
        images: what to embed.
        config: how.
        shift: `none`, or a key of `SHIFTS` for what is done to each image before it is resized.
        skips_unreadable: names an image that cannot be read, instead of ending the work.
        expected: how many images there will be in all, on which the back end may choose its way;
            the same for all runs that share a matrix. None: many.

    Raises:
        InputError: the back end is not installed.
    """

    def __init__(
        self,
        encoder: Encoder,
        images: Images,
        config: Config,
        shift: str = NO_SHIFT,
        *,
        skips_unreadable: bool = False,
        expected: int | None = None,
    ) -> None:
        device = formats.default_device()
        self._encoder, self._images = encoder.to(device).eval(), images
        self._alter, self._skips_unreadable = SHIFTS.get(shift), skips_unreadable
        self._workers = config.workers or torch.get_num_threads()
        size = max(1, min(config.batch_size, len(images.ids)))
        self._chunk = max(1, math.ceil(size / self._workers))
        self._backend = open_backend(
            self._encoder,
            backend=config.backend_name,
            precision=config.precision,
            batch_size=size,
            device=device,
            images=expected,
        )

    def run(self, batches: Iterable[range]) -> Generator[Batch]:
        """Embeds batches in the order given, while threads prepare the next ones.

        Raises:
            Diverged: an embedding is not finite.
            InputError: an image cannot be read.
        """
        with closing(self._prepared(batches)) as prepared:
            for images, pixels, unreadable in prepared:
                embeddings = self._backend(pixels)
                self._check(images, embeddings)
                yield Batch(images=images, embeddings=embeddings, unreadable=unreadable)

    def _check(self, images: range, embeddings: Matrix) -> None:
        finite = np.isfinite(embeddings).all(1)
        if not finite.all():
            raise Diverged(
                f"{self._encoder.name} gives {int((~finite).sum()):,} embeddings that are not "
                f"finite, such as that of {self._images.ids[images[int(np.argmin(finite))]]}; its "
                "training may have diverged."
            )

    def _prepared(self, batches: Iterable[range]) -> Generator["_Prepared"]:
        """Yields batches [B, H, W, 3] in order, each read in parts by several threads."""
        waiting: deque[tuple[range, list[Future[_Part]]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="embed")
        try:
            for images in batches:
                parts = [
                    pool.submit(self._prepare, images[start : start + self._chunk])
                    for start in range(0, len(images), self._chunk)
                ]
                waiting.append((images, parts))
                if len(waiting) == _BATCHES_AHEAD:
                    yield _joined(*waiting.popleft())
            while waiting:
                yield _joined(*waiting.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _prepare(self, images: range) -> "_Part":
        side, interpolation = self._encoder.input_px, self._encoder.interpolation
        pixels = np.empty((len(images), side, side, 3), dtype=np.uint8)
        unreadable: dict[int, str] = {}
        for position, index in enumerate(images):
            try:
                image = self._images.read(index)
            except InputError as error:
                if not self._skips_unreadable:
                    raise
                # The others keep their places in the batch, and so the bits of their embeddings.
                unreadable[index] = str(error)
                pixels[position] = 0
                continue
            image = image if self._alter is None else self._alter(image)
            pixels[position] = fit_to_square(image, side, interpolation)
        return pixels, unreadable


_Part = tuple[Image, dict[int, str]]
_Prepared = tuple[range, Image, dict[int, str]]


def _joined(images: range, parts: list[Future[_Part]]) -> _Prepared:
    done = [part.result() for part in parts]
    unreadable = {index: reason for _, some in done for index, reason in some.items()}
    pixels = done[0][0] if len(done) == 1 else np.concatenate([pixels for pixels, _ in done])
    return images, pixels, unreadable


def extract(
    encoder: Encoder, images: Images, config: Config, shift: str = NO_SHIFT, title: str = "images"
) -> Matrix:
    """Embeds all images in the order of their ids, in memory.

    Args:
        encoder: in evaluation mode; it is moved to the GPU where there is one.
        images: what to embed.
        config: how.
        shift: `none`, or a key of `SHIFTS` for what is done to each image before it is resized.
        title: what the progress bar says.

    Returns:
        Embeddings [N, D].

    Raises:
        Diverged: an embedding is not finite.
        InputError: an image cannot be read.
    """
    extractor = Extractor(encoder, images, config, shift, expected=len(images.ids))
    embeddings = np.empty((len(images.ids), encoder.embed_dim), dtype=np.float32)
    batches = batches_of(len(embeddings), config.batch_size)
    with (
        Bar(f"embedding {title}", len(embeddings), "images") as bar,
        closing(extractor.run(batches)) as made,
    ):
        for batch in made:
            embeddings[batch.images.start : batch.images.stop] = batch.embeddings
            bar.advance(len(batch.images))
    return embeddings


def fit_to_square(image: Image, side_px: int, interpolation: str) -> Image:
    """Resizes the short side of an image [H, W, 3] to `side_px`, antialiased, and crops the centre.

    Raises:
        InputError: Pillow has no such interpolation.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if short != side_px:
        try:
            method = PillowImage.Resampling[interpolation.upper()]
        except KeyError:
            raise InputError(f"There is no interpolation {interpolation!r} in Pillow.") from None
        size = (side_px * width // short, side_px * height // short)
        image = np.asarray(PillowImage.fromarray(image).resize(size, method))
        height, width = image.shape[:2]
    top, left = round((height - side_px) / 2), round((width - side_px) / 2)
    return image[top : top + side_px, left : left + side_px]
