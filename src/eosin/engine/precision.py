"""Number formats: bfloat16 where the hardware computes in it, float32 elsewhere, or float16."""

import os
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from eosin.errors import UsageError

Precision = Literal["auto", "bf16", "fp16", "fp32"]
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(precision: Precision, device: torch.device) -> Precision:
    """Turns `auto` into bf16 where the device has instructions for it, and into fp32 elsewhere."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = _cpu_has_bf16()
    return "bf16" if has_bf16 else "fp32"


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context that forward passes run in; losses leave it by computing in float32."""
    resolved = resolve(precision, device)
    return torch.autocast(device.type, dtype=_HALF.get(resolved), enabled=resolved in _HALF)


def build_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Builds what keeps small gradients from vanishing in float16; it does nothing otherwise."""
    return torch.amp.GradScaler(device.type, enabled=resolve(precision, device) == "fp16")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widens half precision to float32, which losses compute in; float64 stays as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def default_device() -> torch.device:
    """The GPU of this process, by its number on the machine, or the CPU where there is none.

    Raises:
        UsageError: more processes were started on this machine than it has GPUs.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise UsageError(
            f"torchrun started process {number + 1} on this machine, which has {count} GPUs; "
            f"give --nproc-per-node {count}."
        )
    return torch.device("cuda", number)
