"""BatchNorm whose statistics are those of several processes' batches, or of parts of one batch.

Ioffe and Szegedy 2015, arXiv 1502.03167. Both change a network's BatchNorm layers in place: names
and values of the state stay as they are, and so does what is computed in evaluation.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.modules._functions import SyncBatchNorm as FusedForCuda
from torch.nn.modules.batchnorm import (
    _BatchNorm as BatchNorm,  # pyright: ignore[reportPrivateUsage]
)

from eosin.engine.distributed import all_reduce, is_distributed, rank, world_size
from eosin.engine.precision import at_least_float32
from eosin.errors import UsageError

# By the number of ranks that share: a layer that held its group could not be copied.
_groups: dict[int, Any] = {}


def synchronise(module: nn.Module, ranks: int = 0) -> None:
    """Makes all BatchNorm layers of a network share their statistics between processes, in place.

    Mean and variance are those of the union of the processes' batches, and gradients flow through
    them, so that the result is that of one process with the whole batch. PyTorch's SyncBatchNorm
    does the same, on GPUs only. One process alone is left as it is.

    Args:
        module: the network.
        ranks: how many neighbouring processes share statistics; 0 for all, 1 for none. Where there
            are fewer, all share them, as in VISSL (model_helpers.py line 189).

    Raises:
        UsageError: the number of processes is no multiple of `ranks`.
    """
    if not is_distributed() or ranks == 1:
        return
    ranks = 0 if ranks >= world_size() else ranks
    _groups[ranks] = _make_group(ranks) if ranks else None
    for layer in _layers(module):
        _become(layer, _Synchronised)
        cast(_Synchronised, layer).shared_by = ranks


def split(module: nn.Module, parts: int) -> None:
    """Makes all BatchNorm layers of a network treat a batch as `parts` batches, in place.

    One process then computes what `parts` processes do whose BatchNorm layers are their own, given
    that the batch is theirs one after another. The running statistics see the parts in turn.

    Args:
        module: the network.
        parts: how many equal parts of neighbouring rows; 1 changes nothing.
    """
    if parts == 1:
        return
    for layer in _layers(module):
        _become(layer, _Split)
        cast(_Split, layer).parts = parts


def _make_group(ranks: int) -> Any:
    """The group of this process; all processes must make all groups."""
    if world_size() % ranks:
        raise UsageError(
            f"BatchNorm is to be shared by groups of {ranks} processes, which does not divide the "
            f"{world_size()} there are."
        )
    starts = range(0, world_size(), ranks)
    groups = [dist.new_group(list(range(start, start + ranks))) for start in starts]
    return groups[rank() // ranks]


def _layers(module: nn.Module) -> list[BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, BatchNorm)]


def _become(layer: BatchNorm, kind: type) -> None:
    """Changes the class of a layer, whose own class stays among its bases."""
    # The layout of the object is the same, and all that looks for BatchNorm still finds it.
    layer.__class__ = type(f"{kind.__name__}{type(layer).__name__}", (kind, type(layer)), {})


if TYPE_CHECKING:
    _Base = BatchNorm
else:
    _Base = object


class _Synchronised(_Base):
    shared_by: int

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        group = _groups[self.shared_by]
        by = self._by_pytorch if input.is_cuda else self._by_sums
        normalised = by(input, group)
        if isinstance(self, BatchNormAct2d):
            normalised = cast(nn.Module, self.act)(cast(nn.Module, self.drop)(normalised))
        return normalised

    def _by_pytorch(self, x: Tensor, group: Any) -> Tensor:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return FusedForCuda.apply(  # pyright: ignore[reportReturnType]
            x,
            self.weight,
            self.bias,
            self.running_mean,
            self.running_var,
            self.eps,
            self.momentum,
            dist.group.WORLD if group is None else group,
            self.shared_by or world_size(),
        )

    def _by_sums(self, x: Tensor, group: Any) -> Tensor:
        """Two sums over the processes, in float32 at least."""
        dims, shape = [0, *range(2, x.ndim)], (1, -1, *[1] * (x.ndim - 2))
        with torch.autocast(x.device.type, enabled=False):
            wide = at_least_float32(x)
            own_count = wide.new_tensor([x.numel() / x.shape[1]])
            total = all_reduce(torch.cat([wide.sum(dims), own_count]), group)
            count = total[-1].detach()
            mean = total[:-1] / count
            centred = wide - mean.view(shape)
            variance = all_reduce(centred.square().sum(dims), group) / count
            self._remember(mean.detach(), variance.detach(), count)
            normalised = centred * (variance + self.eps).rsqrt().view(shape)
            if self.affine:
                normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)


class _Split(_Base):
    parts: int

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        if len(input) % self.parts:
            raise UsageError(
                f"BatchNorm cannot split a batch of {len(input)} views into {self.parts} equal "
                "parts."
            )
        return torch.cat([super(_Split, self).forward(part) for part in input.chunk(self.parts)])
