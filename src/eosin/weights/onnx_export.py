"""ONNX files that hold the normalisation too, checked against PyTorch before anyone uses them."""

import contextlib
import importlib.util
import io
import logging
import math
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eosin import atomic
from eosin.encoders import Encoder
from eosin.errors import InputError

INPUT, OUTPUT = "images", "embedding"
TOLERANCE = 1e-4
"""How far an embedding may be from PyTorch's, as a share of its greatest value."""

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
# Protocol buffers end at 2 GiB; beyond, the weights are in a second file.
_MOST_BYTES_IN_ONE_FILE = 1_900_000_000
_CHECKED_BATCHES = (1, 3)


def require_onnx() -> None:
    """Makes sure that the packages of the extra are installed.

    Raises:
        InputError: one is missing.
    """
    missing = [package for package in _PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f'ONNX export needs {", ".join(missing)}; install it with: pip install "eosin[onnx]"'
        )


class _FromPixels(nn.Module):
    """An encoder with its normalisation, from uint8 images [B, 3, H, W] to embeddings [B, D]."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(encoder.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(encoder.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.embed((images.float() / 255 - self.mean) / self.std)


def export_onnx(encoder: Encoder, path: Path, metadata: Mapping[str, str] | None = None) -> float:
    """Writes an encoder as ONNX and compares what ONNX Runtime computes with PyTorch.

    The input `images` is uint8 `[batch, 3, px, px]` in RGB, for any batch, so that no
    normalisation can be forgotten or done twice; the output `embedding` is float32 `[batch, D]`.

    Args:
        encoder: in evaluation mode on the CPU, with float32 weights.
        path: the file; weights beyond 2 GB lie in `<path>.data` beside it.
        metadata: what is noted in the file besides name, pooling and statistics.

    Returns:
        The largest difference to PyTorch, as a share of the greatest value of an embedding.

    Raises:
        InputError: a package is missing, the encoder cannot be converted, or the check fails;
            nothing is left at `path`.
    """
    require_onnx()
    model = _FromPixels(encoder).eval()
    try:
        _convert(model, path, {**_own_metadata(encoder), **(metadata or {})})
        difference = _compare(model, path)
        if not difference <= TOLERANCE:
            raise InputError(
                f"{path.name} was not kept: ONNX Runtime's embeddings of {encoder.name} differ "
                f"from PyTorch's by {difference:.1e}, and {TOLERANCE:.0e} is the most."
            )
    except BaseException:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.data").unlink(missing_ok=True)
        raise
    return difference


def _own_metadata(encoder: Encoder) -> dict[str, str]:
    return {
        "name": encoder.name,
        "architecture": encoder.architecture,
        "pooling": encoder.pooling,
        "input": "uint8 RGB; the normalisation is inside",
        "mean": ",".join(map(str, encoder.mean)),
        "std": ",".join(map(str, encoder.std)),
        "weights_sha256": encoder.weights_sha256(),
    }


def _convert(model: _FromPixels, path: Path, metadata: Mapping[str, str]) -> None:
    images = _random_images(2, model.encoder.input_px)
    size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    is_large = size > _MOST_BYTES_IN_ONE_FILE
    try:
        with _quiet(), torch.inference_mode():
            program = torch.onnx.export(
                model,
                (images,),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                dynamo=True,
                verbose=False,
            )
            assert program is not None
            program.model.metadata_props.update(metadata)
            if is_large:
                program.save(path, external_data=True)
            else:
                with atomic.replacing(path) as temporary:
                    program.save(temporary, external_data=False)
    except OSError:
        raise
    except Exception as error:  # the exporter wraps whatever it meets
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise InputError(
            f"{model.encoder.name} ({model.encoder.architecture}) cannot be converted to ONNX: "
            f"{first_line}"
        ) from None


def _compare(model: _FromPixels, path: Path) -> float:
    """The largest difference over batches of several sizes, as a share of the greatest value."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )
    worst = 0.0
    for batch in _CHECKED_BATCHES:
        images = _random_images(batch, model.encoder.input_px)
        with torch.inference_mode():
            expected = model(images)
        found = torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        if found.shape != expected.shape:
            return math.inf
        difference = (found - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
        worst = max(worst, float(difference.nan_to_num(nan=math.inf)))
    return worst


def _random_images(batch: int, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keeps the exporter's warnings and log, which speak to its developers, from the user."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
