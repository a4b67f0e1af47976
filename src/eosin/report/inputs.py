"""What a report shows beside results: training curves and pictures, read and checked."""

import base64
import json
import math
from dataclasses import dataclass
from pathlib import Path

from eosin.errors import InputError

PICTURE_LIMIT_MB = 4

_KINDS = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The loss of a training run over its updates."""

    name: str
    updates: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An image inside the page."""

    title: str
    data_uri: str


def read_curve(name: str, path: Path) -> Curve:
    """Reads a log of JSON lines; lines without `update` and a finite `loss` are passed over.

    Raises:
        InputError: the file does not exist, a line is not JSON, or no line holds a loss.
    """
    if not path.is_file():
        raise InputError(f"Training curve {path} does not exist; give the log of a run.")
    points: dict[int, float] = {}
    # What follows the last line end is empty, or a line that a killed run left in half.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            update, loss = entry.get("update"), entry.get("loss")
        except (json.JSONDecodeError, AttributeError):
            raise InputError(
                f"{path}, line {number}: not a JSON object, so not a training log."
            ) from None
        if isinstance(update, int) and isinstance(loss, (int, float)) and math.isfinite(loss):
            points[update] = float(loss)
    if not points:
        raise InputError(f'{path} has no line with "update" and "loss"; is it a training log?')
    updates = sorted(points)
    return Curve(
        name=name, updates=tuple(updates), losses=tuple(points[update] for update in updates)
    )


def read_picture(title: str, path: Path) -> Picture:
    """Reads a PNG or JPEG file as it is.

    Raises:
        InputError: the file does not exist, is neither PNG nor JPEG, or is too large for a page.
    """
    if not path.is_file():
        raise InputError(f"Picture {path} does not exist.")
    if path.stat().st_size > PICTURE_LIMIT_MB * 1_000_000:
        raise InputError(f"Picture {path} is over {PICTURE_LIMIT_MB} MB; save it smaller.")
    content = path.read_bytes()
    for start, kind in _KINDS.items():
        if content.startswith(start):
            encoded = base64.b64encode(content).decode()
            return Picture(title=title, data_uri=f"data:{kind};base64,{encoded}")
    raise InputError(f"Picture {path} is neither PNG nor JPEG.")
