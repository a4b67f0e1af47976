"""Checkpoints: everything that the next update depends on, written whole or not at all."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eosin import atomic
from eosin.engine import distributed
from eosin.errors import InputError

FORMAT = 2


def save_checkpoint(folder: Path, update: int, state: dict[str, Any], keep: int) -> Path:
    """Writes the state after `update` updates and removes all but the `keep` newest checkpoints.

    Every process must call it, since the generators of all are kept; the main one writes.

    Args:
        folder: where checkpoints lie.
        update: how many updates are done.
        state: tensors and plain values only, so that it loads without unpickling objects.
        keep: how many to keep.
    """
    path = folder / f"update-{update:08d}.pt"
    generators = distributed.gather_objects(_as_bytes(rng_state()))
    if distributed.is_main():
        content = {"format": FORMAT, "update": update, "rng": generators, **state}
        with atomic.replacing(path) as temporary:
            torch.save(content, temporary)
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


def restore_rng(states: list[bytes]) -> None:
    """Puts the generators of this process back, given a checkpoint's `rng`, one of each process."""
    own = io.BytesIO(states[distributed.rank()])
    _set_rng_state(torch.load(own, map_location="cpu", weights_only=True))


def _as_bytes(state: dict[str, Any]) -> bytes:
    """What can be sent between processes without unpickling objects."""
    written = io.BytesIO()
    torch.save(state, written)
    return written.getvalue()


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


def _set_rng_state(state: dict[str, Any]) -> None:
    """Puts all global random generators back to a state of `rng_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy(), position, has_gauss, cached))
