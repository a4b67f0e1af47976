"""From images to one matrix of embeddings."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage

from eosin.encoders import Encoder
from eosin.engine import precision as formats
from eosin.errors import InputError, UsageError
from eosin.images import stain_shift
from eosin.progress import Bar

Image = NDArray[np.uint8]

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
    """How embeddings are computed; of these only the precision has an effect on their values."""

    precision: formats.Precision = "auto"
    """Number format of the forward pass: `auto` is bf16 where the hardware computes in it."""
    batch_size: int = 64
    """Images a forward pass."""
    workers: int = 0
    """Threads that read and resize images; 0: as many as PyTorch computes with."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"--batch-size {self.batch_size} must be at least 1.")
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers} must be 0 (chosen for you) or more.")


def extract(
    encoder: Encoder, images: Images, config: Config, shift: str = NO_SHIFT, title: str = "images"
) -> NDArray[np.float32]:
    """Embeds all images in the order of their ids.

    Args:
        encoder: in evaluation mode; it is moved to the GPU where there is one.
        images: what to embed.
        config: how.
        shift: `none`, or a key of `SHIFTS` for what is done to each image before it is resized.
        title: what the progress bar says.

    Returns:
        Embeddings [N, D].

    Raises:
        InputError: an image cannot be read, or an embedding is not finite.
    """
    device = formats.default_device()
    encoder = encoder.to(device).eval()
    embeddings = np.empty((len(images.ids), encoder.embed_dim), dtype=np.float32)
    done = 0
    with torch.inference_mode(), Bar(f"embedding {title}", len(embeddings), "images") as bar:
        for batch in _batches(encoder, images, config, shift):
            pixels = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2)
            with formats.autocast(config.precision, device):
                embedded = encoder.embed(encoder.normalise(pixels))
            embeddings[done : done + len(batch)] = embedded.float().cpu().numpy()
            done += len(batch)
            bar.advance(len(batch))
    finite = np.isfinite(embeddings).all(1)
    if not finite.all():
        raise InputError(
            f"{encoder.name} gives {int((~finite).sum()):,} embeddings that are not finite, such "
            f"as that of {images.ids[int(np.argmin(finite))]}; its training may have diverged."
        )
    return embeddings


def fit_to_square(image: Image, side_px: int, interpolation: str) -> Image:
    """Resizes the short side of an image [H, W, 3] to `side_px`, antialiased, and crops the centre.

    Raises:
        InputError: Pillow has no such interpolation.
    """
    try:
        method = PillowImage.Resampling[interpolation.upper()]
    except KeyError:
        raise InputError(f"There is no interpolation {interpolation!r} in Pillow.") from None
    height, width = image.shape[:2]
    short = min(height, width)
    if short != side_px:
        size = (side_px * width // short, side_px * height // short)
        image = np.asarray(PillowImage.fromarray(image).resize(size, method))
        height, width = image.shape[:2]
    top, left = round((height - side_px) / 2), round((width - side_px) / 2)
    return image[top : top + side_px, left : left + side_px]


def _batches(encoder: Encoder, images: Images, config: Config, shift: str) -> Iterator[Image]:
    """Yields batches [B, H, W, 3] in order, with threads preparing the next ones meanwhile."""
    alter = SHIFTS.get(shift)

    def prepare(indices: range) -> Image:
        batch = np.empty((len(indices), encoder.input_px, encoder.input_px, 3), dtype=np.uint8)
        for position, index in enumerate(indices):
            image = images.read(index)
            image = image if alter is None else alter(image)
            batch[position] = fit_to_square(image, encoder.input_px, encoder.interpolation)
        return batch

    count, size = len(images.ids), config.batch_size
    workers = config.workers or torch.get_num_threads()
    chunk = max(1, math.ceil(size / workers))
    waiting: deque[list[Future[Image]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="embed")
    try:
        for start in range(0, count, size):
            stop = min(start + size, count)
            bounds = range(start, stop, chunk)
            waiting.append([pool.submit(prepare, range(b, min(b + chunk, stop))) for b in bounds])
            if len(waiting) == _BATCHES_AHEAD:
                yield np.concatenate([part.result() for part in waiting.popleft()])
        while waiting:
            yield np.concatenate([part.result() for part in waiting.popleft()])
    finally:
        pool.shutdown(cancel_futures=True)
