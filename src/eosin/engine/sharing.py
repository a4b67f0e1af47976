"""One run in several processes that `torchrun` started: who does what, and how all end together."""

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from eosin.engine import distributed
from eosin.errors import Diverged, InputError, Interrupted, UsageError

_Result = TypeVar("_Result")
_Told = tuple[str, str]

_KINDS: dict[str, type[InputError]] = {
    "usage": UsageError,
    "interrupted": Interrupted,
    "input": InputError,
    "diverged": Diverged,
}
# What one process ends with since it was asked to, or since another has failed, is told last.
_ORDER = ("usage", "input", "diverged", "other", "interrupted")


class ToldElsewhere(Interrupted):
    """Another process tells why the run has ended."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def share(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Gives this process its part: the numbers in a row that follow those of the rank before."""
    return np.array_split(numbers, distributed.world_size())[distributed.rank()]


class Flag:
    """A file that tells the other processes to stop, since collectives would wait for them.

    Args:
        path: on a file system that all processes share.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def clear(self) -> None:
        """Forgets what an earlier run has left; all processes must call it."""
        if distributed.is_main():
            self._path.unlink(missing_ok=True)
        distributed.barrier()

    def hoist(self) -> None:
        """Tells the others."""
        if distributed.is_distributed():
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._path.touch()

    def is_up(self) -> bool:
        """Whether a process has told so."""
        return distributed.is_distributed() and self._path.exists()


def remove_folder(folder: Path) -> None:
    """Removes what a job has kept, once all processes are done with it."""
    distributed.barrier()
    if distributed.is_main():
        shutil.rmtree(folder, ignore_errors=True)
    distributed.barrier()


def together(step: Callable[[], _Result], flag: Flag | None = None) -> _Result:
    """Does one step in every process; where it fails in one, it fails in all, and one tells why.

    The main process raises what the first failing process has met, that process raises it too
    unless it was foreseen, and the others a `ToldElsewhere`; but all raise a `Diverged`, which a
    caller may go on from. With one process this is the step.

    Args:
        step: what to do; it may not use collectives.
        flag: what a failing process hoists, so that long steps of others end soon.

    Raises:
        InputError: of the kind that the failing process met.
    """
    if not distributed.is_distributed():
        return step()
    result: list[_Result] = []
    failure: BaseException | None = None
    try:
        result.append(step())
    except (Exception, KeyboardInterrupt) as error:
        failure = error
        if flag is not None:
            flag.hoist()
    told: list[_Told | None] = distributed.gather_objects(_tell(failure))
    failed = [(rank, one) for rank, one in enumerate(told) if one is not None]
    if not failed:
        return result[0]
    first, (kind, message) = min(failed, key=lambda each: (_ORDER.index(each[1][0]), each[0]))
    if kind == "other" and first == distributed.rank() and failure is not None:
        raise failure
    raised = _KINDS.get(kind, InputError)(message)
    if distributed.is_main() or isinstance(raised, Diverged):
        raise raised from failure
    raise ToldElsewhere(message, raised.exit_code)


def _tell(failure: BaseException | None) -> _Told | None:
    if failure is None:
        return None
    where = f"process {distributed.rank()} of {distributed.world_size()}"
    match failure:
        case UsageError():
            return "usage", str(failure)
        case Interrupted():
            return "interrupted", str(failure)
        case Diverged():
            return "diverged", str(failure)
        case InputError():
            return "input", str(failure)
        case OSError():
            return "input", f"{failure} ({where})."
        case KeyboardInterrupt():
            return "interrupted", "Stopped; the same command goes on."
        case _:
            return "other", f"{where} failed: {type(failure).__name__}: {failure}"
