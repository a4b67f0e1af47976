"""The contrast of a query with its own key and a long queue of others, streamed over the queue.

Van den Oord et al. 2018, arXiv 1807.03748, as He et al. 2020, arXiv 1911.05722, equation 1, has it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from eosin.engine.precision import at_least_float32
from eosin.methods._base import Loss

# Logits of a block. A CPU's cache should hold them; a GPU needs a block that fills it.
_BLOCK_LOGITS = {"cpu": 2**19}
_BLOCK_LOGITS_ELSEWHERE = 2**24
_WIDEST_LOGITS = 80.0  # exp(-80) is 2e-35, which float32 still has all digits of


def info_nce(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Loss:
    """Computes the mean of -log(exp(q k / t) / (exp(q k / t) + sum_j exp(q n_j / t))) over queries.

    It is computed outside autocast, in float32 at least. The queue is read in blocks and neither
    copied nor is the B x K matrix of logits formed; any temperature is safe. Only the queries get a
    gradient, as in the official code (moco/builder.py lines 151 and 169).

    Args:
        queries: q, unit vectors [B, D].
        keys: k, the unit vector [B, D] of each query's other view.
        queue: n, unit vectors [K, D] of other images, in the precision of the computation.
        temperature: t.

    Returns:
        The loss, and as parts `positive_similarity`, the mean of q k, and `top1`, the share of
        queries whose own key is at least as near as all of the queue.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries, keys = at_least_float32(queries), at_least_float32(keys)
        total, similarity, top1 = _Streamed.apply(queries, keys, queue, temperature)  # pyright: ignore[reportGeneralTypeIssues]
    return Loss(total=total, parts={"positive_similarity": similarity, "top1": top1})


class _Streamed(torch.autograd.Function):
    """Softmax over blocks of the queue, [N, B] logits at a time.

    With weights w = softmax(logits) the gradient in a query is (sum_j w_j n_j - (1 - w_k) k) / t B.
    The sums are gathered with the loss, so that the queue is read once. Exponentials are those of
    the logits less a shift: 1 / t, which no logit of unit vectors is above or more than 2 / t
    below, or the greatest logit so far where 2 / t is too much for a float.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, queries: Tensor, keys: Tensor, queue: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        scaled = (queries / temperature).T.contiguous()
        positive = (scaled * keys.T).sum(0)
        is_moving = 2 / temperature > _WIDEST_LOGITS
        shift = positive if is_moving else torch.full_like(positive, 1 / temperature)
        exp_sum = (positive - shift).exp()
        key_sum, nearest = keys.T * exp_sum, positive
        for block in queue.split(_block_rows(queries)):
            weights = torch.addmm(-shift, block, scaled)
            above = weights.amax(0)
            nearest = torch.maximum(nearest, above + shift)
            if is_moving:
                above.clamp_(min=0)
                shift, shrink = shift + above, (-above).exp()
                weights.sub_(above)
                exp_sum.mul_(shrink)
                key_sum.mul_(shrink)
            exp_sum.add_(weights.exp_().sum(0))
            if ctx.needs_input_grad[0]:
                key_sum.addmm_(block.T, weights)
        if ctx.needs_input_grad[0]:
            grad = (key_sum / exp_sum).T.sub(keys).div_(temperature * len(queries))
            ctx.save_for_backward(grad)
        loss = (shift + exp_sum.log() - positive).mean()
        similarity = positive.mean() * temperature
        top1 = (positive == nearest).to(queries.dtype).mean()
        ctx.mark_non_differentiable(similarity, top1)
        return loss, similarity, top1

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_loss: Tensor, *_: Tensor
    ) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_loss, None, None, None


def _block_rows(queries: Tensor) -> int:
    logits = _BLOCK_LOGITS.get(queries.device.type, _BLOCK_LOGITS_ELSEWHERE)
    return max(logits // len(queries), 256)
