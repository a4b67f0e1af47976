"""HoVer-Net's loss: of nucleus or not, of the distance maps, and of the types.

Graham et al. 2019, arXiv 1812.06499, section III-B, as the authors' PyTorch code has it
(vqdang/hover_net at 67e2ce5, models/hovernet/utils.py and opt.py) but for one thing: that code
differentiates the horizontal map along the vertical axis and the other way round, so that an error
of the horizontal map that only varies along its own axis costs nothing. Here each map is
differentiated along its own axis; `official_axis` gives the other.

All sums run over the images of all processes, as if one had them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from eosin.engine.distributed import all_reduce, world_size
from eosin.nuclei.hovernet import Outputs

_SMOOTH = 1e-3
_REACH = 2
_SMALL = 1e-8


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """What each term of the loss counts; the defaults are those of the authors' PyTorch code.

    Their TensorFlow code has 2 for `hv_mse` and no Dice of the types; the paper 2 for `hv_msge`.
    """

    foreground_ce: float = 1.0
    """Cross-entropy of nucleus or not."""
    foreground_dice: float = 1.0
    """Dice loss of both, summed."""
    hv_mse: float = 1.0
    """Squared error of the distance maps, over all pixels."""
    hv_msge: float = 1.0
    """Squared error of their derivatives, within true nuclei."""
    types_ce: float = 1.0
    """Cross-entropy of background and types."""
    types_dice: float = 1.0
    """Dice loss of all of these, summed."""
    official_axis: bool = False
    """Differentiate each map along the other's axis, as the authors' code does."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the outputs are compared with.

    Attributes:
        foreground: 1 within nuclei, int64 [B, h, w].
        hv: horizontal and vertical distance maps, [B, 2, h, w].
        types: 0 for background, 1 + type within nuclei, int64 [B, h, w].
    """

    foreground: Tensor
    hv: Tensor
    types: Tensor


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The weighted sum, and its unweighted terms for the log."""

    total: Tensor
    parts: Mapping[str, Tensor]


def hovernet_loss(outputs: Outputs, truth: Truth, weights: LossWeights) -> Loss:
    """Computes the loss of outputs [B, ., h, w]; with several processes each gives the whole."""
    terms = {
        "foreground_ce": _cross_entropy(outputs.foreground, truth.foreground),
        "foreground_dice": _dice(outputs.foreground, truth.foreground),
        "hv_mse": _mean(F.mse_loss(outputs.hv, truth.hv)),
        "hv_msge": _gradient_error(outputs.hv, truth, weights.official_axis),
        "types_ce": _cross_entropy(outputs.types, truth.types),
        "types_dice": _dice(outputs.types, truth.types),
    }
    total = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
    return Loss(total=total, parts={name: term.detach() for name, term in terms.items()})


def _mean(value: Tensor) -> Tensor:
    """Averages what each process has of equally many pixels."""
    return all_reduce(value) / world_size()


def _cross_entropy(logits: Tensor, classes: Tensor) -> Tensor:
    return _mean(F.cross_entropy(logits, classes))


def _dice(logits: Tensor, classes: Tensor) -> Tensor:
    """Sums, over the channels, one minus the Dice coefficient of the whole batch."""
    predicted = logits.softmax(1)
    true = F.one_hot(classes, logits.shape[1]).movedim(-1, 1).to(predicted.dtype)
    axes = (0, 2, 3)
    sums = torch.stack([(predicted * true).sum(axes), predicted.sum(axes), true.sum(axes)])
    common, of_predicted, of_true = all_reduce(sums)
    return (1 - (2 * common + _SMOOTH) / (of_predicted + of_true + _SMOOTH)).sum()


def _gradient_error(hv: Tensor, truth: Truth, official_axis: bool) -> Tensor:
    """Averages the squared error of the derivatives over the pixels of true nuclei."""
    error = derivatives(hv - truth.hv, official_axis=official_axis)
    within = truth.foreground[:, None].to(error.dtype)
    summed = (within * error.square()).sum()
    # Both channels of a pixel count, below the line too.
    squared, count = all_reduce(torch.stack([summed, 2 * within.sum()]))
    return squared / (count + _SMALL)


def derivatives(hv: Tensor, *, official_axis: bool = False) -> Tensor:
    """Differentiates the horizontal map along x and the vertical one along y.

    By a kernel of 5 x 5 with weights h / (h^2 + v^2), whose borders see zeros beyond the image.

    Args:
        hv: [B, 2, h, w].
        official_axis: exchanges the axes.

    Returns:
        [B, 2, h, w].
    """
    reach = torch.arange(-_REACH, _REACH + 1, dtype=hv.dtype, device=hv.device)
    vertical, horizontal = torch.meshgrid(reach, reach, indexing="ij")
    squared = horizontal.square() + vertical.square()
    along_x = horizontal / squared.clamp(min=1)
    along_y = vertical / squared.clamp(min=1)
    kernels = [along_y, along_x] if official_axis else [along_x, along_y]
    return F.conv2d(hv, torch.stack(kernels)[:, None], padding=_REACH, groups=2)
