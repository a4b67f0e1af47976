"""Float64 references of SwAV and its optimizer, plain and independent of `src`.

As `reference.py`, which says what such references are for. B is the batch, D the length of a
projection, K prototypes and V views, the two global ones first.

Sources: Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", arXiv 2006.09882 (SwAV), and what its official code does where the paper leaves a
detail open; You et al. 2017, arXiv 1708.03888, as NVIDIA apex has it (LARC); Sutskever et al. 2013
as PyTorch has it (SGD).
"""

import math

import numpy as np


def sinkhorn_knopp(scores, epsilon=0.05, iterations=3):
    """SwAV, equations 3 to 5 and appendix A: codes [B, K] of `scores` [B, K], rows summing to 1.

    Alternates the two conditions of the transportation polytope: each prototype has 1 / K of all,
    each sample 1 / B. The last condition is the samples', scaled by B to a distribution each.
    """
    batch, count = scores.shape
    q = np.exp(scores.T / epsilon)
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(axis=1, keepdims=True) / count
        q = q / q.sum(axis=0, keepdims=True) / batch
    return (q * batch).T


def log_softmax(logits):
    """Logarithm of SwAV, equation 2 without its temperature, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def swav_loss(scores, codes, temperature=0.1):
    """SwAV, equation 2 for multiple crops (section 3.2); a float.

    `scores` [V, B, K], `codes` [2, B, K]. Each code is the target of the V - 1 other crops.
    """
    views = len(scores)
    loss = 0.0
    for i in range(2):
        others = [v for v in range(views) if v != i]
        terms = [
            -(codes[i] * log_softmax(scores[v] / temperature)).sum(axis=1).mean() for v in others
        ]
        loss += sum(terms) / (views - 1)
    return loss / 2


def swav_loss_gradient(scores, codes, temperature=0.1):
    """Gradient of `swav_loss` in `scores`, [V, B, K]; a code that sums to 1 has none.

    For one pair it is (softmax(s / tau) - q) / (tau B).
    """
    views, batch, _ = scores.shape
    gradient = np.zeros_like(scores)
    for i in range(2):
        for v in range(views):
            if v != i:
                predicted = np.exp(log_softmax(scores[v] / temperature))
                gradient[v] += (predicted - codes[i]) / (temperature * batch * 2 * (views - 1))
    return gradient


def swav_head(x, first, scale_and_shift, second, prototypes, eps=1e-5):
    """SwAV, appendix A: (projections [B, D], scores [B, K]) of embeddings `x`.

    `first` and `second` are (weight [out, in], bias [out]) of linear layers, between which are
    BatchNorm over all rows of `x`, with the biased variance, and a ReLU. The projections have
    length 1; so have `prototypes` [K, D], which are taken as they are.
    """
    hidden = x @ first[0].T + first[1]
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + eps)
    hidden = np.maximum(hidden * scale_and_shift[0] + scale_and_shift[1], 0)
    z = hidden @ second[0].T + second[1]
    z = z / np.sqrt((z**2).sum(axis=1, keepdims=True))
    return z, z @ prototypes.T


class Queues:
    """The official code's queues, one in each process; SwAV, section 4.2.

    Zeros at first, from `start` on filled at the front; used as soon as the last place is not zero.
    What is in them is scored with the prototypes of the update.
    """

    def __init__(self, processes, length, dim, start):
        self.start = start
        self.queues = np.zeros((processes, 2, length // processes, dim))

    def codes(self, projections, prototypes, update, epsilon=0.05, iterations=3):
        """`projections` [2, B, D] of all processes' tiles in turn; codes [2, B, K]."""
        codes = []
        for crop in range(2):
            shares = np.split(projections[crop], len(self.queues))
            rows, is_of_batch = [], []
            for queue, share in zip(self.queues[:, crop], shares, strict=True):
                if update >= self.start:
                    if (queue[-1] != 0).any():
                        rows.append(queue @ prototypes.T)
                        is_of_batch += [False] * len(queue)
                    queue[len(share) :] = queue[: -len(share)].copy()
                    queue[: len(share)] = share
                rows.append(share @ prototypes.T)
                is_of_batch += [True] * len(share)
            codes.append(
                sinkhorn_knopp(np.concatenate(rows), epsilon, iterations)[np.array(is_of_batch)]
            )
        return np.stack(codes)


def learning_rates(peak, end, start, updates, warmup):
    """The official code's rates: both ends of the warm-up are reached; array [updates]."""
    rising = np.linspace(start, peak, warmup)
    rest = updates - warmup
    falling = [end + (peak - end) * (1 + math.cos(math.pi * t / rest)) / 2 for t in range(rest)]
    return np.concatenate([rising, falling])


def vissl_learning_rates(peak, end, start, updates, warmup):
    """VISSL's: a rescaled linear schedule, then a fixed cosine, that is of the whole run."""
    rates = []
    for t in range(updates):
        if t < warmup:
            rates.append(start * (1 - t / warmup) + peak * t / warmup)
        else:
            rates.append(end + (peak - end) * (1 + math.cos(math.pi * t / updates)) / 2)
    return np.array(rates)


def larc_update(weight, gradient, momentum_buffer, lr, weight_decay=1e-6, trust=0.001):
    """One step of apex's LARC without clipping around SGD of momentum 0.9: (weight, buffer).

    LARC adds the decay and scales, if neither norm is 0; SGD sees the result and no decay.
    """
    weight_norm = math.sqrt((weight**2).sum())
    gradient_norm = math.sqrt((gradient**2).sum())
    if weight_norm != 0 and gradient_norm != 0:
        rate = trust * weight_norm / (gradient_norm + weight_norm * weight_decay + 1e-8)
        gradient = (gradient + weight_decay * weight) * rate
    buffer = 0.9 * momentum_buffer + gradient
    return weight - lr * buffer, buffer


def sgd_update(weight, gradient, momentum_buffer, lr, weight_decay, *, nesterov):
    """One step of SGD of momentum 0.9, whose decay joins the gradient: (weight, buffer)."""
    gradient = gradient + weight_decay * weight
    buffer = 0.9 * momentum_buffer + gradient
    return weight - lr * (gradient + 0.9 * buffer if nesterov else buffer), buffer
