"""An encoder with a new linear layer, as the training loop takes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import DropPath  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.encoders._base import create_timm_model
from eosin.engine import distributed
from eosin.engine.schedules import Schedule, constant, warmup_cosine
from eosin.errors import UsageError
from eosin.finetuning.layers import parameter_groups
from eosin.protocols._base import FineTuning


@dataclass(frozen=True, kw_only=True)
class Loss:
    """This process's share of the cross-entropy: its mean over the processes is the batch's."""

    total: Tensor
    parts: Mapping[str, Tensor]


class Classifier(nn.Module):
    """An encoder and a linear layer on its embeddings, both trained.

    The layer starts at zero: the first loss is log(classes) whatever the embeddings' scale, nothing
    about it is random, and the encoder is not pulled in random directions before the layer has
    learnt any. It computes in float32, as it does when embeddings of the trained encoder are
    scored.

    Args:
        encoder: to be trained; a copy that nobody else uses.
        n_classes: classes C.
        settings: how it is trained.
        learning_rate: peak for a batch of 256.
        updates: length of the training.
        batch_size: images of an update over all processes.
    """

    def __init__(
        self,
        encoder: Encoder,
        n_classes: int,
        settings: FineTuning,
        *,
        learning_rate: float,
        updates: int,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.embed_dim, n_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self._settings, self._batch_size = settings, batch_size
        self._peak, self._updates = learning_rate * batch_size / 256, updates

    def groups(self) -> list[dict[str, Any]]:
        """Gives the parameter groups for the optimizer."""
        settings = self._settings
        groups = parameter_groups(
            self.encoder, self.head, settings.layer_decay, settings.weight_decay
        )
        return [{**group, "nesterov": True} for group in groups] if self._is_sgd else groups

    @property
    def _is_sgd(self) -> bool:
        return self._settings.optimizer == "sgd"

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """Learning rate and weight decay of each group at each update."""
        return self._schedules

    @cached_property
    def _schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        return {
            group["name"]: {
                "lr": self._rate(group["scale"]),
                "weight_decay": constant(group["decay"]),
            }
            for group in self.groups()
        }

    def _rate(self, scale: float) -> Schedule:
        """Rises to the peak over the warm-up, whose first update learns too, and falls to 0."""
        warm_up = round(self._settings.warm_up * self._updates)
        peak = self._peak * scale
        start = peak / max(warm_up, 1)
        return warmup_cosine(peak, 0.0, self._updates, warm_up, start=start, through_peak=True)

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """Gives the loss of normalised images [B, 3, H, W] with their labels [B]."""
        images, labels = views
        features = self.encoder.embed(images)
        with torch.autocast(images.device.type, enabled=False):
            scores = self.head(features.float())
            # Processes may have shares of different size, and the engine takes their plain mean.
            weight = distributed.world_size() / self._batch_size
            total = F.cross_entropy(scores, labels, reduction="sum") * weight
            hits = (scores.argmax(1) == labels).sum() * weight
        return Loss(total=total, parts={"accuracy": hits})

    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        """Nothing is due."""

    def on_gradients(self, update: int) -> None:
        """Nothing is due."""

    def after_update(self, update: int) -> None:
        """Nothing is due."""


def trainable_copy(encoder: Encoder, drop_path: float) -> Encoder:
    """Copies an encoder, all of whose weights can then be trained, also where it was frozen.

    Weights that have no part in its embedding, such as a norm that its pooling passes over, stay
    fixed: several processes would wait for their gradients.

    Args:
        encoder: stays as it is.
        drop_path: rate of stochastic depth at the last block; 0: as in the encoder.

    Raises:
        UsageError: the architecture has no stochastic depth.
    """
    copied = encoder.thawed()
    if drop_path:
        _drop_paths(copied, drop_path)
    _fix_unused(copied)
    return copied


def _drop_paths(encoder: Encoder, rate: float) -> None:
    """Takes over the stochastic depth of a new model that is built with it."""
    refused = UsageError(
        f"{encoder.name}: {encoder.architecture} has no stochastic depth; use a protocol without."
    )
    arguments = {**encoder.card.model_args, "drop_path_rate": rate}
    try:
        fresh = create_timm_model(encoder.architecture, arguments, seed=0)
    except TypeError:
        raise refused from None
    found = {name: each for name, each in fresh.named_modules() if isinstance(each, DropPath)}
    if not found:
        raise refused
    for name, module in found.items():
        parent, _, leaf = name.rpartition(".")
        setattr(encoder.model.get_submodule(parent), leaf, module)


def _fix_unused(encoder: Encoder) -> None:
    encoder.eval()
    device = next(encoder.parameters()).device
    blank = torch.zeros(1, 3, encoder.input_px, encoder.input_px, device=device)
    with torch.enable_grad():
        cast(Any, encoder.embed(blank).sum()).backward()
    for parameter in encoder.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None
