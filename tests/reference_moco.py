"""Float64 references of MoCo v2, written from the papers' equations and the official code.

Slow and plain on purpose, and independent of `src`, as `reference.py` is. Arrays are NumPy float64;
B is the batch, D a dimension, K the length of the queue.

Sources: He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning", arXiv
1911.05722 (MoCo); Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning", arXiv
2003.04297 (MoCo v2). Where a paper leaves a detail open, the official code's behaviour is stated.
"""

import math

import numpy as np


def directions(x):
    """Rows of `x` [B, D] divided by their lengths."""
    return x / np.sqrt((x**2).sum(axis=1, keepdims=True))


def logits(queries, keys, queue, temperature):
    """MoCo, equation 1: the positive logit and those of the queue, [B, 1 + K]."""
    positive = [[q @ k] for q, k in zip(queries, keys, strict=True)]
    return np.concatenate([positive, queries @ queue.T], axis=1) / temperature


def softmax(x):
    """Over the last axis."""
    shifted = np.exp(x - x.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def info_nce(queries, keys, queue, temperature):
    """MoCo, equation 1, averaged over the batch: cross entropy with the positive in place 0."""
    all_logits = logits(queries, keys, queue, temperature)
    greatest = all_logits.max(axis=1)
    log_sum = greatest + np.log(np.exp(all_logits - greatest[:, None]).sum(axis=1))
    return (log_sum - all_logits[:, 0]).mean()


def info_nce_gradient(queries, keys, queue, temperature):
    """Gradient of `info_nce` in `queries`, [B, D]; neither keys nor queue get one (algorithm 1)."""
    by_logits = softmax(logits(queries, keys, queue, temperature))
    by_logits[:, 0] -= 1
    by_queries = by_logits[:, :1] * keys + by_logits[:, 1:] @ queue
    return by_queries / (temperature * len(queries))


def top1(queries, keys, queue, temperature):
    """Share of queries whose own key has the greatest logit."""
    return (logits(queries, keys, queue, temperature).argmax(axis=1) == 0).mean()


def head(x, weights):
    """MoCo v2, section 3: Linear, ReLU, Linear; `weights` are [W1, b1, W2, b2], gives [B, D]."""
    w1, b1, w2, b2 = weights
    return np.maximum(x @ w1.T + b1, 0) @ w2.T + b2


def head_gradient(x, weights, by_output):
    """Gradients of `head` in its weights, in their order, and in `x`."""
    w1, b1, w2, _ = weights
    hidden = x @ w1.T + b1
    by_hidden = (by_output @ w2) * (hidden > 0)
    by_weights = [
        by_hidden.T @ x,
        by_hidden.sum(axis=0),
        by_output.T @ np.maximum(hidden, 0),
        by_output.sum(axis=0),
    ]
    return by_weights, by_hidden @ w1


def through_directions(x, by_directions):
    """The gradient in `x` [B, D], given the one in `directions(x)`."""
    unit = directions(x)
    along = (by_directions * unit).sum(axis=1, keepdims=True)
    return (by_directions - along * unit) / np.sqrt((x**2).sum(axis=1, keepdims=True))


def momentum_update(key_weights, query_weights, momentum=0.999):
    """MoCo, equation 2, for each array."""
    pairs = zip(key_weights, query_weights, strict=True)
    return [momentum * k + (1 - momentum) * q for k, q in pairs]


def enqueue(queue, pointer, keys):
    """The queue with `keys` over its oldest ones, and where the next go (the code's ring)."""
    queue = queue.copy()
    for key in keys:
        queue[pointer] = key
        pointer = (pointer + 1) % len(queue)
    return queue, pointer


def sgd_update(weight, gradient, buffer, lr, weight_decay=1e-4, momentum=0.9, nesterov=False):
    """One step of SGD; gives (new weight, new buffer). The decay joins the gradient.

    Nesterov's kind moves along the gradient plus `momentum` times the new buffer.
    """
    direction = gradient + weight_decay * weight
    buffer = momentum * buffer + direction
    step = direction + momentum * buffer if nesterov else buffer
    return weight - lr * step, buffer


def cosine_by_epoch(lr, epochs):
    """The official code's `--cos`: one value for an epoch, array [epochs]."""
    return np.array([lr * 0.5 * (1 + math.cos(math.pi * e / epochs)) for e in range(epochs)])


def steps_by_epoch(lr, epochs, milestones=(120, 160)):
    """A tenth from each milestone on, array [epochs]."""
    rates = []
    for epoch in range(epochs):
        rate = lr
        for milestone in milestones:
            if epoch >= milestone:
                rate = rate / 10
        rates.append(rate)
    return np.array(rates)
