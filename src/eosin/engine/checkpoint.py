"""Checkpoints: everything that the next update depends on, written whole or not at all."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eosin import atomic
from eosin.errors import InputError

FORMAT = 1


def save_checkpoint(folder: Path, update: int, state: dict[str, Any], keep: int) -> Path:
    """Writes the state after `update` updates and removes all but the `keep` newest checkpoints.

    Args:
        folder: where checkpoints lie.
        update: how many updates are done.
        state: tensors and plain values only, so that it loads without unpickling objects.
        keep: how many to keep.
    """
    path = folder / f"update-{update:08d}.pt"
    with atomic.replacing(path) as temporary:
        torch.save({"format": FORMAT, "update": update, "rng": rng_state(), **state}, temporary)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """Lists the checkpoints of a folder, oldest first."""
    return sorted(folder.glob("update-*.pt"))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint, tensors and plain values only.

    Raises:
        InputError: the file is damaged or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); delete it to resume from the "
            "checkpoint before it."
        ) from None
    if state.get("format") != FORMAT:
        raise InputError(
            f"{path} has checkpoint format {state.get('format')}, this version reads {FORMAT}."
        )
    return state


def rng_state() -> dict[str, Any]:
    """The state of all global random generators, as tensors and plain values."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (
            str(name),
            torch.from_numpy(np.array(keys)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Puts all global random generators back to a state that `rng_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy(), position, has_gauss, cached))
