"""Weights by name, downloaded because the user asked for it."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from eosin.errors import UsageError
from eosin.weights.released import RELEASED, Obtained, get_released


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """What is downloaded."""

    name: Annotated[str, tyro.conf.Positional]
    """A name that `eosin weights list` shows, timm/NAME or hf-hub:REPO."""
    accept_licence: bool = False
    """Accepts the licence of released weights, which is shown and asked for once."""


def get(config: Config) -> Obtained | str:
    """Downloads weights, or finds them already there.

    Returns:
        What is known of a released file; of another model, where it lies.

    Raises:
        InputError: it cannot be had, is not the right one, or its licence was not accepted.
        UsageError: the options make no sense for this name.
    """
    if config.name in RELEASED:
        return get_released(config.name, accept_licence=config.accept_licence)
    if config.accept_licence:
        raise UsageError(
            f"--accept-licence is for {', '.join(RELEASED)}; the terms of {config.name} are "
            "accepted where it is kept."
        )
    from eosin.weights.hub import fetch_model

    return str(fetch_model(config.name))
