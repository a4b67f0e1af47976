"""Embeddings by OpenVINO, which compiles a network for the CPU that it finds."""

import importlib
import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eosin.embeddings._capture import capture
from eosin.embeddings._pieces import in_pieces, piece_size
from eosin.encoders import Encoder
from eosin.engine import precision as formats
from eosin.engine.precision import Precision
from eosin.errors import InputError

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoBackend:
    """OpenVINO with as many threads as PyTorch, one request at a time, of a fixed size.

    Args:
        encoder: in evaluation mode, on the CPU.
        precision: number format; `auto` is bf16 where the CPU computes in it. OpenVINO itself falls
            back to fp32 on a CPU that cannot compute in the format asked for.
        batch_size: the most images of a call.

    Raises:
        InputError: OpenVINO is not installed, or cannot convert this encoder.
    """

    name = "openvino"

    def __init__(self, encoder: Encoder, precision: Precision, batch_size: int) -> None:
        openvino = _import_openvino()
        self._piece = piece_size(batch_size)
        wanted = formats.resolve(precision, torch.device("cpu"))
        side = encoder.input_px
        try:
            model = openvino.convert_model(capture(encoder, self._piece))
            model.reshape([self._piece, side, side, 3])
            # "Throughput" would leave all but one core idle with one request at a time.
            settings = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": _HINTS[wanted],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            }
            compiled = openvino.Core().compile_model(model, "CPU", settings)
        except Exception as error:  # PyTorch's recorder and OpenVINO have errors of many classes
            raise InputError(
                f"OpenVINO cannot convert {encoder.name}: {_first_line(error)} Leave --backend "
                "openvino out."
            ) from error
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        self.precision = next(name for name, hint in _HINTS.items() if hint == used)
        self._request: Any = compiled.create_infer_request()

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeds images [B, H, W, 3] as [B, D]."""
        return in_pieces(self._embed_piece, batch, self._piece)

    def _embed_piece(self, piece: NDArray[np.uint8]) -> NDArray[np.float32]:
        results = self._request.infer([piece], share_inputs=True)
        # The next request writes to the same memory.
        return np.array(results[0], dtype=np.float32)


def _import_openvino() -> Any:
    # Importing OpenVINO reports to its makers, unless this package of theirs is absent.
    absent: dict[str, Any] = {"openvino_telemetry": None}
    if "openvino" not in sys.modules:
        sys.modules.update(absent)
    try:
        return importlib.import_module("openvino")
    except ImportError:
        raise InputError(
            'OpenVINO is not installed; run pip install "eosin[openvino]", or leave --backend '
            "openvino out."
        ) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0].rstrip(".")
    return f"{text or type(error).__name__}."
