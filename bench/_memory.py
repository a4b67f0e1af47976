"""How much memory something takes while it runs, in a process of its own (Linux)."""

import subprocess
import sys

_SCRIPT = """
from pathlib import Path
import torch
{setup}

def peak_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = peak_kb()
{statement}
print((peak_kb() - before) / 1024)
"""


def extra_memory_mb(setup: str, statement: str) -> float:
    """Runs two pieces of Python and gives the greatest resident memory that the second adds.

    Args:
        setup: imports, what is made beforehand, and a small run, for what comes only once.
        statement: what is measured.
    """
    script = _SCRIPT.format(setup=setup, statement=statement)
    return float(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    )
