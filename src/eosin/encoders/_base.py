"""The contract of an encoder: a timm module and what timm does not carry with it."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from eosin.errors import InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class EncoderCard:
    """What has to be known to use an encoder rightly, and travels with its weights.

    Attributes:
        name: how the encoder is called in tables, such as `resnet50.lunit_swav`.
        architecture: timm's name of the architecture.
        model_args: arguments of `timm.create_model` besides the architecture, such as `img_size`.
        input_px: side of the square image that `embed` is meant for.
        mean: subtracted from pixels in [0, 1], one value a channel.
        std: divides the result, one value a channel.
        pooling: how tokens or positions become one vector: `cls` or `mean`.
        interpolation: how images are resized to `input_px`.
        provenance: where the weights come from: method, data, updates, versions.
    """

    name: str
    architecture: str
    model_args: Mapping[str, Any] = field(default_factory=dict[str, Any])
    input_px: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    pooling: str = "mean"
    interpolation: str = "bicubic"
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Encoder(nn.Module):
    """A timm module with its normalisation, pooling, input size and provenance.

    Args:
        model: a timm model without a classifier (`num_classes=0`).
        card: what goes with it.
    """

    def __init__(self, model: nn.Module, card: EncoderCard) -> None:
        super().__init__()
        self.model = model
        self.card = card
        self._is_frozen = False

    @property
    def name(self) -> str:
        """How the encoder is called in tables."""
        return self.card.name

    @property
    def architecture(self) -> str:
        """The name of the architecture in timm."""
        return self.card.architecture

    @property
    def input_px(self) -> int:
        """Side of the square image that `embed` is meant for."""
        return self.card.input_px

    @property
    def mean(self) -> tuple[float, float, float]:
        """Subtracted from pixels in [0, 1]."""
        return self.card.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """Divides what `mean` was subtracted from."""
        return self.card.std

    @property
    def pooling(self) -> str:
        """How tokens or positions become one vector."""
        return self.card.pooling

    @property
    def interpolation(self) -> str:
        """How images are resized to `input_px`."""
        return self.card.interpolation

    @property
    def embed_dim(self) -> int:
        """Length of an embedding."""
        return int(self.model.num_features)  # pyright: ignore[reportArgumentType]

    def transform_id(self) -> str:
        """Says in one line what happens to an image before `embed`; part of every cache key."""
        mean = ",".join(f"{value:.8g}" for value in self.mean)
        std = ",".join(f"{value:.8g}" for value in self.std)
        px = self.input_px
        return f"resize{px}-{self.interpolation} crop{px} mean{mean} std{std}"

    def normalise(self, images: Tensor) -> Tensor:
        """Turns uint8 images [B, 3, H, W] into the floats that `embed` takes, on their device."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.float() / 255 - mean) / std

    def embed(self, images: Tensor) -> Tensor:
        """Embeds normalised images [B, 3, H, W] as [B, D]."""
        return self.model(images)

    def forward(self, images: Tensor) -> Tensor:
        """The same as `embed`, so that an encoder is an ordinary module."""
        return self.embed(images)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Gives the last four feature maps [B, C, h, w] of normalised images, finest first."""
        maps: list[Tensor] = self.model.forward_intermediates(  # pyright: ignore[reportCallIssue]
            images, indices=4, intermediates_only=True
        )
        return maps

    def freeze(self) -> "Encoder":
        """Fixes the weights and the running statistics for good; `train()` leaves it as it is."""
        self._is_frozen = True
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """Switches to training mode, except where the encoder is frozen."""
        super().train(mode and not self._is_frozen)
        return self

    def weights_sha256(self) -> str:
        """Hashes the names, shapes, types and bytes of all weights and running statistics."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.state_dict().items()):
            value = value.detach().cpu().contiguous()
            digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def reinitialised(self, seed: int) -> "Encoder":
        """Gives the same architecture with fresh random weights, named `random/<architecture>`.

        Residual branches that start at zero are woken, since without them the network is hardly
        more than its first layer and an easy baseline to beat.
        """
        model = create_timm_model(self.architecture, self.card.model_args, seed=seed)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.any():
                nn.init.ones_(module.weight)
        card = replace(
            self.card,
            name=f"random/{self.architecture}",
            provenance={"initialisation": "random", "seed": seed},
        )
        return Encoder(model, card).eval()

    def copied(self) -> "Encoder":
        """Gives an independent copy, such as a teacher starts from."""
        return copy.deepcopy(self)


def create_timm_model(
    architecture: str, model_args: Mapping[str, Any], seed: int | None = None
) -> nn.Module:
    """Creates a timm model without a classifier and without pre-trained weights.

    The initialisation draws from a generator of its own when a seed is given, and leaves the
    global one as it was.

    Raises:
        InputError: timm has no such architecture.
    """
    if not timm.is_model(architecture):
        close = ", ".join(timm.list_models(f"*{architecture[:8]}*")[:5])
        hint = f" Similar: {close}." if close else ""
        raise InputError(f"timm has no architecture {architecture!r}.{hint}")
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return timm.create_model(architecture, num_classes=0, **model_args)


def pooling_of(model: nn.Module) -> str:
    """Reads from a timm model how it pools: `cls` for the class token, `mean` otherwise."""
    return "cls" if getattr(model, "global_pool", "avg") == "token" else "mean"
