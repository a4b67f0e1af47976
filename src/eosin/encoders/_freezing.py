"""Modules that stay in evaluation mode, whoever calls `train()` on them or around them."""

from typing import Any

from torch import nn


def hold_in_evaluation(module: nn.Module) -> None:
    """Puts a module and all inside into evaluation mode for good, copies of it included.

    Each module gets a `train` of its own, since a parent, a wrapper or a training loop may reach
    any of them past its encoder, and BatchNorm in training mode moves its statistics.
    """
    for each in module.modules():
        held: Any = each
        held.training = False
        held.train = _Stay(each)


class _Stay:
    """Takes the place of a module's `train`; an object, so that it is copied and pickled with it.

    A function would go on pointing at the module that was copied.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        return self._module
