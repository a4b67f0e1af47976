"""Encoders with weights: our exports, the released files, and those of others."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eosin.weights.catalogue import LICENCE, RELEASE_URL, RELEASED, released_statistics_note
    from eosin.weights.export import export_encoder
    from eosin.weights.listing import list_released
    from eosin.weights.load import load_encoder
    from eosin.weights.local_records import weights_folder
    from eosin.weights.released import load_released

# Lists and descriptions need no PyTorch, which takes seconds to import.
_HOMES = {
    "LICENCE": "catalogue",
    "RELEASED": "catalogue",
    "RELEASE_URL": "catalogue",
    "export_encoder": "export",
    "list_released": "listing",
    "load_encoder": "load",
    "load_released": "released",
    "released_statistics_note": "catalogue",
    "weights_folder": "local_records",
}

__all__ = [
    "LICENCE",
    "RELEASED",
    "RELEASE_URL",
    "export_encoder",
    "list_released",
    "load_encoder",
    "load_released",
    "released_statistics_note",
    "weights_folder",
]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'eosin.weights' has no attribute {name!r}")
    return getattr(importlib.import_module(f"eosin.weights.{_HOMES[name]}"), name)
