"""Runs a function in several processes that Gloo connects, as `torchrun` would."""

import os
import socket
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing as mp

from eosin import plugins
from eosin.engine import distributed

_PRELOADED = ["torch", "torch.distributed", "timm", "numpy", "eosin.encoders", "tests.ranks"]
_PRELOADED += ["eosin.pretrain.run"]
_PRELOADED += [f"eosin.methods.{name}" for name in plugins.names("methods")]


def run_on_ranks(world_size: int, function: Callable[..., Any], folder: Path, *args: Any) -> list:
    """Calls `function(*args)` in each of `world_size` processes and gives what each returns.

    The processes have one thread each. With one process nothing is started or connected.

    Args:
        world_size: number of processes.
        function: a function of a module, since the processes import it.
        folder: an empty folder for what passes between the processes.
        args: of the function; tensors and plain values.

    Raises:
        AssertionError: a process failed; with what it printed.
    """
    if world_size == 1:
        return [function(*args)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    # Forked from a server that has imported what takes seconds, and started no threads yet.
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    processes = [
        context.Process(target=_enter, args=(rank, world_size, port, function, folder, args))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        if process.is_alive():
            process.kill()
    failures = [path.read_text() for path in sorted(folder.glob("*.error"))]
    assert not failures and not any(p.exitcode for p in processes), "\n".join(failures)
    return [
        torch.load(folder / f"{rank}.pt", weights_only=False)  # written by the processes above
        for rank in range(world_size)
    ]


def _enter(
    rank: int, world_size: int, port: int, function: Callable, folder: Path, args: tuple
) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
    }
    torch.set_num_threads(1)
    try:
        with distributed.process_group(torch.device("cpu")):
            torch.save(function(*args), folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.error").write_text(traceback.format_exc())
        raise
