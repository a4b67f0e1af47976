"""Codes that spread a batch evenly over the prototypes: Sinkhorn-Knopp in log space.

Cuturi 2013, arXiv 1306.0895, as in Caron et al. 2020, arXiv 2006.09882, section 3.1.
"""

import torch
from torch import Tensor

from eosin.engine.distributed import all_gather
from eosin.engine.precision import at_least_float32


@torch.no_grad()
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int, last: int | None = None) -> Tensor:
    """Turns scores into codes: each sample's sum to 1, each prototype's nearly to B / K.

    The official `distributed_sinkhorn` (main_swav.py lines 353-376) in another form. There
    exp(scores / epsilon) is divided by the sum of each prototype and then by that of each sample,
    over and over, and a half-precision score of 0.56 is too much for it (VISSL subtracts the
    greatest score of all, and loses the smallest). Here the logarithms of the sums are subtracted,
    which no score can overflow; the constants 1 / K and 1 / B of the official code cancel.

    The B samples are those of all processes, wherever each lies: every iteration gathers one number
    a prototype from every process. Computed in float32 at least, outside autocast, without a
    gradient.

    Args:
        scores: [..., N, K], of this process's samples with K prototypes; leading dimensions are
            problems of their own.
        epsilon: how soft the codes are; the smaller, the nearer to one-hot.
        iterations: how often both sums are set, at least once.
        last: how many samples codes are wanted for, the last of the N; all if `None`.

    Returns:
        [..., last, K].
    """
    with torch.autocast(scores.device.type, enabled=False):
        log_codes = at_least_float32(scores) / epsilon
        for iteration in range(iterations):
            log_codes -= _log_sum_over_samples(log_codes)
            if iteration < iterations - 1:
                log_codes = log_codes.log_softmax(-1)
        wanted = log_codes if last is None else log_codes[..., log_codes.shape[-2] - last :, :]
        return wanted.softmax(-1)


def _log_sum_over_samples(log_codes: Tensor) -> Tensor:
    """[..., 1, K] of the samples of all processes."""
    own = log_codes.logsumexp(-2, keepdim=True)
    return all_gather(own[None]).logsumexp(0)
