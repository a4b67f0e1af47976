"""SwAV's loss, given the codes, and what the codes tell about a run.

Caron et al. 2020, arXiv 2006.09882, sections 3.1 and 3.2.
"""

import torch
from torch import Tensor

from eosin.engine.distributed import all_reduce
from eosin.engine.precision import at_least_float32


def swav_loss(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Computes equations 1 and 2 with multiple crops, in float32 at least.

    For either global crop, the mean over the other V - 1 crops of the cross-entropy between its
    code and their predictions; of both crops the mean (main_swav.py lines 288-315). The logarithm
    of each prediction is taken once, and those of the local crops, which both codes share, are
    summed before the product.

    Args:
        scores: [V, B, K] of all crops with the prototypes, the global crops first.
        codes: [2, B, K] of the global crops, without a gradient.
        temperature: divides the scores.

    Returns:
        The mean over this process's tiles.
    """
    with torch.autocast(scores.device.type, enabled=False):
        log_predictions = (at_least_float32(scores) / temperature).log_softmax(-1)
        local = log_predictions[2:].sum(0)
        terms = codes[0] * (log_predictions[1] + local) + codes[1] * (log_predictions[0] + local)
        return -terms.sum(-1).mean() / (2 * (len(scores) - 1))


@torch.no_grad()
def describe_codes(codes: Tensor) -> dict[str, Tensor]:
    """What tells a collapse: codes of entropy ln K, or few prototypes that any tile prefers.

    Args:
        codes: [2, B, K] of the global crops.

    Returns:
        `code_entropy`, the mean over this process's codes in nats, and `prototypes_used`, how many
        prototypes have the largest share of some code of any process.
    """
    preferred = codes.new_zeros(codes.shape[-1])
    preferred.index_fill_(0, codes.argmax(-1).flatten(), 1)
    return {
        "code_entropy": torch.special.entr(codes).sum(-1).mean(),
        "prototypes_used": (all_reduce(preferred) > 0).sum().to(codes.dtype),
    }
