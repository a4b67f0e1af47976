"""A batch in pieces of one fixed size, for networks that take no other."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

Images = NDArray[np.uint8]
Matrix = NDArray[np.float32]

# Feature maps of so many images stay in the cache of a core.
_IMAGES_A_THREAD = 4
_MOST = 64


def piece_size(batch_size: int) -> int:
    """How many images of a batch go through a network at once on the CPU."""
    return min(batch_size, _IMAGES_A_THREAD * torch.get_num_threads(), _MOST)


def in_pieces(
    embed: Callable[[Images], Matrix], batch: Images, size: int, *, fills_up: bool = True
) -> Matrix:
    """Embeds a batch piece by piece.

    Args:
        embed: takes images [size, H, W, 3], contiguous and writable, and gives [size, D].
        batch: any number of images above 0, [B, H, W, 3].
        size: of a piece.
        fills_up: whether a last piece that is shorter is filled up with its last image.

    Returns:
        Embeddings [B, D], the filling left out.
    """
    parts: list[Matrix] = []
    for start in range(0, len(batch), size):
        piece = batch[start : start + size]
        missing = size - len(piece) if fills_up else 0
        if missing:
            piece = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)])
        found = embed(np.require(piece, requirements=["C", "W"]))
        parts.append(found[: len(found) - missing])
    return np.concatenate(parts)
