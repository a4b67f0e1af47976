"""A run of lightly's: its loop, schedule and loader of tiles that lie decoded in memory."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.scheduler import CosineWarmupScheduler
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bench import _learning_settings as settings
from bench._learning_data import order_of_tiles, read_tiles
from bench._learning_lightly import METHODS, LightlyMethod, Transform
from eosin.encoders import Encoder
from eosin.progress import Bar
from eosin.weights import load_encoder


class _Tiles(Dataset[Sequence[Tensor]]):
    """Tiles that were decoded once and lie in memory."""

    def __init__(self, tiles: np.ndarray, transform: Transform) -> None:
        self._tiles, self._transform = tiles, transform

    def __len__(self) -> int:
        return len(self._tiles)

    def __getitem__(self, index: int) -> Sequence[Tensor]:
        return self._transform(Image.fromarray(self._tiles[index]))


def pretrain(
    method: str, lr: float, seed: int, updates: int, tiles: Path, folder: Path
) -> tuple[Encoder, list[float]]:
    """Trains as lightly's users do, from our initial encoder and with our order of tiles.

    Returns:
        The encoder to evaluate, and the loss of each update.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    torch.manual_seed(seed)
    encoder = load_encoder(settings.initial_encoder(method, seed, folder / "init"))
    module = METHODS[method](encoder, updates).train()
    module = module.to(memory_format=torch.channels_last)
    optimizer = _optimizer(module, lr)
    scheduler = CosineWarmupScheduler(
        optimizer, warmup_epochs=round(settings.WARM_UP * updates), max_epochs=updates
    )
    losses: list[float] = []
    with Bar(f"lightly's {method}, seed {seed}", updates, "updates") as bar:
        for update, views in enumerate(_loader(module, tiles, updates, seed)):
            optimizer.param_groups[0]["weight_decay"] = module.decay(update)
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
            loss = module.loss(views, update)
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"the loss of update {update + 1} is not finite")
            optimizer.zero_grad()
            loss.backward()
            module.on_gradients(update)
            optimizer.step()
            scheduler.step()
            bar.advance(note=f"loss {losses[-1]:.4g}")
    assert len(losses) == updates
    return module.encoder.eval(), losses


def _optimizer(module: LightlyMethod, lr: float) -> torch.optim.Optimizer:
    decayed, free = get_weight_decay_parameters(module.trained())
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def _loader(module: LightlyMethod, path: Path, updates: int, seed: int) -> DataLoader[Any]:
    tiles = read_tiles(path)
    order = order_of_tiles(len(tiles), updates * settings.BATCH, seed)
    return DataLoader(
        _Tiles(tiles, module.transform()),
        batch_size=settings.BATCH,
        sampler=order.tolist(),
        drop_last=True,
        num_workers=1,
        generator=torch.Generator().manual_seed(seed),
    )
