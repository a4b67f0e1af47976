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
    for each). It fills from an update on and is used when it is full. Whether it is, the official
    code sees from its last place, which is zero until then; here it follows from the number of the
    update, for which nothing waits for the device.

    Args:
        length: tiles that it holds.
        dim: length of a projection.
        batch_size: tiles that an update adds, over all processes.
        start: the first update that adds some.

    Raises:
        UsageError: the length is no multiple of the batch, or of the number of processes.
    """

    tiles: Tensor

    def __init__(self, length: int, dim: int, *, batch_size: int, start: int) -> None:
        super().__init__()
        for divisor, what in ((batch_size, "tiles of a batch"), (world_size(), "processes")):
            if length % divisor:
                raise UsageError(
                    f"--method.queue-length is {length}; it must be a multiple of the {divisor} "
                    f"{what}."
                )
        self.batch_size = batch_size
        self.start = start
        self.register_buffer("tiles", torch.zeros(2, length, dim))  # the newest come first
        self._of_update: Tensor | None = None

    def filled(self, update: int) -> float:
        """How much of it is filled before an update, 0 to 1."""
        added = max(update - self.start, 0) * self.batch_size
        return min(added / self.tiles.shape[1], 1.0)

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
        self._of_update = None
