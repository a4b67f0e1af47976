"""Training steps that are timed: ours, those of a plain PyTorch script, and the machine's peak."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench._compare import Contestant
from eosin.encoders import Encoder, build_encoder
from eosin.engine.optimizers import OptimizerName, build_optimizer
from eosin.engine.precision import resolve
from eosin.engine.schedules import Schedule, constant
from eosin.engine.step import Stepper
from eosin.engine.trainable import Batch
from eosin.methods._base import Loss

SIDE_PX, CLASSES = 224, 1000
LR, MOMENTUM, WEIGHT_DECAY = 0.03, 0.9, 0.0001
# Steps are timed in the middle of a long run, where nothing is frozen or warmed up any more.
UPDATES, MIDDLE = 1_000_000, 500_000


class Supervised(nn.Module):
    """An encoder with a linear classifier, as the training loop takes it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.embed_dim, CLASSES)

    def logits(self, images: Tensor) -> Tensor:
        """Class scores [B, 1000]."""
        return self.classifier(self.encoder.embed(images))

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """The cross-entropy; `views` are the images and their labels."""
        images, labels = views
        return Loss(total=F.cross_entropy(self.logits(images).float(), labels))

    def param_groups(self) -> list[dict[str, Any]]:
        """One group."""
        return [{"name": "all", "params": list(self.parameters())}]

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """Constant."""
        return {"all": {"lr": constant(LR), "weight_decay": constant(WEIGHT_DECAY)}}

    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        """Nothing."""

    def on_gradients(self, update: int) -> None:
        """Nothing."""

    def after_update(self, update: int) -> None:
        """Nothing."""


class OurStep:
    """A module that is trained as `eosin pretrain` trains one."""

    def __init__(self, module: Any, optimizer: OptimizerName, views: Sequence[Tensor]) -> None:
        device = views[0].device
        module = module.to(device).to(memory_format=torch.channels_last).train()
        groups = module.param_groups()
        built = build_optimizer(optimizer, groups)
        self._step = Stepper(module, built, precision="auto", device=device)
        views = [
            view.to(memory_format=torch.channels_last) if view.ndim == 4 else view for view in views
        ]
        self._batch = Batch(micro=[views])
        self._update = MIDDLE
        self.losses: list[float] = []

    def __call__(self) -> None:
        """Takes one update."""
        step = self._step(self._batch, self._update, lambda: False)
        assert not step.is_skipped, "the loss or the gradient is not finite"
        self.losses.append(step.loss)
        self._update += 1


class PlainStep:
    """What a plain PyTorch script does: float32, NCHW, and SGD that loops over the parameters."""

    def __init__(self, module: Supervised, images: Tensor, labels: Tensor) -> None:
        self._module = module.to(images.device).train()
        self._images, self._labels = images.contiguous(), labels
        self._optimizer = torch.optim.SGD(
            module.parameters(),
            lr=LR,
            momentum=MOMENTUM,
            weight_decay=WEIGHT_DECAY,
            foreach=False,
        )
        self.losses: list[float] = []

    def __call__(self) -> None:
        """Takes one update."""
        loss = F.cross_entropy(self._module.logits(self._images), self._labels)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self.losses.append(float(loss.detach()))


def peak_sides(device: torch.device) -> tuple[list[Contestant], dict[str, float]]:
    """What measures the machine's peak in the number format of our steps, and its operations."""
    is_cuda = device.type == "cuda"
    edge, images = (8192, 64) if is_cuda else (3072, 8)
    dtype = torch.bfloat16 if resolve("auto", device) == "bf16" else torch.float32
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    x = torch.randn(images, 256, 56, 56, device=device, dtype=dtype)
    weight = torch.randn(256, 256, 3, 3, device=device, dtype=dtype) / 48
    x, weight = (each.to(memory_format=torch.channels_last) for each in (x, weight))
    gflop = {
        "matrix product": 2 * edge**3 / 1e9,
        "convolution": 2 * images * 56**2 * 256**2 * 9 / 1e9,
    }

    def product() -> None:
        with torch.no_grad():
            _ = a @ b

    def convolution() -> None:
        with torch.no_grad():
            F.conv2d(x, weight, padding=1)

    runs = (product, convolution)
    return [Contestant(name, run) for name, run in zip(gflop, runs, strict=True)], gflop


def finishing(run: Callable[[], object], device: torch.device) -> Callable[[], None]:
    """The same, and waits until the GPU is done."""

    def run_to_the_end() -> None:
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run_to_the_end


def build_supervised() -> Supervised:
    """ResNet-50 with a classifier, always from the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Supervised(build_encoder("resnet50", input_px=SIDE_PX))
