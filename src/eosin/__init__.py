"""Self-supervised learning for computational pathology, from slides to a comparison."""

import importlib
from typing import Any

__version__ = "0.1.0.dev0"

_HOMES = {
    "InputError": "eosin.errors",
    "TileStore": "eosin.store.tile_store",
    "embed_images": "eosin.embeddings.embed",
    "evaluate": "eosin.tasks._evaluate",
    "export_encoder": "eosin.weights.export",
    "load_encoder": "eosin.weights.load",
    "open_slide": "eosin.slides.reader",
    "pretrain_encoder": "eosin.pretrain.run",
    "tile": "eosin.tiling.run",
    "write_report": "eosin.report.html",
}

__all__ = [*sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used, so that `import eosin` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'eosin' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
