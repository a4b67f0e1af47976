"""SwAV's queue: projections of earlier tiles, which even out the codes of small batches.

Caron et al. 2020, arXiv 2006.09882, section 4.2; main_swav.py lines 207-232 and 294-307 at 06b1b7c.
"""

import torch
from torch import Tensor, nn

from eosin.engine.distributed import all_gather, rank, world_size
from eosin.errors import UsageError


class ProjectionQueue(nn.Module):
    """The projections of the two global crops of the newest tiles of all processes.

    It is the same in every process, so that one checkpoint holds it (the official code has a file
    for each). It fills from an update on and is used when it is full, which the official code sees
    from its last place, zero until then.

    Args:
        length: tiles that it holds.
        dim: length of a projection.
        batch_size: tiles that an update adds, over all processes.
        start: the first update that adds some.

    Raises:
        UsageError: the length is no multiple of the batch, or of the number of processes.
    """

    tiles: Tensor
    added: Tensor

    def __init__(self, length: int, dim: int, *, batch_size: int, start: int) -> None:
        super().__init__()
        for divisor, what in ((batch_size, "tiles of a batch"), (world_size(), "processes")):
            if length % divisor:
                raise UsageError(
                    f"--method.queue-length is {length}; it must be a multiple of the {divisor} "
                    f"{what}."
                )
        self.start = start
        self.register_buffer("tiles", torch.zeros(2, length, dim))  # the newest come first
        self.register_buffer("added", torch.zeros((), dtype=torch.long))
        self._of_update: Tensor | None = None
        self._filled = 0.0  # as far as was read from the device, which takes time
        self.register_load_state_dict_post_hook(_forget_filled)

    def filled(self) -> float:
        """How much of it is filled, 0 to 1; a skipped update has added nothing."""
        if self._filled < 1:
            self._filled = min(int(self.added) / self.tiles.shape[1], 1.0)
        return self._filled

    def own_share(self) -> Tensor:
        """This process's share, [2, length / processes, dim]: each scores some of the tiles."""
        return self.tiles.chunk(world_size(), 1)[rank()]

    def hold(self, projections: Tensor, update: int) -> None:
        """Keeps the projections [2, B, dim] of an update until it is over."""
        self._of_update = projections.detach() if update >= self.start else None

    @torch.no_grad()
    def add(self) -> None:
        """Puts what all processes hold at the front, and forgets as many of the oldest.

        The official code does so between scoring the queue and Sinkhorn, which reads the scores
        alone, so that the end of the update is as good.
        """
        if self._of_update is None:
            return
        newest = all_gather(self._of_update.transpose(0, 1)).transpose(0, 1)
        kept = self.tiles.shape[1] - newest.shape[1]
        self.tiles.copy_(torch.cat([newest, self.tiles[:, :kept]], 1))
        self.added += newest.shape[1]
        self._of_update = None


def _forget_filled(queue: nn.Module, _: object) -> None:
    assert isinstance(queue, ProjectionQueue)
    queue._filled = 0.0  # pyright: ignore[reportPrivateUsage]
