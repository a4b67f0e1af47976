"""Requests to stop, as a cluster's scheduler or Ctrl-C sends them."""

import contextlib
import signal
import threading
from collections.abc import Callable, Generator

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextlib.contextmanager
def stop_request() -> Generator[Callable[[], bool]]:
    """Turns SIGTERM, SIGINT and SIGUSR1 into a request to stop after the current update.

    SLURM sends SIGUSR1 ahead of a job's time limit where `--signal=USR1@SECONDS` asks for it.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    previous = {number: signal.signal(number, lambda *_: requested.set()) for number in _SIGNALS}
    try:
        yield requested.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
