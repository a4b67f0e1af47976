"""Weights that fit a model exactly, or a report of what does not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from eosin.errors import InputError

# How often a BatchNorm was updated: files older than PyTorch 0.4.1 lack it, and nothing uses it.
_COUNTER = "num_batches_tracked"


def flat_tensors(content: Any, source: Path) -> dict[str, Tensor]:
    """Gives what was read from a file if it is a flat table of tensors.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{source} is not a file of plain tensors: it holds no table of them.")
    others = [str(key) for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        more = ", …" if len(others) > 3 else ""
        raise InputError(
            f"{source} is not a file of plain tensors: {', '.join(others[:3])}{more} "
            f"{'are none' if len(others) > 1 else 'is none'}."
        )
    return {str(key): value for key, value in content.items()}


def load_strictly(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Loads all weights or says which are missing, unexpected or of another shape.

    Counters of BatchNorm updates may be missing; they keep their value.

    Raises:
        InputError: the weights do not fit; the message lists what does not.
    """
    check_fit(model, tensors, source)
    model.load_state_dict({**_counters(model), **tensors})


def check_fit(model: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Says which weights are missing, unexpected or of another shape, and loads none.

    Args:
        model: what they are meant for; it may be on PyTorch's `meta` device.
        tensors: the weights.
        source: where they come from, for the message.

    Raises:
        InputError: the weights do not fit; the message lists what does not.
    """
    own = model.state_dict()
    missing = sorted(own.keys() - tensors.keys() - _counters(model).keys())
    unexpected = sorted(tensors.keys() - own.keys())
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(own[key].shape)}"
        for key in sorted(own.keys() & tensors.keys())
        if tensors[key].shape != own[key].shape
    ]
    problems = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if keys
    ]
    if problems:
        raise InputError(f"{source} does not fit {type(model).__name__}: {'; '.join(problems)}.")


def _counters(model: nn.Module) -> dict[str, Tensor]:
    return {key: value for key, value in model.state_dict().items() if key.endswith(_COUNTER)}
