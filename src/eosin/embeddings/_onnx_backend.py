"""Embeddings by ONNX Runtime."""

import importlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eosin.embeddings._capture import capture
from eosin.embeddings._pieces import in_pieces, piece_size
from eosin.encoders import Encoder
from eosin.engine.precision import Precision
from eosin.errors import InputError, UsageError


class OnnxBackend:
    """ONNX Runtime with as many threads as PyTorch, in fp32, one request at a time of a fixed size.

    Args:
        encoder: in evaluation mode, on the CPU.
        precision: `fp32` or `auto`; ONNX Runtime has no kernels of its own for others on a CPU.
        batch_size: the most images of a call.

    Raises:
        UsageError: another number format is asked for.
        InputError: packages are missing, or this encoder cannot be exported.
    """

    name = "onnxruntime"
    precision = "fp32"

    def __init__(self, encoder: Encoder, precision: Precision, batch_size: int) -> None:
        if precision not in ("auto", "fp32"):
            raise UsageError(
                f"--backend onnxruntime computes in fp32; leave --precision {precision} out, or "
                "take another back end."
            )
        try:
            runtime = importlib.import_module("onnxruntime")
            for exporter in ("onnx", "onnxscript"):
                importlib.import_module(exporter)
        except ImportError as error:
            raise InputError(
                f'{error.name} is not installed; run pip install "eosin[onnx]", or leave --backend '
                "onnxruntime out."
            ) from None
        self._piece = piece_size(batch_size)
        try:
            self._session = _open_session(runtime, encoder, self._piece)
        except Exception as error:  # the exporter and the runtime have errors of many classes
            line = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
            raise InputError(
                f"ONNX Runtime cannot take {encoder.name}: {line}. Leave --backend onnxruntime out."
            ) from error
        self._input: str = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeds images [B, H, W, 3] as [B, D]."""
        return in_pieces(self._embed_piece, batch, self._piece)

    def _embed_piece(self, piece: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self._session.run(None, {self._input: piece})[0]


def _open_session(runtime: Any, encoder: Encoder, piece: int) -> Any:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads sleep, since others decode the next images meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="eosin-onnx-") as folder:
        # The exporter warns of what PyTorch is going to change in it.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(capture(encoder, piece), dynamo=True, verbose=False)
        assert program is not None
        path = Path(folder) / "encoder.onnx"
        # By a file, since weights above 2 GB do not fit into one message.
        program.save(path, external_data=True)
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
