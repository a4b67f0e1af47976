"""DINO's loss together with the last layer of the student's head, which has the most outputs.

Caron et al. 2021, arXiv 2104.14294, equation 3 and algorithm 1; main_dino.py of the official code
at 7c446df, lines 380-404, behind vision_transformer.py lines 276-290.

With 65,536 outputs the logits of ten crops and what a softmax keeps of them take more memory than
the network. Here two crops after two pass the last layer, and their logits turn in place into the
loss's gradient, which both gradients of the layer are made of at once. Given the student's logits
s, already divided by its temperature, and the sum T of the n targets of a crop, the cross-entropies
are n log sum exp(s) - T . s, and their gradient in s is n softmax(s) - T.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from eosin.engine.precision import at_least_float32
from eosin.methods._base import Loss
from eosin.methods._heads import MIN_LENGTH, WeightNormLinear

_COLUMNS = 4096  # of the last layer at a time, so that a block stays in a CPU's cache
_ROWS = 16  # of logits at a time, for the same reason

# A probability of 1 / 65,536 is below float16's normal numbers; loss scaling comes too late for it.
_HALF_SCALE = 256.0


def self_distillation_loss(
    features: Tensor,
    layer: WeightNormLinear,
    teacher: Tensor,
    center: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
) -> Loss:
    """Computes the mean cross-entropy over all pairs of different views, and over the batch.

    Softmax, loss and sums over crops are in float32 at least. Under autocast the products with the
    last layer, forward and backward, take its type, as those of an ordinary layer would. The loss
    can be differentiated once; `teacher` gets no gradient.

    Args:
        features: the student's L2-normalised inputs of the last layer, [V B, D]: B rows for each
            of the V crops, of which the first two are the global ones.
        layer: the student's last layer, with K outputs.
        teacher: the teacher's logits of the global crops [2 B, K], in the same order; float32 and
            float64 ones are overwritten, which saves a copy.
        center: [1, K], subtracted from the teacher's logits.
        student_temp: temperature of the student.
        teacher_temp: temperature of the teacher.

    Returns:
        The loss, with the teacher's mean entropy and the divergence of the student from it as
        parts: an entropy of ln K or a divergence of 0 is a collapse.
    """
    with torch.no_grad():
        targets, entropy = _sharpen(teacher, center, teacher_temp)
    with torch.autocast(features.device.type, enabled=False):
        features = at_least_float32(features)
    total: Tensor = _Fused.apply(  # pyright: ignore[reportAssignmentType]
        features, layer.weight_v, layer.weight_g, targets, student_temp, torch.is_grad_enabled()
    )
    parts = {"teacher_entropy": entropy, "divergence": total.detach() - entropy}
    return Loss(total=total, parts=parts)


def _sharpen(logits: Tensor, center: Tensor, temp: float) -> tuple[Tensor, Tensor]:
    """The teacher's distributions, in place where the type is wide enough; their mean entropy."""
    targets = at_least_float32(logits)
    entropies = [_sharpen_rows(rows, center, temp) for rows in _row_blocks(targets)]
    return targets, torch.cat(entropies).mean()


def _sharpen_rows(rows: Tensor, center: Tensor, temp: float) -> Tensor:
    scaled = rows.sub_(center).div_(temp)
    largest = scaled.amax(1)
    probabilities = scaled.softmax(1)
    expected = torch.linalg.vecdot(probabilities, scaled)
    rows.copy_(probabilities)
    return _log_sum_exp(largest, probabilities) - expected


def _log_sum_exp(largest: Tensor, probabilities: Tensor) -> Tensor:
    """What softmax divided by, as a logarithm, from the largest logit and its probability."""
    return largest - probabilities.amax(1).log()


