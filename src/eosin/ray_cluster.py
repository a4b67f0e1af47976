"""Joining a Ray cluster, and what goes wrong there said in one sentence."""

import contextlib
import importlib
import io
import logging
import os
import platform
import re
import socket
import sys
import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from eosin.errors import InputError, UsageError
from eosin.provenance import available_cores

_SECONDS_TO_ANSWER = 10.0
_ADDRESS = re.compile(r"(ray://)?(?P<host>[^/\s]+):(?P<port>\d{1,5})")

# Nobody asked to send statistics home, and its forecast of a change is of no use to our users.
_SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def import_ray() -> Any:
    """Imports Ray, which is an extra.

    Raises:
        UsageError: it is not installed.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise UsageError(
            f'--ray needs Ray, which cannot be imported ({error}): pip install "eosin[ray]"'
        ) from error


@contextlib.contextmanager
def connected(ray: Any, address: str) -> Generator[None]:
    """Joins the cluster, unless the caller has joined one before.

    Args:
        ray: the module.
        address: `auto` for the cluster that this machine belongs to, `host:port` or
            `ray://host:port` for another one, `local` to start one on this machine.

    Raises:
        UsageError: the address is none.
        InputError: there is no such cluster.
    """
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {"num_cpus": available_cores(), "include_dashboard": False}
    elif address != "auto":
        _check_answers(address)
    try:
        ray.init(address, **options)
    except (
        ConnectionError,
        RuntimeError,
        ValueError,
        ImportError,
        ray.exceptions.RayError,
    ) as error:
        raise InputError(_why_not_joined(address, error)) from error
    quiet: Any = _WithoutRay(sys.stdout)
    with contextlib.redirect_stdout(quiet):
        try:
            yield
        finally:
            # At its end, Ray writes from this thread what it has held back to be counted.
            with contextlib.redirect_stdout(io.StringIO()):
                ray.shutdown()


def enter_folder(folders: Sequence[Path], what: str) -> None:
    """Goes to the first folder, in a process of the cluster, and looks whether it sees all.

    Args:
        folders: that of the command, and others that the work needs.
        what: what else must be seen from everywhere, for the message.

    Raises:
        InputError: this node does not see a folder.
    """
    try:
        os.chdir(folders[0])
        for folder in folders:
            # Without this, a node would make the folder, and its work would be lost there.
            folder.stat()
    except OSError as error:
        raise InputError(
            f"The Ray node {platform.node()} does not see {error.filename} ({error.strerror})."
            f" {what} and the folder in which the command is given must lie on a file system"
            " that all nodes share, under the same paths."
        ) from error


def as_cause(ray: Any, error: Exception) -> Exception:
    """Turns what `ray.get` raised for work that could not be done into what the work raised.

    Args:
        ray: the module.
        error: a `RayError`.

    Returns:
        The exception that the work itself raised, or an InputError that tells why it was not run.
    """
    if isinstance(error, ray.exceptions.RayTaskError):
        cause: Any = getattr(error, "cause", None)
        if isinstance(cause, Exception) and not isinstance(cause, ray.exceptions.RayError):
            cause.add_note(str(error))
            return cause
        return InputError(_why_not_run(_lines(error)[-1]))
    return InputError(_why_not_run(_lines(error)[0]))


def _why_not_joined(address: str, error: Exception) -> str:
    if address == "auto" and isinstance(error, ConnectionError):
        return (
            "--ray auto: this machine belongs to no Ray cluster; start one with `ray start --head`,"
            " give the host:port of one, or use --ray local."
        )
    return (
        f"--ray {address}: this Ray cluster cannot be joined ({_lines(error)[0]}); give the"
        " host:port of a cluster that this machine belongs to, or the ray://host:port of another"
        ' one (pip install "ray[client]").'
    )


class _WithoutRay:
    """Standard output without the pages that a thread of Ray writes there when a process dies."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            return len(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _check_answers(address: str) -> None:
    """Refuses an address where nobody listens; Ray itself would try for minutes."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UsageError(
            f"--ray is {address!r}; it must be auto, local, host:port or ray://host:port."
        )
    try:
        host, port = parts["host"].strip("[]"), int(parts["port"])
        socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--ray {address}: nothing answers there ({error}); `ray status` on the head node tells"
            " its address."
        ) from error


def _why_not_run(reason: str) -> str:
    return (
        f"The Ray cluster cannot run the work ({reason}); every node needs the same versions of"
        " Python, Ray and Eosin, and whatever else the command names."
    )


def _lines(error: BaseException) -> list[str]:
    lines = str(error).strip().splitlines()
    return [line.strip().rstrip(".") for line in lines] or [type(error).__name__]
