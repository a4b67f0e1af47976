"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress import TaskID as _TaskID

_SECONDS_BETWEEN_LINES = 10.0


class Bar:
    """Shows how far a piece of work is, at which rate, and how long it will still take.

    Used as a context manager. Everything goes to standard error, so that standard output holds
    results alone.

    Args:
        title: what is going on, such as `"tiling"`.
        total: how many units there are.
        unit: what is counted, in the plural, such as `"slides"`.
        done: units that an earlier run finished; they do not count towards the rate.
        is_hidden: shows nothing, as all processes but one of those that work together do.
    """

    def __init__(
        self, title: str, total: int, unit: str, done: int = 0, *, is_hidden: bool = False
    ) -> None:
        self._is_hidden = is_hidden
        self._title, self._total, self._unit = title, total, unit
        self._done: float = done
        self._done_before = done
        self._note = ""
        self._started = self._last_line = time.monotonic()
        self._console = Console(stderr=True)
        self._rich: Progress | None = None
        self._task: _TaskID | None = None

    def __enter__(self) -> "Bar":
        self._started = self._last_line = time.monotonic()
        if self._console.is_terminal and not self._is_hidden:
            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(self._unit),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[note]}"),
                console=self._console,
            )
            self._rich.start()
            self._task = self._rich.add_task(
                self._title, total=self._total, completed=int(self._done), note="", rate=""
            )
        return self

    def advance(self, units: float = 1, note: str = "") -> None:
        """Counts `units` as done, also parts of one; `note` is shown behind the figures."""
        self._done += units
        self._note = note or self._note
        if self._rich is not None and self._task is not None:
            self._rich.update(self._task, advance=units, note=self._note, rate=self._rate_text())
        elif time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._line()

    def _rate(self) -> float:
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return (self._done - self._done_before) / elapsed

    def _rate_text(self) -> str:
        rate = self._rate()
        return f"{rate:,.1f}/s" if rate >= 1 else f"{60 * rate:,.1f}/min"

    def _line(self) -> None:
        if self._is_hidden:
            return
        rate = self._rate()
        left = f", {(self._total - self._done) / rate:,.0f} s left" if rate > 0 else ""
        note = f"  {self._note}" if self._note else ""
        print(
            f"{self._title}: {int(self._done + 1e-6):,}/{self._total:,} {self._unit}, "
            f"{self._rate_text()}{left}{note}",
            file=sys.stderr,
            flush=True,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
        else:
            self._line()
