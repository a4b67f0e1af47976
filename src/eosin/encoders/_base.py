"""The contract of an encoder: a timm module and what timm does not carry with it."""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
import torch
from torch import Tensor, nn

from eosin.encoders import _features, _pooling, _sizes
from eosin.encoders._card import IMAGENET_MEAN as IMAGENET_MEAN
from eosin.encoders._card import IMAGENET_STD as IMAGENET_STD
from eosin.encoders._card import EncoderCard as EncoderCard
from eosin.encoders._freezing import hold_in_evaluation
from eosin.encoders._pooling import pooling_of as pooling_of
from eosin.encoders._positions import DINOVisionTransformer, position_resize, resizing_as_dino
from eosin.encoders._stem import remove_stem_stride
from eosin.errors import InputError, UsageError


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
        return _pooling.pooled_dim(self.model, self.pooling)

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """Nominal pixels of the image a position of each feature map covers, finest first.

        Maps of networks that do not pad (Inception) are a few positions smaller.
        """
        return tuple(int(each["reduction"]) for each in self._levels())

    @property
    def feature_channels(self) -> tuple[int, ...]:
        """Channels of each feature map, finest first."""
        return tuple(int(each["num_chs"]) for each in self._levels())

    def finest_levels(self) -> list[tuple[int, int]]:
        """Gives stride and channels of the maps that `feature_maps` gives with `finest`."""
        found = _features.levels(self.model, self.name, finest=True).values()
        return [(int(each["reduction"]), int(each["num_chs"])) for each in found]

    def transform_id(self) -> str:
        """Says in one line what, besides weights and pooling, an embedding depends on.

        Mostly what happens to an image before `embed`; part of every cache key.
        """
        mean = ",".join(f"{value:.8g}" for value in self.mean)
        std = ",".join(f"{value:.8g}" for value in self.std)
        px = self.input_px
        line = f"resize{px}-{self.interpolation} crop{px} mean{mean} std{std}"
        if positions := position_resize(self.model, px):
            line += f" positions-{positions}"
        return line if self.card.stem_stride is None else f"{line} stem{self.card.stem_stride}"

    def timm_args(self) -> dict[str, Any]:
        """Arguments of `timm.create_model` for a model that pools as this encoder where timm can.

        timm knows no `cls+mean`, and no other stride of a ResNet's stem.
        """
        return {
            **self.card.model_args,
            **_pooling.timm_pooling_args(self.pooling, self.model),
        }

    def normalise(self, images: Tensor) -> Tensor:
        """Turns uint8 images [B, 3, H, W] into the floats that `embed` takes, on their device."""
        mean = torch.tensor(self.mean, device=images.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(1, 3, 1, 1)
        return (images.float() / 255 - mean) / std

    def embed(self, images: Tensor) -> Tensor:
        """Embeds normalised images [B, 3, H, W] as [B, D].

        Raises:
            UsageError: the model does not take images of this size.
        """
        self._check_size(images)
        if _pooling.is_native(self.model, self.pooling):
            return self.model(images)
        return _pooling.pool(self.model, images, self.pooling)

    def forward(self, images: Tensor) -> Tensor:
        """The same as `embed`, so that an encoder is an ordinary module."""
        return self.embed(images)

    def tokens(self, images: Tensor) -> Tensor:
        """Gives the normalised patch tokens of normalised images as [B, N, D], row by row.

        Class and register tokens are left out. Of a convolutional network these are the positions
        of its last map.

        Raises:
            UsageError: the model has no tokens, or does not take images of this size.
        """
        return self.token_map(images).flatten(2).transpose(1, 2)

    def token_map(self, images: Tensor) -> Tensor:
        """Gives what `tokens` gives on its grid, [B, D, h, w]."""
        self._check_size(images)
        return _features.token_map(self.model, images)

    def feature_maps(self, images: Tensor, *, finest: bool = False) -> list[Tensor]:
        """Gives four feature maps [B, C, h, w] of normalised images, finest first.

        Of a convolutional or hierarchical network these are its last four levels, with strides 4,
        8, 16 and 32 mostly (1, 2, 4 and 8 after `with_stem_stride(1)`). Of a ViT they are the
        patch tokens after four evenly spaced blocks (3, 6, 9 and 12 of 12), all on one grid, before
        the final normalisation, which was trained for the last block alone.

        Args:
            images: [B, 3, H, W].
            finest: gives the four finest levels of a network that has more, such as strides 2, 4, 8
                and 16 of an EfficientNet.

        Raises:
            UsageError: the model has no four levels, or does not take images of this size.
        """
        self._check_size(images)
        return _features.feature_maps(self.model, images, self.name, finest=finest)

    def with_pooling(self, pooling: str) -> "Encoder":
        """Gives an encoder with the same weights that pools in another way.

        Args:
            pooling: `cls`, `mean` (over patch tokens or positions, without class and register
                tokens), `cls+mean` (both, one after the other), or `native` for the model's own.

        Returns:
            This encoder where it pools so already, else a copy.

        Raises:
            UsageError: the model cannot pool so, such as `cls` of a ResNet.
        """
        _pooling.check_pooling(self.model, pooling, self.name)
        if pooling == _pooling.NATIVE:
            pooling = pooling_of(self.model)
        if pooling == self.pooling:
            return self
        return self._copied_with(pooling=pooling)

    def at_size(self, input_px: int) -> "Encoder":
        """Gives an encoder for square images of another size.

        A ViT resizes its position embedding as it was trained to: by DINO's rule where DINO trained
        it, by timm's elsewhere.

        Args:
            input_px: side of the images.

        Returns:
            This encoder where it has that size already, else a copy.

        Raises:
            UsageError: patches do not divide the size, or the model takes one size only.
        """
        if input_px < 1:
            raise UsageError(f"{self.name} cannot take images of {input_px} px.")
        if input_px == self.input_px:
            return self
        resized = self._copied_with(input_px=input_px)
        changed = _sizes.resize_model(resized.model, input_px, self.name)
        resized.card = replace(resized.card, model_args={**self.card.model_args, **changed})
        return resized

    def with_stem_stride(self, stride: int) -> "Encoder":
        """Gives a ResNet whose feature maps have strides 1, 2, 4 and 8, as HoVer-Net needs them.

        The first convolution has stride 1 and the max-pooling is left out; the weights stay. It
        computes and holds 16 times as much an image.

        Args:
            stride: of the first feature map: 1, or 4 for that of the architecture.

        Returns:
            This encoder where it has that stride already, else a copy.

        Raises:
            UsageError: the model is no ResNet of timm, or has a stem that cannot do without stride.
        """
        if stride == self.feature_strides[0]:
            return self
        if stride != 1:
            raise UsageError(
                f"{self.name} cannot have a first stride of {stride}: choose 1, or take the "
                "encoder as it was loaded."
            )
        unshrunk = self._copied_with(stem_stride=1)
        remove_stem_stride(unshrunk.model, self.name)
        return unshrunk.freeze() if self._is_frozen else unshrunk

    def freeze(self) -> "Encoder":
        """Fixes the weights and the running statistics for good, in copies too.

        `train()` has no effect any more, whether it is called on the encoder, on a module that
        holds it or on a module inside it.
        """
        self._is_frozen = True
        self.requires_grad_(False)
        hold_in_evaluation(self)
        return self

    def thawed(self) -> "Encoder":
        """Gives a copy all of whose weights can be trained, also where this one is frozen."""
        copied = Encoder(copy.deepcopy(self.model), self.card)
        for module in copied.modules():
            module.__dict__.pop("train", None)  # what `freeze` holds it in evaluation by
        return copied.requires_grad_(True)

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
        if isinstance(self.model, DINOVisionTransformer):
            model = resizing_as_dino(model)
        if self.card.stem_stride is not None:
            remove_stem_stride(model, self.name)
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

    def _copied_with(self, **changes: Any) -> "Encoder":
        copied = self.copied()
        copied.card = replace(self.card, **changes)
        return copied

    def _levels(self) -> list[Mapping[str, Any]]:
        return list(_features.levels(self.model, self.name).values())

    def _check_size(self, images: Tensor) -> None:
        _sizes.check_size(self.model, images.shape[-2], images.shape[-1], self.name)


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