class _Fused(torch.autograd.Function):
    """The last layer and the loss; gradients are made with the loss and wait for its own."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        features: Tensor,
        directions: Tensor,
        lengths: Tensor,
        targets: Tensor,
        temp: float,
        wants_gradient: bool,
    ) -> Tensor:
        device = features.device.type
        product_type = features.dtype
        if torch.is_autocast_enabled(device) and product_type == torch.float32:
            product_type = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            norms = torch.linalg.vector_norm(directions, dim=1, keepdim=True).clamp_min(MIN_LENGTH)
            weight = (directions * (lengths / norms)).to(product_type)
            crops = (features / temp).chunk(2 * len(features) // len(targets))
            run = _Crops(weight, targets, wants_gradient)
            losses = run.through(crops)
            batch, pairs = len(crops[0]), 2 * (len(crops) - 1)
            if wants_gradient:
                by_features, by_weight = run.gradients(-1 / (pairs * batch))
                by_directions, by_lengths = _through_weight_norm(
                    by_weight, directions, lengths, norms
                )
                ctx.gradients = [by_features.div_(temp), by_directions, by_lengths]
            return losses.sum() / (pairs * batch)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.gradients is None:
            raise RuntimeError("DINO's loss was differentiated already; compute it again.")
        # In place, so that the last layer's gradient is there only once.
        gradients: list[Tensor] = [gradient.mul_(grad) for gradient in ctx.gradients]
        ctx.gradients = None
        wanted = [
            gradient if is_wanted else None
            for gradient, is_wanted in zip(gradients, ctx.needs_input_grad, strict=False)
        ]
        return (*wanted, None, None, None)


class _Crops:
    """Takes the student's crops through the last layer, and sums up what they give.

    Args:
        weight: of the last layer [K, D], in the type that products are computed in.
        targets: the teacher's distributions [2 B, K]; overwritten.
        wants_gradient: whether to sum up the gradients too.
    """

    def __init__(self, weight: Tensor, targets: Tensor, wants_gradient: bool) -> None:
        self._weight = weight
        self._targets = targets.chunk(2)
        self._logits = torch.empty_like(targets)
        self._columns = _column_blocks(weight)
        self._scale = _HALF_SCALE if weight.dtype == torch.float16 else 1.0
        self._by_features: list[Tensor] = []
        self._by_weight = torch.zeros_like(weight, dtype=targets.dtype) if wants_gradient else None

    def through(self, crops: Sequence[Tensor]) -> Tensor:
        """Gives the sum of each row's cross-entropies [V B], global crops first.

        Args:
            crops: features divided by the student's temperature, [B, D] each.
        """
        first, second = self._targets
        losses = [self._two(crops[:2], (second, first), 1)]
        both = first.add_(second)
        losses += [self._two(crops[at : at + 2], (both,) * 2, 2) for at in range(2, len(crops), 2)]
        return torch.cat(losses)

    def gradients(self, factor: float) -> tuple[Tensor, Tensor]:
        """The sums of T - n softmax times weight [V B, D] and times features [K, D], scaled."""
        assert self._by_weight is not None
        factor /= self._scale
        return torch.cat(self._by_features).mul_(factor), self._by_weight.mul_(factor)

    def _two(self, crops: Sequence[Tensor], targets: Sequence[Tensor], count: int) -> Tensor:
        """One or two crops: the loss of each row, given the sums of their `count` targets."""
        features = torch.cat(list(crops)).to(self._weight.dtype)
        logits = self._logits[: len(features)]
        for columns in self._columns:
            logits[:, columns] = features @ self._weight[columns].T
        losses = [
            _become_gradient(rows, target_rows, count, self._scale)
            for crop, target in zip(logits.split(len(crops[0])), targets, strict=False)
            for rows, target_rows in zip(_row_blocks(crop), _row_blocks(target), strict=True)
        ]
        if self._by_weight is not None:
            by_features = self._logits.new_zeros(features.shape)
            for columns in self._columns:
                gradient = logits[:, columns].to(features.dtype)
                _add_product(by_features, gradient, self._weight[columns])
                _add_product(self._by_weight[columns], gradient.T, features)
            self._by_features.append(by_features)
        return torch.cat(losses)


def _become_gradient(logits: Tensor, target: Tensor, count: int, scale: float) -> Tensor:
    """Turns rows of logits into scale (T - n softmax), in place, and gives their losses."""
    largest, expected = logits.amax(1), torch.linalg.vecdot(target, logits)
    probabilities = logits.softmax(1)
    torch.sub(target, probabilities, alpha=count, out=logits)
    if scale != 1:
        logits.mul_(scale)
    return count * _log_sum_exp(largest, probabilities) - expected


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)


def _through_weight_norm(
    by_weight: Tensor, directions: Tensor, lengths: Tensor, norms: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients in directions, in place of that in the weight, and in lengths."""
    by_lengths = torch.empty_like(lengths)
    for rows in _column_blocks(directions):
        unit = directions[rows] / norms[rows]
        along = by_lengths[rows] = torch.linalg.vecdot(by_weight[rows], unit)[:, None]
        by_weight[rows].sub_(unit.mul_(along)).mul_(lengths[rows] / norms[rows])
    return by_weight, by_lengths


def _column_blocks(weight: Tensor) -> list[slice]:
    """The outputs in blocks; all at once on a GPU, which small products leave idle."""
    step = _COLUMNS if weight.device.type == "cpu" else len(weight)
    return [slice(start, start + step) for start in range(0, len(weight), step)]


def _row_blocks(logits: Tensor) -> Sequence[Tensor]:
    return logits.split(_ROWS if logits.device.type == "cpu" else len(logits))
