"""The network as the training loop takes it, and whole images as it sees them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from eosin.engine.precision import Precision, autocast
from eosin.engine.schedules import Schedule, constant
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.loss import Loss, LossWeights, Truth, hovernet_loss
from eosin.nuclei.stitching import Maps

Image = NDArray[np.uint8]

_GROUP = "weights"


class Segmenter(nn.Module):
    """HoVer-Net in one phase of its training.

    Args:
        network: trained but for what is frozen in it.
        weights: of the loss.
        learning_rate: at the start of the phase.
        decay_at: update from which it is a tenth.
    """

    def __init__(
        self, network: HoVerNet, weights: LossWeights, learning_rate: float, decay_at: int
    ) -> None:
        super().__init__()
        self.network = network
        self._weights = weights
        self._learning_rate, self._decay_at = learning_rate, decay_at

    def groups(self) -> list[dict[str, Any]]:
        """Gives the parameter group for the optimizer."""
        trained = [each for each in self.network.parameters() if each.requires_grad]
        return [{"params": trained, "name": _GROUP}]

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """The learning rate falls in one step; there is no weight decay."""
        high, at = self._learning_rate, self._decay_at
        rate: Schedule = lambda update: high if update < at else high / 10  # noqa: E731
        return {_GROUP: {"lr": rate, "weight_decay": constant(0.0)}}

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """Gives the loss of normalised images with their targets."""
        images, foreground, hv, types = views
        outputs = self.network(images)
        with torch.autocast(images.device.type, enabled=False):
            truth = Truth(foreground=foreground, hv=hv, types=types)
            return hovernet_loss(outputs, truth, self._weights)

    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        """Nothing is due."""

    def on_gradients(self, update: int) -> None:
        """Nothing is due."""

    def after_update(self, update: int) -> None:
        """Nothing is due."""


def fix_unused(network: HoVerNet, input_px: int) -> None:
    """Fixes weights that have no part in the maps: several processes would wait for gradients."""
    was_training = network.training
    network.eval()
    device = next(network.parameters()).device
    outputs = network(torch.zeros(1, 3, input_px, input_px, device=device))
    torch.stack([each.sum() for each in outputs]).sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
    network.train(was_training)


class Predictor:
    """Gives a network's maps of uint8 windows, as `stitching` asks for them.

    Args:
        network: put into evaluation mode whenever it is asked.
        precision: number format.
        device: where the network lies.
    """

    def __init__(self, network: HoVerNet, precision: Precision, device: torch.device) -> None:
        self._network, self._device = network, device
        self._precision: Precision = precision

    @torch.no_grad()
    def __call__(self, windows: Image) -> Maps:
        """Gives the maps of windows [B, S, S, 3]."""
        was_training = self._network.training
        self._network.eval()
        pixels = torch.from_numpy(windows).movedim(-1, 1).to(self._device)
        images = self._network.encoder.normalise(pixels)
        with autocast(self._precision, self._device):
            outputs = self._network(images.contiguous(memory_format=torch.channels_last))
        self._network.train(was_training)
        return Maps(
            foreground=outputs.foreground.softmax(1)[:, 1].cpu().numpy(),
            hv=outputs.hv.cpu().numpy(),
            type_scores=outputs.types.softmax(1).cpu().numpy(),
        )
