"""Number formats: bfloat16 where the hardware computes in it, float32 elsewhere."""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Precision = Literal["auto", "bf16", "fp32"]


def resolve(precision: Precision, device: torch.device) -> Precision:
    """Turns `auto` into bf16 where the device has instructions for it, and into fp32 elsewhere."""
    if precision != "auto":
        return precision
    has_bf16 = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bf16()
    return "bf16" if has_bf16 else "fp32"


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context that forward passes run in; losses leave it by computing in float32."""
    return torch.autocast(
        device.type, dtype=torch.bfloat16, enabled=resolve(precision, device) == "bf16"
    )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Widens half precision to float32, which losses compute in; float64 stays as it is."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
