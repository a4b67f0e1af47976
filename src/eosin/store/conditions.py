"""Thresholds on the scores of tiles, as they are typed: `blur>1000`, `tissue>0.7`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from eosin.errors import InputError, UsageError
from eosin.store.shards import ROW_SCHEMA

NAMES = tuple(name for name in ROW_SCHEMA.names if name not in ("offset", "length", "crc32"))
"""What a threshold may be about."""

_CONDITION = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*(\S+)\s*")
_COMPARE: dict[str, Any] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Columns(Protocol):
    """What has tiles with scores."""

    def __len__(self) -> int: ...

    def column(self, name: str, /) -> npt.NDArray[Any]:
        """Gives a score of all tiles."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """One threshold."""

    name: str
    sign: str
    value: float

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.value:g}"


def parse(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Reads thresholds.

    Raises:
        UsageError: one of them is none; the message names it and what there is.
    """
    return tuple(map(_parse_one, texts))


def _parse_one(text: str) -> Condition:
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(f'--where {text!r} is not NAME<VALUE or NAME>VALUE, such as "blur>1000".')
    name, sign, number = match.groups()
    if name not in NAMES:
        raise UsageError(f"--where {text!r}: tiles have no {name}; they have {', '.join(NAMES)}.")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if value != value:
        raise UsageError(f"--where {text!r}: {number} is not a number.")
    return Condition(name, sign, value)


def choose(tiles: Columns, wanted: Sequence[Condition]) -> npt.NDArray[np.uint32]:
    """Gives the numbers of the tiles that meet every condition, in order.

    Raises:
        InputError: there is none.
    """
    kept = np.ones(len(tiles), np.bool_)
    for condition in wanted:
        kept &= _COMPARE[condition.sign](tiles.column(condition.name), condition.value)
    numbers = np.flatnonzero(kept).astype(np.uint32)
    if len(numbers) == 0:
        such = " and ".join(map(str, wanted))
        raise InputError(
            f"{tiles} has no tiles with {such}; loosen --where." if wanted else f"{tiles} is empty."
        )
    return numbers
