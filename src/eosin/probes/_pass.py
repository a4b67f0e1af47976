"""A pass over embeddings: the cross-entropy and its gradient, compiled for few outputs.

A library's product first copies the embeddings into its own order, which takes longer here than
the product itself: with a handful of outputs each value is used a handful of times. Four samples
by three outputs keep the registers busy; what is left over of either goes one output at a time,
with the last sample in place of those that are missing. A few samples at a time are used for the
logits and again for the gradient, while they are in the core's own cache.
"""

import numpy as np
from numpy.typing import NDArray

from eosin.images.compiling import compiled

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_SAMPLES = 4
_PART = 32


@compiled
def pass_over(
    features: Floats,
    labels: NDArray[np.int64],
    weights: Floats,
    bias: Doubles,
    gradient: Floats,
    bias_gradient: Doubles,
) -> float:
    """Gives the summed cross-entropy, and adds its gradient to what there is.

    Args:
        features: embeddings [N, D], so few that float32 can hold the sum of what they add.
        labels: of each of them [N].
        weights: of each output [K, D]; of two classes K may be 1: the logit of class 1.
        bias: of each output [K].
        gradient: by the weights [K, D].
        bias_gradient: by the bias [K].
    """
    loss, count = 0.0, len(features)
    errors = np.zeros((len(weights), _PART), dtype=np.float32)
    logits = np.empty(len(weights), dtype=np.float64)
    for start in range(0, count, _PART):
        end = min(start + _PART, count)
        part = features[start:end]
        _multiply(part, weights, errors)
        for column in range(end - start):
            for k in range(len(logits)):
                logits[k] = errors[k, column] + bias[k]
            if len(logits) == 1:
                loss += _logistic(logits, labels[start + column] == 1)
            else:
                loss += _softmax(logits, labels[start + column])
            for k in range(len(logits)):
                errors[k, column] = logits[k]
                bias_gradient[k] += logits[k]
        errors[:, end - start :] = 0
        _add_product(errors, part, gradient)
    return loss


@compiled
def _softmax(logits: Doubles, label: int) -> float:
    """Turns logits [K] into the derivatives by them, and gives the cross-entropy.

    What the other classes add up to is never taken from 1, so that both stay exact where a sample
    is all but certain, as most are where the penalty is weak.
    """
    own = logits[label]
    greatest = 0.0
    for k in range(len(logits)):
        logits[k] -= own
        greatest = max(greatest, logits[k])
    others = 0.0
    for k in range(len(logits)):
        logits[k] = 0.0 if k == label else np.exp(logits[k] - greatest)
        others += logits[k]
    total = np.exp(-greatest) + others
    for k in range(len(logits)):
        logits[k] /= total
    logits[label] = -others / total
    return greatest + (np.log(total) if greatest > 0 else np.log1p(others))


@compiled
def _logistic(logits: Doubles, is_one: bool) -> float:
    """Does the same for the logit [1] of class 1 of two."""
    signed = -logits[0] if is_one else logits[0]
    small = np.exp(-abs(signed))
    share = (1.0 if signed > 0 else small) / (1.0 + small)
    logits[0] = -share if is_one else share
    return max(signed, 0.0) + np.log1p(small)


@compiled
def _multiply(features: Floats, weights: Floats, logits: Floats) -> None:
    """Computes the products of embeddings [N, D] and weights [K, D].

    Args:
        features: the embeddings.
        weights: of each output.
        logits: is filled, [K, N or more]; what is in the columns beyond N means nothing.
    """
    last, outputs = len(features) - 1, len(weights)
    triples = outputs - outputs % 3
    for at in range(0, len(features), _SAMPLES):
        one, two = features[at], features[min(at + 1, last)]
        three, four = features[min(at + 2, last)], features[min(at + 3, last)]
        for k in range(0, triples, 3):
            first, second, third = weights[k], weights[k + 1], weights[k + 2]
            a1 = a2 = a3 = a4 = np.float32(0)
            b1 = b2 = b3 = b4 = np.float32(0)
            c1 = c2 = c3 = c4 = np.float32(0)
            for d in range(features.shape[1]):
                # One embedding after the other, so that all sums stay in registers.
                a, b, c = first[d], second[d], third[d]
                x = one[d]
                a1 += a * x
                b1 += b * x
                c1 += c * x
                x = two[d]
                a2 += a * x
                b2 += b * x
                c2 += c * x
                x = three[d]
                a3 += a * x
                b3 += b * x
                c3 += c * x
                x = four[d]
                a4 += a * x
                b4 += b * x
                c4 += c * x
            logits[k, at], logits[k, at + 1], logits[k, at + 2], logits[k, at + 3] = a1, a2, a3, a4
            k1, k2 = k + 1, k + 2
            logits[k1, at], logits[k1, at + 1] = b1, b2
            logits[k1, at + 2], logits[k1, at + 3] = b3, b4
            logits[k2, at], logits[k2, at + 1] = c1, c2
            logits[k2, at + 2], logits[k2, at + 3] = c3, c4
        for k in range(triples, outputs):
            single = weights[k]
            a1 = a2 = a3 = a4 = np.float32(0)
            for d in range(features.shape[1]):
                a = single[d]
                a1 += a * one[d]
                a2 += a * two[d]
                a3 += a * three[d]
                a4 += a * four[d]
            logits[k, at], logits[k, at + 1], logits[k, at + 2], logits[k, at + 3] = a1, a2, a3, a4


@compiled
def _add_product(errors: Floats, features: Floats, gradient: Floats) -> None:
    """Adds the product of errors [K, N or more] and embeddings [N, D].

    Args:
        errors: of each output and sample; 0 in the columns beyond N.
        features: the embeddings.
        gradient: is added to, [K, D].
    """
    last, outputs = len(features) - 1, len(gradient)
    triples = outputs - outputs % 3
    for at in range(0, len(features), _SAMPLES):
        one, two = features[at], features[min(at + 1, last)]
        three, four = features[min(at + 2, last)], features[min(at + 3, last)]
        for k in range(0, triples, 3):
            first, second, third = gradient[k], gradient[k + 1], gradient[k + 2]
            k1, k2 = k + 1, k + 2
            a1, a2, a3, a4 = errors[k, at], errors[k, at + 1], errors[k, at + 2], errors[k, at + 3]
            b1, b2, b3, b4 = (
                errors[k1, at],
                errors[k1, at + 1],
                errors[k1, at + 2],
                errors[k1, at + 3],
            )
            c1, c2, c3, c4 = (
                errors[k2, at],
                errors[k2, at + 1],
                errors[k2, at + 2],
                errors[k2, at + 3],
            )
            for d in range(features.shape[1]):
                x1, x2, x3, x4 = one[d], two[d], three[d], four[d]
                first[d] += a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4
                second[d] += b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4
                third[d] += c1 * x1 + c2 * x2 + c3 * x3 + c4 * x4
        for k in range(triples, outputs):
            single = gradient[k]
            a1, a2, a3, a4 = errors[k, at], errors[k, at + 1], errors[k, at + 2], errors[k, at + 3]
            for d in range(features.shape[1]):
                single[d] += a1 * one[d] + a2 * two[d] + a3 * three[d] + a4 * four[d]
