"""What computes embeddings: PyTorch, OpenVINO or ONNX Runtime behind one interface.

`auto` is PyTorch. OpenVINO and ONNX Runtime are a little faster on convolutional networks and not
on vision transformers, take longer to start, and give other last digits (see
docs/decisions/0030-embedding-backends.md), so they are used where they are asked for by name.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from eosin.embeddings._onnx_backend import OnnxBackend
from eosin.embeddings._openvino_backend import OpenVinoBackend
from eosin.embeddings._torch_backend import TorchBackend
from eosin.encoders import Encoder
from eosin.engine.precision import Precision
from eosin.errors import UsageError

BACKENDS = ("auto", "torch", "onnxruntime", "openvino")


class Backend(Protocol):
    """An encoder that is ready to embed batches of pixels."""

    @property
    def name(self) -> str:
        """One of `BACKENDS`, never `auto`."""
        ...

    @property
    def precision(self) -> str:
        """The number format that really computes: `fp32`, `bf16` or `fp16`."""
        ...

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeds RGB images [B, H, W, 3] of the encoder's input size as [B, D]."""
        ...


def open_backend(
    encoder: Encoder,
    *,
    backend: str,
    precision: Precision,
    batch_size: int,
    device: torch.device,
    images: int | None = None,
) -> Backend:
    """Makes an encoder ready; the encoder stays as it is.

    Args:
        encoder: on the device; one in training mode is copied first.
        backend: one of `BACKENDS`.
        precision: number format; `auto` is bf16 where the hardware computes in it, else fp32.
        batch_size: the most images of a call; fewer may come at any time.
        device: where to compute; OpenVINO and ONNX Runtime compute on the CPU.
        images: how many images there will be in all, if known. For few images PyTorch takes no
            time to rewrite the network. Give the same number to all processes that share them.

    Raises:
        UsageError: there is no such back end, or it cannot compute on this device or in this
            number format.
        InputError: its package is not installed, or it cannot convert this encoder.
    """
    if backend not in BACKENDS:
        raise UsageError(f"--backend {backend} must be one of {', '.join(BACKENDS)}.")
    if encoder.training:
        encoder = encoder.copied().eval()
    if backend in ("auto", "torch"):
        return TorchBackend(encoder, precision, batch_size, device, images)
    if device.type != "cpu":
        raise UsageError(
            f"--backend {backend} computes on the CPU, and here is a GPU; leave the option out, or "
            "hide the GPU by CUDA_VISIBLE_DEVICES= in front of the command."
        )
    if backend == "openvino":
        return OpenVinoBackend(encoder, precision, batch_size)
    return OnnxBackend(encoder, precision, batch_size)
