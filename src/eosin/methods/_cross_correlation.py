"""The loss of Barlow Twins over the tiles of all processes, with little memory and communication.

Zbontar et al. 2021, arXiv 2103.03230, equation 1; docs/decisions/0010 and 0022.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from eosin.engine.distributed import all_reduce, rank, world_size
from eosin.engine.precision import at_least_float32
from eosin.methods._base import Loss

_EPSILON = 1e-5  # of BatchNorm
_BLOCK_COLUMNS = 512


def barlow_twins_loss(first: Tensor, second: Tensor, lambd: float, *, joint: bool = False) -> Loss:
    """Computes equation 1 on the projections of two views, in float32 at least.

    C = A^T B / N, where A and B are the projections of all N tiles, normalised over these (mean 0,
    biased variance 1, epsilon 1e-5); the loss is sum_i (C_ii - 1)^2 + lambd sum_{i != j} C_ij^2.
    Every process gives the whole loss, and the mean over the processes of the gradients that its
    parameters get is the true gradient. The official code's is that divided by the number of
    processes (main.py lines 212-221: its `all_reduce` passes the gradient on as it is).

    Where N is smaller than D, the D x D matrix is never formed.

    Args:
        first: projections [B, D] of this process's tiles.
        second: projections [B, D] of the same tiles' other views.
        lambd: weight of the off-diagonal terms.
        joint: whether mean and variance are those of both views together, as in VISSL
            (barlow_twins_loss.py line 125), instead of each view's own.

    Returns:
        The loss with its parts `on_diagonal` and `off_diagonal` (before the weight).
    """
    with torch.autocast(first.device.type, enabled=False):
        first, second = at_least_float32(first), at_least_float32(second)
        batches = 1 if joint else 2
        if len(first) * world_size() < first.shape[1]:
            on_diagonal, off_diagonal = _TermsByGram.apply(first, second, batches)  # pyright: ignore[reportGeneralTypeIssues]
        else:
            on_diagonal, off_diagonal = _terms_directly(first, second, batches)
    return Loss(
        total=on_diagonal + lambd * off_diagonal,
        parts={"on_diagonal": on_diagonal.detach(), "off_diagonal": off_diagonal.detach()},
    )


def _terms_directly(first: Tensor, second: Tensor, batches: int) -> tuple[Tensor, Tensor]:
    """Both terms of the loss from the matrix C, which the processes sum."""
    z = torch.stack([first, second]).view(batches, -1, first.shape[1])
    rows = z.shape[1] * world_size()
    centred = z - all_reduce(z.sum(1, keepdim=True)) / rows
    variance = all_reduce(centred.square().sum(1, keepdim=True)) / rows
    a, b = (centred * (variance + _EPSILON).rsqrt()).view(2, *first.shape)
    correlation = all_reduce(a.T @ b) / (len(first) * world_size())
    diagonal = correlation.diagonal()
    return (diagonal - 1).square().sum(), correlation.square().sum() - diagonal.square().sum()


class _TermsByGram(torch.autograd.Function):
    """Both terms of the loss through N x N matrices, in blocks of columns.

    The squared norm of C is the inner product of two Gram matrices, tr(A A^T B B^T) / N^2, with the
    gradient 2 B B^T A / N^2 in A. Given the Gram matrices all else is a matter of single columns,
    so nothing of the size of the projections is kept but their gradients, and each process can take
    a share of the columns: it has these of all tiles, and sends back the gradients.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, batches: int) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.batches, ctx.dim = batches, first.shape[1]
        first, second = _own_columns(first), _own_columns(second)
        count, width = first.shape
        grams = first.new_zeros(2, count, count)
        diagonal = first.new_empty(width)
        for columns in _blocks(width):
            (a, b), _ = _standardise(first[:, columns], second[:, columns], batches)
            grams[0].addmm_(a, a.T)
            grams[1].addmm_(b, b.T)
            diagonal[columns] = (a * b).mean(0)
        grams = all_reduce(grams)
        ctx.save_for_backward(first, second, grams, diagonal)
        sums = torch.stack([(diagonal - 1).square().sum(), diagonal.square().sum()])
        on_diagonal, squared_diagonal = all_reduce(sums).unbind()
        return on_diagonal.clone(), (grams[0] * grams[1]).sum() / count**2 - squared_diagonal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_on: Tensor, grad_off: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        first, second, grams, diagonal = ctx.saved_tensors
        # Every process has the whole loss, and the adjoint is that of the sum of all these.
        grad_on, grad_off = all_reduce(torch.stack([grad_on, grad_off])).unbind()
        count, width = first.shape
        by_diagonal = 2 * (grad_on * (diagonal - 1) - grad_off * diagonal) / count
        gram_a, gram_b = grams * (2 * grad_off / count**2)
        grads = torch.empty_like(first), torch.empty_like(second)
        for columns in _blocks(width):
            normal, scale = _standardise(first[:, columns], second[:, columns], ctx.batches)
            grad = normal.flip(0).mul_(by_diagonal[columns])
            grad[0].addmm_(gram_b, normal[0])
            grad[1].addmm_(gram_a, normal[1])
            _through_standardise(grad, normal, scale)
            grads[0][:, columns], grads[1][:, columns] = grad
        return _own_rows(grads[0], ctx.dim), _own_rows(grads[1], ctx.dim), None


