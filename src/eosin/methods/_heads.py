"""Projectors: what stands between an encoder and a loss, and is thrown away after training."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def barlow_projector(in_dim: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear layers without bias, BatchNorm and ReLU behind all but the last.

    Zbontar et al. 2021, section 2.2; main.py lines 194-202.

    Args:
        in_dim: length of an embedding.
        widths: output width of each layer.
    """
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(in_dim, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(True)]
        in_dim = width
    return nn.Sequential(*layers, nn.Linear(in_dim, widths[-1], bias=False))


MIN_LENGTH = 1e-12
"""The length that a shorter vector is divided by when it is normalised."""


class WeightNormLinear(nn.Module):
    """A linear layer without bias whose rows are directions `weight_v` times lengths `weight_g`.

    Written out, since `torch.nn.utils.weight_norm` cannot be copied (a teacher is a copy).

    Args:
        in_features: length of an input.
        out_features: number of rows.
        is_length_trained: whether `weight_g`, 1 at the start, is a parameter that is optimised.
    """

    def __init__(self, in_features: int, out_features: int, *, is_length_trained: bool) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(nn.Linear(in_features, out_features, bias=False).weight.data)
        self.weight_g = nn.Parameter(torch.ones(out_features, 1), requires_grad=is_length_trained)

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, in_features] to [B, out_features]; the rows are scaled as the outputs are."""
        norms = torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True)
        factors = self.weight_g / norms.clamp_min(MIN_LENGTH)
        return F.linear(x, self.weight_v) * factors.T


class DINOHead(nn.Module):
    """DINO's projector: an MLP with GELU, L2 normalisation, a weight-normed last layer.

    Caron et al. 2021, appendix C; vision_transformer.py lines 257-291.

    Args:
        in_dim: length of an embedding.
        out_dim: number of outputs K.
        hidden_dim: width of the MLP.
        bottleneck_dim: width of what is L2-normalised.
        layers: linear layers of the MLP.
        norm_last_layer: keeps the rows of the last layer at length 1.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        hidden_dim: int,
        bottleneck_dim: int,
        layers: int,
        norm_last_layer: bool,
    ) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (layers - 1), bottleneck_dim]
        modules: list[nn.Module] = []
        for index in range(layers):
            linear = nn.Linear(widths[index], widths[index + 1])
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            modules += [linear, nn.GELU()]
        self.mlp = nn.Sequential(*modules[:-1])
        self.last_layer = WeightNormLinear(
            bottleneck_dim, out_dim, is_length_trained=not norm_last_layer
        )

    def bottleneck(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings [B, D] to what the last layer takes, L2-normalised."""
        return F.normalize(self.mlp(embeddings), dim=-1, eps=MIN_LENGTH)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings [B, D] to logits [B, K]."""
        return self.last_layer(self.bottleneck(embeddings))
