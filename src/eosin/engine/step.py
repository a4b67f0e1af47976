"""One update: forward and backward of every micro-batch, then the optimizer, in the papers' order.

All processes see the same numbers and take the same decision, so that none waits for another.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import (
    _BatchNorm as BatchNorm,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from eosin.engine import distributed
from eosin.engine.precision import Precision, autocast, build_scaler
from eosin.engine.trainable import Batch, LossLike, Trainable


@dataclass(frozen=True, kw_only=True)
class Step:
    """What came of an update, the same in every process."""

    loss: float
    """Mean over all tiles."""
    parts: Mapping[str, float]
    """What explains it, likewise, and `grad_norm`, the norm of all gradients before clipping."""
    is_skipped: bool
    """Whether loss or gradient was not finite, and nothing was changed."""
    must_stop: bool
    """Whether a process was asked to stop."""


class Stepper:
    """Takes updates of a module.

    Args:
        module: what is trained.
        optimizer: over groups that have the names that `module.schedules()` gives.
        precision: of the forward passes.
        device: where the module lies.
    """

    def __init__(
        self,
        module: Trainable,
        optimizer: Optimizer,
        *,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self._module, self._optimizer = module, optimizer
        self._precision: Precision = precision
        self._device = device
        self._parallel = self._distributed() if distributed.is_distributed() else None
        self.scaler = build_scaler(precision, device)
        layers = [m for m in cast(nn.Module, module).modules() if isinstance(m, BatchNorm)]
        buffers = [b for layer in layers for b in (layer.running_mean, layer.running_var)]
        self._statistics = [buffer for buffer in buffers if buffer is not None]
        self._kept = [buffer.clone() for buffer in self._statistics]

    def _distributed(self) -> DistributedDataParallel:
        ids = [self._device] if self._device.type == "cuda" else None
        # Buffers are computed alike by every process (queue, centre) or are its own (BatchNorm's).
        with warnings.catch_warnings():
            # Newer versions call it `forward_sync_buffers`, which older ones do not know.
            warnings.filterwarnings("ignore", message=".*broadcast_buffers", category=FutureWarning)
            return DistributedDataParallel(
                cast(nn.Module, self._module),
                device_ids=ids,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )

    def __call__(self, batch: Batch, update: int, stop_requested: Callable[[], bool]) -> Step:
        """Takes one update, or skips it if its loss or gradient is not finite."""
        module, optimizer = self._module, self._optimizer
        schedules = module.schedules()
        for group in optimizer.param_groups:
            for setting, schedule in schedules[group["name"]].items():
                group[setting] = schedule(update)
        self._keep_statistics()
        optimizer.zero_grad(set_to_none=True)
        losses = self._gradients(batch, update)
        self.scaler.unscale_(optimizer)
        step = self._agree(losses, stop_requested())
        if step.is_skipped:
            self._restore_statistics()
            optimizer.zero_grad(set_to_none=True)
            self.scaler.update()
            return step
        module.on_gradients(update)
        # The scaler would skip an overflow too, but PyTorch's fused SGD then takes its momentum
        # from memory that nothing has been written to.
        if math.isfinite(step.parts["grad_norm"]):
            self.scaler.step(optimizer)
        self.scaler.update()
        module.after_update(update)
        return step

    def _gradients(self, batch: Batch, update: int) -> list[LossLike]:
        count = len(batch.micro)
        losses: list[LossLike] = []
        with autocast(self._precision, self._device):
            self._module.before_forward(batch.micro, update)
        for number, views in enumerate(batch.micro):
            # The last one's backward pass takes the mean over the processes, of all of them.
            is_last = number == count - 1
            parallel = self._parallel
            with nullcontext() if parallel is None or is_last else parallel.no_sync():
                with autocast(self._precision, self._device):
                    loss: LossLike = (parallel or self._module)(views, update, number)
                self.scaler.scale(loss.total / count).backward()
            losses.append(loss)
        return losses

    def _agree(self, losses: list[LossLike], stop: bool) -> Step:
        """Means over micro-batches and processes, read from the device in one go."""
        names = list(losses[0].parts)
        parts = [torch.stack([loss.parts[name].detach() for loss in losses]) for name in names]
        total = torch.stack([loss.total.detach() for loss in losses])
        values = torch.stack([value.double().mean() for value in (total, *parts)])
        # The gradients are already the same everywhere.
        norm = self._gradient_norm().double() / distributed.world_size()
        flag = values.new_tensor(float(stop))
        summed = distributed.all_reduce(torch.cat([values, norm[None], flag[None]]))
        *means, norm_value, stops = summed.tolist()
        loss, *part_means = (value / distributed.world_size() for value in means)
        is_finite = math.isfinite(loss)
        if not self.scaler.is_enabled():  # with one, an overflow only lowers its scale
            is_finite = is_finite and math.isfinite(norm_value)
        return Step(
            loss=loss,
            parts={**dict(zip(names, part_means, strict=True)), "grad_norm": norm_value},
            is_skipped=not is_finite,
            must_stop=stops > 0,
        )

    def _gradient_norm(self) -> Tensor:
        grads = [
            parameter.grad
            for group in self._optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        return torch.nn.utils.get_total_norm(grads)

    def _keep_statistics(self) -> None:
        if self._kept:
            torch._foreach_copy_(self._kept, self._statistics)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    def _restore_statistics(self) -> None:
        if self._kept:
            torch._foreach_copy_(self._statistics, self._kept)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]

    def state_dict(self) -> dict[str, Any]:
        """What beside the module and the optimizer the next update depends on."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.scaler.load_state_dict(dict(state))
