"""Folders of `eosin pretrain`: which encoder of a run is meant, and what its log says of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eosin.engine.log import read_log
from eosin.errors import InputError

_LAST, _BEST = "encoder", "best_encoder"
_SCORES = ("knn", "knn_balanced", "linear")


@dataclass(frozen=True, kw_only=True)
class FoundEncoder:
    """The folder of an exported encoder, and the run that it lies in.

    Attributes:
        folder: with `config.json` and `model.safetensors`.
        run: the folder of its run; None if it lies elsewhere.
        other: the run's other encoder, if it has one.
    """

    folder: Path
    run: Path | None = None
    other: Path | None = None


def find_encoder(folder: Path) -> FoundEncoder:
    """Finds the encoder of a run's folder, the last one if there are two, or of an exported folder.

    Raises:
        InputError: the run has none yet.
    """
    if (folder / "run.json").is_file() and not (folder / "config.json").is_file():
        if not (folder / _LAST / "config.json").is_file():
            raise InputError(
                f"{folder} is a run without an encoder: it has not ended. Resume it with the "
                "command that began it."
            )
        folder = folder / _LAST
    run = folder.resolve().parent
    if folder.resolve().name not in (_LAST, _BEST) or not (run / "run.json").is_file():
        return FoundEncoder(folder=folder)
    other = folder.parent / (_BEST if folder.resolve().name == _LAST else _LAST)
    has_other = (other / "config.json").is_file()
    return FoundEncoder(folder=folder, run=run, other=other if has_other else None)


def evaluation(run: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the scores on labelled images that a run measured of an encoder, if it measured any.

    Args:
        run: its folder.
        provenance: of the encoder; it says after how many tiles the encoder was taken.

    Returns:
        `update`, `images` (the folder's name) and the accuracies by name; empty without scores.
    """
    try:
        config = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]
        update = int(provenance["tiles_seen"]) // int(config["batch_size"])
        lines = read_log(run / "log.jsonl")
        found = next((line for line in lines if line.get("update") == update and "knn" in line), {})
        scores = {name: float(found[name]) for name in _SCORES if name in found}
        images = Path(str(config.get("monitor_on") or "")).name
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # the scores are an addition; an export does not fail for want of them
    return {"update": update, "images": images, **scores} if scores else {}
