"""A baseline that sees colour and nothing else: a joint RGB histogram instead of a network.

On small public sets it comes close to networks, since classes were often stained or scanned apart.
A comparison without it does not show how much of a score is colour.
"""

from typing import Any

import torch
from torch import Tensor, nn

from eosin.encoders._base import Encoder, EncoderCard
from eosin.encoders._pooling import NATIVE
from eosin.errors import UsageError
from eosin.provenance import sha256_of

NEEDS_NO_WEIGHTS = True

NAME = "colour_histogram"
_BINS = 8


def variants() -> tuple[str, ...]:
    """Names that `build` takes."""
    return (NAME,)


def build(name: str, *, input_px: int = 96, seed: int | None = None, **model_args: Any) -> Encoder:
    """Builds the histogram.

    Args:
        name: `colour_histogram`.
        input_px: side of the images it counts over.
        seed: of no effect, since nothing is random.
        model_args: must be empty.
    """
    if model_args:
        raise UsageError(f"{name} takes no {', '.join(model_args)}.")
    card = EncoderCard(
        name=name,
        architecture=name,
        input_px=input_px,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        pooling="histogram",
        interpolation="bilinear",
    )
    return ColourHistogram(card)


class ColourHistogram(Encoder):
    """Square roots of the shares of 8 x 8 x 8 colours, so that the length of the vector is 1.

    The cosine of two such vectors is the Bhattacharyya coefficient of the two histograms.
    """

    def __init__(self, card: EncoderCard) -> None:
        super().__init__(nn.Identity(), card)

    @property
    def embed_dim(self) -> int:
        """Length of an embedding."""
        return _BINS**3

    def embed(self, images: Tensor) -> Tensor:
        """Embeds images [B, 3, H, W] with values in [0, 1] as [B, 512]."""
        bins = (images * _BINS).long().clamp(0, _BINS - 1)
        red, green, blue = bins.flatten(2).unbind(1)
        colour = (red * _BINS + green) * _BINS + blue
        counts = torch.zeros(len(images), self.embed_dim, device=images.device)
        counts.scatter_add_(1, colour, torch.ones_like(colour, dtype=counts.dtype))
        return (counts / colour.shape[1]).sqrt()

    def feature_maps(self, images: Tensor, *, finest: bool = False) -> list[Tensor]:
        """A histogram has no maps."""
        raise UsageError(f"{self.name} has no feature maps; it serves as a baseline of embeddings.")

    def token_map(self, images: Tensor) -> Tensor:
        """A histogram has no tokens."""
        raise UsageError(f"{self.name} has no tokens; it serves as a baseline of embeddings.")

    def with_pooling(self, pooling: str) -> Encoder:
        """A histogram pools in its one way, `histogram` or `native`."""
        if pooling not in (self.pooling, NATIVE):
            raise UsageError(f"{self.name} counts all pixels; it cannot pool by {pooling!r}.")
        return self

    def weights_sha256(self) -> str:
        """Hashes the settings, since there are no weights."""
        return sha256_of([self.name, "sqrt of RGB shares", _BINS])

    def reinitialised(self, seed: int) -> Encoder:
        """Gives the same histogram: it has nothing to initialise."""
        return ColourHistogram(self.card)
