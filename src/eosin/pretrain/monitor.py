"""What tells a healthy run from a collapsed one, measured on fixed tiles while it trains."""

import contextlib
import math
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eosin.embeddings.extract import fit_to_square
from eosin.encoders import Encoder
from eosin.engine.precision import Precision, autocast
from eosin.engine.trainable import Observer
from eosin.images.views import Image, Views
from eosin.methods._base import Method
from eosin.pretrain.diagnosis import LINES, Line, diagnose

_TILES_A_PASS = 32  # 0.5 GB for a ViT-S/8 at 224 px, which has 785 tokens a tile, in fp32


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedTiles:
    """What a run is watched on, the same from its first update to its last.

    Attributes:
        whole: the tiles, uint8 [N, 3, S, S].
        first: a view of each, uint8 [N, 3, V, V].
        second: another view of each.
    """

    whole: Tensor
    first: Tensor
    second: Tensor


def fix_tiles(images: Iterable[Image], views: Views, encoder: Encoder, seed: int = 0) -> FixedTiles:
    """Resizes tiles as the encoder takes them, and makes two of the run's own views of each, once.

    Args:
        images: RGB, `uint8[H, W, 3]`, of any sizes.
        views: of the method; its first two are made, which are the large ones of a multi-crop.
        encoder: for the size and the interpolation.
        seed: of the views; the global generators are left alone.
    """
    pair = Views((views.specs * 2)[:2] if len(views.specs) < 2 else views.specs[:2])
    whole: list[Image] = []
    made: list[list[Image]] = []
    for number, image in enumerate(images):
        whole.append(fit_to_square(image, encoder.input_px, encoder.interpolation))
        made.append(pair.make(image, np.random.default_rng([seed, number])))
    first, second = zip(*made, strict=True)
    return FixedTiles(whole=_planes(whole), first=_planes(first), second=_planes(second))


class CollapseMonitor(Observer):
    """Embeds the same tiles again and again, and warns once when a run goes wrong.

    It runs the encoder in evaluation mode, draws nothing at random and restores the modes, so that
    a run with it and one without end with the same weights.

    Args:
        method: what is trained.
        tiles: what it is watched on.
        updates: length of the run.
        precision: of the forward passes, as the run has it.
        earlier: lines of the log, where the run goes on.
    """

    def __init__(
        self,
        method: Method,
        tiles: FixedTiles,
        updates: int,
        *,
        precision: Precision = "auto",
        earlier: Sequence[Line] = (),
    ) -> None:
        self._method, self._tiles, self._updates = method, tiles, updates
        self._precision: Precision = precision
        self._lines: list[Line] = []
        self._has_warned = False
        for line in earlier:
            self._remember(line)

    @property
    def directions(self) -> int:
        """The greatest value that RankMe could have here."""
        return min(len(self._tiles.whole), self._method.export_encoder().embed_dim)

    def measure(self, update: int, loss: float) -> Mapping[str, float]:
        """Measures after an update.

        Returns:
            `rankme`, the effective rank, up to the lesser of tiles and dimensions;
            `embedding_std`, 1 for embeddings that point in all directions and 0 for equal ones;
            `alignment` of two views of a tile, 0 for equal ones, and `uniformity` of the tiles, 0
            for equal ones and the lower the more they are spread out; and `loss_share`, the loss
            as a share of a collapsed model's, where the method has one. Only the last where the
            embeddings are not finite.
        """
        chance = self._method.chance_loss()
        found: dict[str, float] = {}
        if chance is not None and math.isfinite(loss):
            found["loss_share"] = loss / chance
        encoder = self._method.export_encoder()
        whole, first, second = (
            embed_tiles(encoder, tiles, self._precision)
            for tiles in (self._tiles.whole, self._tiles.first, self._tiles.second)
        )
        if not all(bool(each.isfinite().all()) for each in (whole, first, second)):
            return found
        return {
            "rankme": rankme(whole),
            "embedding_std": embedding_std(whole),
            "alignment": alignment(first, second),
            "uniformity": uniformity(whole),
            **found,
        }

    def logged(self, line: Mapping[str, Any]) -> None:
        """Judges the run by its log so far, and warns at the first fault."""
        self._remember(line)
        if self._has_warned:
            return
        diagnosis = self.diagnosis()
        if diagnosis:
            self._has_warned = True
            print(f"Warning, update {line['update']:,}: {diagnosis}", file=sys.stderr)

    def _remember(self, line: Line) -> None:
        """Keeps the lines with measurements and the last few, so that long runs stay fast."""
        while self._lines and self._lines[-1]["update"] >= line["update"]:
            self._lines.pop()  # which a killed run wrote after its last checkpoint
        self._lines.append(line)
        if len(self._lines) > LINES and "rankme" not in self._lines[-LINES - 1]:
            del self._lines[-LINES - 1]

    def diagnosis(self) -> str:
        """What is wrong with the run by now, or nothing."""
        return diagnose(
            self._lines,
            updates=self._updates,
            chance_loss=self._method.chance_loss(),
            directions=self.directions,
        )


@torch.no_grad()
def embed_tiles(encoder: Encoder, tiles: Tensor, precision: Precision = "auto") -> Tensor:
    """Embeds uint8 tiles [N, 3, S, S] where the encoder lies, as float32 [N, D] on the CPU.

    It does so in evaluation mode and a few tiles at a time, and leaves every module as it was.
    """
    device = next(encoder.parameters()).device
    parts: list[Tensor] = []
    with _evaluating(encoder), autocast(precision, device):
        for some in tiles.split(_TILES_A_PASS):
            pixels = encoder.normalise(some.to(device))
            embedded = encoder.embed(pixels.contiguous(memory_format=torch.channels_last))
            parts.append(embedded.float().cpu())
    return torch.cat(parts)


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
    return float(_directions(embeddings).std(0).mean()) * math.sqrt(embeddings.shape[1])


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of the directions of two views' embeddings [N, D], 0 to 4.

    Wang and Isola 2020, arXiv 2005.10242, section 4.1, with alpha = 2.
    """
    return float((_directions(first) - _directions(second)).square().sum(1).mean())


def uniformity(embeddings: Tensor) -> float:
    """Logarithm of the mean Gaussian potential of all pairs of embeddings' directions [N, D].

    Wang and Isola 2020, arXiv 2005.10242, section 4.1, with t = 2: 0 where all are equal; in many
    dimensions about -4 where they are spread evenly.
    """
    squared = torch.pdist(_directions(embeddings)).square()
    return float((-2 * squared).exp().mean().log())


def _directions(embeddings: Tensor) -> Tensor:
    return torch.nn.functional.normalize(embeddings.double(), dim=1)


def _planes(images: Sequence[Image]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


@contextlib.contextmanager
def _evaluating(module: torch.nn.Module) -> Generator[None]:
    """Puts a module into evaluation mode, and each of its parts back into its own."""
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode
