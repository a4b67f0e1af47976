"""Embeddings by PyTorch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import GraphModule

from eosin.embeddings import _fusing
from eosin.embeddings._capture import capture, network_of
from eosin.embeddings._class_token import compute_class_token_alone
from eosin.embeddings._pieces import in_pieces, piece_size
from eosin.encoders import Encoder
from eosin.engine import precision as formats
from eosin.engine.precision import Precision

# Rewriting takes about as long as it saves on so many images.
_FEW_IMAGES = 256
_TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.01}


class TorchBackend:
    """PyTorch on the device: a rewritten network on a CPU, the encoder as it is on a GPU.

    On a CPU the batch goes through in pieces of four images a thread, whose feature maps stay in
    the cache. The network is rewritten as far as `_fusing` and `_class_token` can, is compared with
    the encoder on random pixels, and is left where it differs or where PyTorch cannot record it.

    Args:
        encoder: in evaluation mode, on the device.
        precision: number format; `auto` is bf16 where the device computes in it.
        batch_size: the most images of a call.
        device: where to compute.
        images: how many images there will be in all; None: many.
    """

    name = "torch"

    def __init__(
        self,
        encoder: Encoder,
        precision: Precision,
        batch_size: int,
        device: torch.device,
        images: int | None,
    ) -> None:
        self.precision = str(formats.resolve(precision, device))
        self._format: Precision = formats.resolve(precision, device)
        self._encoder, self._device = encoder, device
        self._network: GraphModule | None = None
        if device.type == "cpu":
            self._piece = piece_size(batch_size)
            if images is None or images > _FEW_IMAGES:
                self._network = self._rewrite()

    @property
    def is_rewritten(self) -> bool:
        """Whether a network that does less work stands in for the encoder."""
        return self._network is not None

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeds images [B, H, W, 3] as [B, D]."""
        with torch.inference_mode():
            if self._device.type == "cpu":
                is_fixed = self._network is not None
                return in_pieces(self._embed_piece, batch, self._piece, fills_up=is_fixed)
            pixels = torch.from_numpy(np.require(batch, requirements=["C", "W"])).pin_memory()
            pixels = pixels.to(self._device, non_blocking=True)
            return self._embed(pixels).cpu().numpy()

    def _embed_piece(self, piece: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(piece)
        if self._network is None:
            return self._embed(pixels).numpy()
        with formats.autocast(self._format, self._device):
            return self._network(pixels).float().numpy()

    def _embed(self, pixels: Tensor) -> Tensor:
        """Embeds uint8 images [B, H, W, 3] by the encoder as it is."""
        with formats.autocast(self._format, self._device):
            images = self._encoder.normalise(pixels.permute(0, 3, 1, 2))
            return self._encoder.embed(images).float()

    def _rewrite(self) -> GraphModule | None:
        """Gives a network that does less and computes the same, or None."""
        in_fp32 = self._format == "fp32" and _fusing.is_possible()
        if not in_fp32 and self._encoder.pooling != "cls":
            return None
        try:
            network = network_of(capture(self._encoder, self._piece))
            changed = compute_class_token_alone(network)
            if in_fp32:
                changed = _fusing.pack_convolutions(network) > 0 or changed
            return network if changed and self._agrees(network) else None
        except Exception:  # whatever PyTorch's recorder or an operator of another version raises
            return None

    def _agrees(self, network: GraphModule) -> bool:
        """Compares a network with the encoder on random pixels."""
        side = self._encoder.input_px
        random = torch.Generator().manual_seed(0)
        shape = (self._piece, side, side, 3)
        pixels = torch.randint(256, shape, generator=random, dtype=torch.uint8)
        with torch.inference_mode():
            expected = self._embed(pixels)
            with formats.autocast(self._format, self._device):
                found = network(pixels).float()
        scale = expected.square().mean().sqrt()
        return bool((found - expected).abs().max() <= _TOLERANCE[self._format] * scale)
