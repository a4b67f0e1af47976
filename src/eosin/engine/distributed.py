"""Training by several processes: who is who, and collectives that are the identity for one.

`torchrun` starts the processes. Each computes on its own share of an update's tiles; the gradient
of the update is the mean over the processes, which `DistributedDataParallel` takes. A loss that
mixes the tiles of all processes is therefore computed whole by each of them, through `all_reduce`
and `all_gather`, whose gradients are those of the sum of all processes' losses: the mean over the
processes is then the true gradient, at any number of processes.
"""

import os
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_TIMEOUT = timedelta(minutes=30)


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The number of this process, 0 for the one that writes."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this process is the one that writes and prints."""
    return rank() == 0


@contextmanager
def process_group(device: torch.device) -> Generator[None]:
    """Joins the other processes, where `torchrun` started this one, and leaves them at the end.

    Args:
        device: of this process: NCCL connects GPUs, Gloo CPUs.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or is_distributed():
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", timeout=_TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


class _AllReduce(torch.autograd.Function):
    """The adjoint of a sum over processes is the same sum, of the gradients."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.group = group
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total, group=ctx.group)
        return total, None


def all_reduce(tensor: Tensor, group: Any = None) -> Tensor:
    """Sums a tensor over the processes; differentiable, and a new tensor with several of them.

    Args:
        tensor: of one shape everywhere.
        group: the processes that take part; all if `None`.
    """
    return _AllReduce.apply(tensor, group) if is_distributed() else tensor  # pyright: ignore[reportReturnType]


class _AllGather(torch.autograd.Function):
    """The adjoint takes from the sum of all processes' gradients the rows of this process."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.count = len(rows)
        return torch.cat(_gather(rows))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        total = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[rank() * ctx.count :][: ctx.count]


def all_gather(rows: Tensor) -> Tensor:
    """Joins the rows [B, ...] of all processes in the order of their ranks; differentiable.

    Args:
        rows: of one shape everywhere.

    Returns:
        [W B, ...], the same for every process.
    """
    return _AllGather.apply(rows) if is_distributed() else rows  # pyright: ignore[reportReturnType]


def _gather(tensor: Tensor) -> list[Tensor]:
    tensor = tensor.detach().contiguous()
    gathered = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(gathered, tensor)
    return gathered


def gather_objects(value: Any) -> list[Any]:
    """Collects a small plain value of every process, in the order of their ranks."""
    if not is_distributed():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def from_main(value: Any) -> Any:
    """Gives every process the plain value that the main process has."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def barrier() -> None:
    """Waits until every process is here."""
    if is_distributed():
        dist.barrier()
