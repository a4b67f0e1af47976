"""How tokens or positions become one vector, whatever the make of the timm model."""

from typing import Any

import torch
from timm.layers.classifier import ClNormMlpClassifierHead, NormMlpClassifierHead
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from eosin.errors import UsageError

CLS = "cls"
MEAN = "mean"
CLS_AND_MEAN = "cls+mean"
ATTENTION = "map"
NATIVE = "native"

# Heads that normalise what they have pooled, before anything else.
_NORM_FIRST = (NormMlpClassifierHead, ClNormMlpClassifierHead)
_TIMM_AVERAGES = ("avg", "fast", "fastavg")


def pooling_of(model: nn.Module) -> str:
    """Reads from a timm model how it pools when it is called.

    Returns:
        `cls`: its class token; `mean`: the mean over patch tokens or positions, before or after
        the last normalisation; `map`: timm's attention pooling; `native`: anything else, such as a
        maximum, two tokens, or a hidden layer after the mean.
    """
    kind = _timm_pooling(model)
    if kind == "token" and _has_class_token(model) and not _has(model, "dist_token"):
        return CLS
    if kind == "map":
        return ATTENTION
    is_mean = kind in _TIMM_AVERAGES and not getattr(model, "pool_include_prefix", False)
    return MEAN if is_mean and not _has_hidden_layer(model) else NATIVE


def is_native(model: nn.Module, pooling: str) -> bool:
    """Whether calling the model pools so; a module that is not timm's pools in no other way."""
    is_timms = hasattr(model, "forward_features")
    return not is_timms or pooling in (NATIVE, pooling_of(model))


def check_pooling(model: nn.Module, pooling: str, name: str) -> None:
    """Makes sure that a model can pool so.

    Raises:
        UsageError: it cannot; `name` says which encoder.
    """
    if pooling not in (CLS, MEAN, CLS_AND_MEAN, NATIVE, pooling_of(model)):
        raise UsageError(
            f"{name} cannot pool by {pooling!r}: choose {CLS}, {MEAN}, {CLS_AND_MEAN} or {NATIVE} "
            f"(its own, {pooling_of(model)})."
        )
    if is_native(model, pooling) and hasattr(model, "forward_features"):
        return
    if not hasattr(model, "forward_features"):
        raise UsageError(f"{name} pools in its own way only ({NATIVE}); it has no tokens.")
    if _timm_pooling(model) == "token" and not hasattr(model, "num_prefix_tokens"):
        raise UsageError(
            f"{name} pools in its own way only ({NATIVE}): timm does not say which tokens of "
            f"{type(model).__name__} are patches."
        )
    if CLS in pooling and not _has_class_token(model):
        raise UsageError(
            f"{name} cannot pool by {pooling!r}: it has no class token. Choose {MEAN}, or {NATIVE} "
            f"for what the model does itself."
        )


def pool(model: nn.Module, images: Tensor, pooling: str) -> Tensor:
    """Embeds images [B, 3, H, W] by `cls`, `mean` or `cls+mean`, as [B, D] or [B, 2 D].

    A normalisation that the model has after its own pooling follows this one too, as in timm.

    Raises:
        UsageError: the model cannot pool so, which a card made by hand may demand.
    """
    check_pooling(model, pooling, type(model).__name__)
    features = forward_features(model, images)
    pooled = {
        CLS: lambda: features[:, :1],
        MEAN: lambda: patches(model, features).mean(1, keepdim=True),
    }
    parts = [normalised(model, pooled[part]()).squeeze(1) for part in pooling.split("+")]
    return torch.cat(parts, 1)


def pooled_dim(model: nn.Module, pooling: str) -> int:
    """Length of an embedding under a pooling."""
    features: int = int(getattr(model, "num_features"))  # noqa: B009  (nn.Module types it as Tensor)
    if is_native(model, pooling):
        return int(getattr(model, "head_hidden_size", features))
    return features * len(pooling.split("+"))


def timm_pooling_args(pooling: str, model: nn.Module) -> dict[str, Any]:
    """Arguments with which timm's own ViT pools so; empty where it does already or cannot."""
    timm_names = {CLS: "token", MEAN: "avg"}
    is_plain = pooling in timm_names and isinstance(getattr(model, "fc_norm", None), nn.Module)
    if not is_plain or is_native(model, pooling) or getattr(model, "attn_pool", None) is not None:
        return {}
    has_norm_after = not isinstance(model.fc_norm, nn.Identity)
    return {"global_pool": timm_names[pooling], "fc_norm": has_norm_after}


def forward_features(model: nn.Module, images: Tensor) -> Tensor:
    """What the model pools: [B, prefix + N, D], or a map [B, C, h, w] or [B, h, w, C].

    Raises:
        UsageError: the model gives something else, such as tokens of two sizes.
    """
    features: Any = getattr(model, "forward_features")(images)  # noqa: B009
    if not isinstance(features, Tensor) or features.ndim not in (3, 4):
        raise UsageError(f"{type(model).__name__} of timm has no single sequence of tokens.")
    return features


def patches(model: nn.Module, features: Tensor) -> Tensor:
    """Tokens or positions [B, N, D] of features, row by row, without class and register tokens."""
    if features.ndim == 3:
        return features[:, int(getattr(model, "num_prefix_tokens", 0)) :]
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2)


def normalised(model: nn.Module, tokens: Tensor) -> Tensor:
    """Applies to tokens [B, N, D] the normalisation that the model has after its pooling, if any.

    The others normalise in `forward_features` already.
    """
    head = getattr(model, "head", None)
    norm = head.norm if isinstance(head, _NORM_FIRST) else getattr(model, "fc_norm", None)
    if not isinstance(norm, nn.Module):
        return tokens
    if isinstance(norm, LayerNorm2d):
        return norm(tokens.transpose(1, 2).unsqueeze(3)).squeeze(3).transpose(1, 2)
    return norm(tokens)


def _timm_pooling(model: nn.Module) -> str:
    """Reads timm's name of the pooling, which lies with the model or with its head."""
    head = getattr(model, "head", None)
    places = (getattr(model, "global_pool", None), getattr(head, "global_pool", None), head)
    for place in places:
        kind = place if isinstance(place, str) else getattr(place, "pool_type", None)
        if isinstance(kind, str):
            return kind
    return ""


def _has_class_token(model: nn.Module) -> bool:
    return _has(model, "cls_token") and int(getattr(model, "num_prefix_tokens", 0)) > 0


def _has(model: nn.Module, parameter: str) -> bool:
    return isinstance(getattr(model, parameter, None), Tensor)


def _has_hidden_layer(model: nn.Module) -> bool:
    """Whether something that learns, besides a normalisation, stands between mean and embedding."""
    features = getattr(model, "num_features", None)
    return getattr(model, "head_hidden_size", features) != features
