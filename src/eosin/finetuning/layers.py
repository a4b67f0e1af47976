"""Which layer of an encoder a weight is of, how fast it learns, and whether it decays."""

from collections.abc import Iterator
from typing import Any

from timm.models import group_parameters
from torch import nn

from eosin.encoders import Encoder

HEAD = "head"
"""Name of the group of the new layer; the first, so that its learning rate is the one shown."""

_TOKENS = ("cls_token", "dist_token", "reg_token", "mask_token", "pos_embed")


def layer_scales(model: nn.Module, layer_decay: float) -> dict[str, float]:
    """Gives the learning rate of each parameter as a share of the new layer's.

    The layers are those of timm for this model with a classifier, which is the last of them:
    stem and embeddings, each block, and what lies between the last block and the classifier (the
    final norm of a ViT is one layer with its last block, a norm after pooling one with the
    classifier). Where timm does not say, the whole encoder is one layer.

    Args:
        model: of timm, without a classifier.
        layer_decay: each layer learns so many times as fast as the one above it.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    if matcher is None:
        return {name: layer_decay for name, _ in model.named_parameters()}
    with_head: Any = _WithHead(model)
    layers: Any = group_parameters(with_head, matcher(coarse=False), reverse=True)
    top = layers[HEAD]
    return {name: layer_decay ** (top - layers[name]) for name, _ in model.named_parameters()}


class _WithHead:
    """Parameters of a model and, by name alone, of a classifier on top."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        yield from self._model.named_parameters()
        yield HEAD, None


def parameter_groups(
    encoder: Encoder, head: nn.Module, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Sorts the weights that are trained by learning rate and weight decay.

    Returns:
        Groups with `params`, a `name`, `scale` (of the learning rate) and `decay` (of the weights);
        the new layer's are first.
    """
    model = encoder.model
    scales = layer_scales(model, layer_decay)
    exempt = _exempt(model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(".bias") and name not in exempt
            groups.setdefault((scales[name], decays), []).append(parameter)
    found = [
        _group(
            HEAD if name == "weight" else f"{HEAD}_{name}", [each], 1.0, weight_decay, each.ndim > 1
        )
        for name, each in head.named_parameters()
    ]
    for (scale, decays), params in sorted(groups.items(), key=lambda each: each[0], reverse=True):
        name = f"{scale:.6g}" + ("" if decays else "_without_decay")
        found.append(_group(name, params, scale, weight_decay, decays))
    return found


def _group(
    name: str, params: list[nn.Parameter], scale: float, weight_decay: float, decays: bool
) -> dict[str, Any]:
    decay = weight_decay if decays else 0.0
    return {"params": params, "name": name, "scale": scale, "decay": decay}


def _exempt(model: nn.Module) -> set[str]:
    """Names of matrices that are no weights of a sum over inputs: tokens, positions."""
    told: Any = getattr(model, "no_weight_decay", None)
    by_model: set[str] = set(told()) if told is not None else set()
    tokens = {name for name, _ in model.named_parameters() if name.rpartition(".")[2] in _TOKENS}
    return by_model | tokens
