"""What tells a healthy run from a collapsed one, measured on fixed tiles while it trains."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eosin.methods._base import Method

_EARLY_SHARE = 0.2
_CHANCE_MARGIN = 0.002
_COLLAPSED_STD = 0.05


@dataclass
class CollapseMonitor:
    """Embeds the same tiles again and again, and warns once when the embeddings have collapsed.

    It runs the encoder in evaluation mode, draws nothing at random and restores the mode, so that
    a run with it and one without end with the same weights.

    Args:
        method: what is trained.
        tiles: uint8 tiles [N, 3, S, S].
        updates: length of the run; the first fifth of it is not judged.
    """

    method: Method
    tiles: Tensor
    updates: int
    _has_warned: bool = False

    def __call__(self, update: int, loss: float) -> Mapping[str, float]:
        """Measures after an update.

        Returns:
            `rankme`, the effective rank, and `embedding_std`, 1 for embeddings that point in all
            directions and 0 for equal ones.
        """
        embeddings = self._embed()
        if not embeddings.isfinite().all():
            return {}  # the loop stops the run
        found = {"rankme": rankme(embeddings), "embedding_std": embedding_std(embeddings)}
        diagnosis = diagnose(found["embedding_std"], loss, self.method.chance_loss())
        if diagnosis and not self._has_warned and update > _EARLY_SHARE * self.updates:
            self._has_warned = True
            print(f"Warning, update {update:,}: {diagnosis}", file=sys.stderr)
        return found

    @torch.no_grad()
    def _embed(self) -> Tensor:
        encoder = self.method.export_encoder()
        modes = {name: module.training for name, module in encoder.named_modules()}
        encoder.eval()
        device = next(encoder.parameters()).device
        embeddings = encoder.embed(encoder.normalise(self.tiles.to(device))).float()
        for name, module in encoder.named_modules():
            module.training = modes[name]
        return embeddings


def rankme(embeddings: Tensor) -> float:
    """Effective rank of embeddings [N, D]: the exponential of the singular values' entropy.

    Garrido et al. 2023, arXiv 2210.02885, equation 1.
    """
    singular = torch.linalg.svdvals(embeddings.double())
    shares = singular / singular.sum().clamp_min(1e-12) + 1e-7
    return math.exp(float(-(shares * shares.log()).sum()))


def embedding_std(embeddings: Tensor) -> float:
    """Mean standard deviation of L2-normalised embeddings [N, D], times the square root of D.

    Chen and He 2021, arXiv 2011.10566, section 4.1: about 1 where the directions are spread out.
    """
    directions = torch.nn.functional.normalize(embeddings, dim=1)
    return float(directions.std(0).mean()) * math.sqrt(embeddings.shape[1])


def diagnose(std: float, loss: float, chance_loss: float | None) -> str:
    """Says what is wrong with a run and what to do, or nothing.

    Args:
        std: of `embedding_std`.
        loss: of the last update.
        chance_loss: what a collapsed model's loss is, where the method has such a value.
    """
    if chance_loss is not None and abs(loss - chance_loss) < _CHANCE_MARGIN * chance_loss:
        return (
            f"the loss stays at {chance_loss:.3f}, the logarithm of the number of outputs: the "
            "outputs are uniform. Raise the learning rate, lower the teacher's temperature, or "
            "check that the tiles differ."
        )
    if std < _COLLAPSED_STD:
        return (
            f"all tiles get nearly the same embedding (spread {std:.3f} of 1): the encoder has "
            "collapsed. Lower the learning rate or lengthen the warm-up."
        )
    return ""
