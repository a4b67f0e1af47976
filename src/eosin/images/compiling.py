"""Compiles pixel loops with numba: kept on disk, and run without the GIL in the caller's thread."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compiles `function` when it is first called, and keeps the result for later processes.

    The compiled code lies beside the source or, where that is read-only, in the user's cache
    folder; where that is read-only too, each process compiles anew. A kept result notices changes
    of its own file alone, so a compiled function may only call others of the same file.

    Never `parallel=True`: its pool of threads breaks under fork, and would fight with the loader's.
    """
    # Division by zero and the like must not raise, or no loop would become vector instructions.
    options: dict[str, Any] = {"nogil": True, "fastmath": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:
        return numba.njit(**options)(function)