def _blocks(width: int) -> list[slice]:
    return [slice(start, start + _BLOCK_COLUMNS) for start in range(0, width, _BLOCK_COLUMNS)]


def _standardise(first: Tensor, second: Tensor, batches: int) -> tuple[Tensor, Tensor]:
    """BatchNorm without affine parameters of two views, and the factor of each column.

    Args:
        first: [N, columns].
        second: [N, columns].
        batches: 2 if each view has its own mean and variance, 1 if both have one.

    Returns:
        The views, [2, N, columns], and the factors, [batches, 1, columns].
    """
    views = torch.stack([first, second])
    z = views.view(batches, -1, first.shape[1])  # the same memory
    z -= z.mean(1, keepdim=True)
    scale = (z.square().mean(1, keepdim=True) + _EPSILON).rsqrt()
    z *= scale
    return views, scale


def _through_standardise(grad: Tensor, normal: Tensor, scale: Tensor) -> None:
    """Turns the gradient behind `_standardise` into the one before it, in place."""
    shape = (len(scale), -1, scale.shape[-1])
    grad, normal = grad.view(shape), normal.view(shape)
    along = (grad * normal).mean(1, keepdim=True)
    grad -= grad.mean(1, keepdim=True)
    grad.addcmul_(normal, along, value=-1).mul_(scale)


def _own_columns(rows: Tensor) -> Tensor:
    """Exchanges this process's rows [B, D] for its share of the columns, [N, about D / W]."""
    if world_size() == 1:
        return rows
    parts = [part.reshape(-1) for part in rows.tensor_split(world_size(), 1)]
    own = len(parts[rank()])
    received = rows.new_empty(own * world_size())
    dist.all_to_all_single(
        received, torch.cat(parts), [own] * world_size(), [len(part) for part in parts]
    )
    return received.view(len(rows) * world_size(), -1)


def _own_rows(columns: Tensor, dim: int) -> Tensor:
    """Exchanges this process's share of the columns, [N, about D / W], for its rows [B, D]."""
    if world_size() == 1:
        return columns
    count = len(columns) // world_size()
    widths = [len(part) for part in torch.arange(dim).tensor_split(world_size())]
    received = columns.new_empty(count * dim)
    sizes = [count * width for width in widths]
    dist.all_to_all_single(
        received, columns.reshape(-1), sizes, [columns.numel() // world_size()] * world_size()
    )
    parts = zip(received.split(sizes), widths, strict=True)
    return torch.cat([part.view(count, width) for part, width in parts], 1)
