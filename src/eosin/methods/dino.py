"""DINO: a student matches the sharpened, centred output of a teacher that is its own average.

Caron et al. 2021, arXiv 2104.14294; constants from main_dino.py of the official code at 7c446df.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import torch
from timm.layers import DropPath  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.encoders.vit import is_vit
from eosin.engine.schedules import (
    Schedule,
    constant,
    cosine,
    linear_then_constant,
    warmup_cosine,
)
from eosin.errors import UsageError
from eosin.images import presets
from eosin.images.views import Views
from eosin.methods._base import Loss, Method, MethodConfig, Plan
from eosin.methods._heads import DINOHead
from eosin.methods._momentum import ema_update

ENCODER = "vit_small_patch16"
"""The encoder of the official script."""


def encoder_args(name: str) -> dict[str, Any]:
    """The student's stochastic depth (main_dino.py line 105); the teacher has none."""
    return {"drop_path_rate": 0.1} if is_vit(name) else {}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Settings of DINO; the defaults are those of the official script (100 epochs)."""

    optimizer: Literal["adamw"] = "adamw"
    """The paper's optimizer."""
    global_px: int = 224
    """Side of the two global crops, which the teacher sees too."""
    local_px: int = 96
    """Side of the local crops."""
    crops: Literal["patch16", "patch8"] = "patch16"
    """Whose crops: VISSL has fewer and smaller ones for patches of 8 px."""
    local_crops: int | None = None
    """Number of local crops, instead of the preset's."""
    global_scale: tuple[float, float] | None = None
    """Share of the tile's area in a global crop, least and most, instead of the preset's."""
    local_scale: tuple[float, float] | None = None
    """Share of the tile's area in a local crop, least and most, instead of the preset's."""
    out_dim: int = 65536
    """Outputs K of the head."""
    hidden_dim: int = 2048
    """Width of the head's MLP."""
    bottleneck_dim: int = 256
    """Width before the last layer."""
    norm_last_layer: bool = True
    """Keeps the last layer's rows at length 1; the README advises False for ViT-S."""
    student_temp: float = 0.1
    """Temperature of the student."""
    warmup_teacher_temp: float = 0.04
    """Teacher's temperature at the start."""
    teacher_temp: float = 0.04
    """Teacher's temperature after its warm-up; the README's longer runs use 0.07."""
    teacher_temp_warmup: float = 0.3
    """Share of the run in which the teacher's temperature changes: 30 of 100 epochs."""
    teacher_temp_per: Literal["epoch", "update"] = "epoch"
    """Whether the temperature changes once an epoch, as in the official code, or at each update."""
    center_momentum: float = 0.9
    """Momentum of the centre of the teacher's outputs."""
    teacher_momentum: float = 0.996
    """Momentum of the teacher's weights at the start; a cosine takes it to 1."""
    lr_per_256: float = 0.0005
    """Learning rate for a batch of 256; scaled linearly."""
    min_lr: float = 1e-6
    """Learning rate at the end."""
    warmup: float = 0.1
    """Share of the run in which the learning rate warms up: 10 of 100 epochs."""
    weight_decay: float = 0.04
    """Weight decay at the start; biases and 1-D parameters have none."""
    weight_decay_end: float = 0.4
    """Weight decay that a cosine leads to."""
    clip_grad: float = 3.0
    """Greatest norm of the gradient of each parameter tensor; 0 for none."""
    freeze_last_layer: float = 0.01
    """Share of the run in which the last layer is not trained: 1 of 100 epochs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("warmup", "teacher_temp_warmup", "freeze_last_layer"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"--method.{name} is {getattr(self, name)}; it is a share of the run, 0 to 1."
                )
        if self.out_dim < 2:
            raise UsageError(f"--method.out-dim is {self.out_dim}; it must be at least 2.")


def views(config: Config) -> Views:
    """Two global crops, which differ in blur and solarisation, and the local crops."""
    preset = presets.dino if config.crops == "patch16" else presets.dino_patch8
    first, second, *local = config.adapted(preset(config.views)).specs
    count = len(local) if config.local_crops is None else config.local_crops
    global_scale = config.global_scale or first.scale
    local_scale = config.local_scale or local[0].scale
    return Views(
        (
            replace(first, size_px=config.global_px, scale=global_scale),
            replace(second, size_px=config.global_px, scale=global_scale),
            *[replace(local[0], size_px=config.local_px, scale=local_scale)] * count,
        )
    )


def build(config: Config, encoder: Encoder, plan: Plan) -> "DINO":
    """Builds the method around an encoder, which becomes the student."""
    return DINO(config, encoder, plan)


class DINO(Method):
    """DINO around an encoder: student, teacher, their heads and the centre."""

    center: Tensor

    def __init__(self, config: Config, encoder: Encoder, plan: Plan) -> None:
        super().__init__()
        self.config: Config = config
        self.plan = plan
        self.student = encoder
        self.student_head = _build_head(config, encoder.embed_dim)
        self.teacher = without_drop_path(encoder.copied()).requires_grad_(False)
        self.teacher_head = _build_head(config, encoder.embed_dim).requires_grad_(False)
        self.teacher_head.load_state_dict(self.student_head.state_dict())
        self.register_buffer("center", torch.zeros(1, config.out_dim))
        # What the teacher gave since the last update, over all micro-batches.
        self._logit_sum: Tensor | None = None
        self._logit_count = 0
        self._teacher_momentum = cosine(config.teacher_momentum, 1.0, plan.updates)
        self._teacher_temp = _teacher_temp(config, plan)

    def views(self) -> Views:
        """The views of the settings."""
        return views(self.config)

    def param_groups(self) -> list[dict[str, Any]]:
        """The student's parameters; biases and 1-D ones are not decayed (utils.py 632-643)."""
        named = [
            (name, parameter)
            for module in (self.student, self.student_head)
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        ]
        free = [p for name, p in named if name.endswith(".bias") or p.ndim == 1]
        decayed = [p for name, p in named if not (name.endswith(".bias") or p.ndim == 1)]
        return [{"name": "decayed", "params": decayed}, {"name": "free", "params": free}]

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """Learning rate and weight decay at each update (main_dino.py lines 238-250)."""
        config, updates = self.config, self.plan.updates
        lr = warmup_cosine(
            config.lr_per_256 * self.plan.batch_size / 256,
            config.min_lr,
            updates,
            round(config.warmup * updates),
            through_peak=True,
        )
        decay = cosine(config.weight_decay, config.weight_decay_end, updates)
        return {
            "decayed": {"lr": lr, "weight_decay": decay},
            "free": {"lr": lr, "weight_decay": constant(0.0)},
        }

    def forward(self, views: Sequence[Tensor], update: int) -> Loss:
        """The loss of normalised crops: two [B, 3, S, S], then the local ones.

        Crops of one size pass the encoder together, and all embeddings the head at once.
        """
        with torch.no_grad():
            teacher = self.teacher_head(self.teacher.embed(torch.cat(list(views[:2])))).float()
        by_size = groupby(views, key=lambda view: view.shape[-1])
        embeddings = [self.student.embed(torch.cat(list(group))) for _, group in by_size]
        student = self.student_head(torch.cat(embeddings)).float()
        self._remember(teacher)
        return dino_loss(
            student.chunk(len(views)),
            teacher.chunk(2),
            self.center,
            student_temp=self.config.student_temp,
            teacher_temp=self._teacher_temp(update),
        )

    def _remember(self, teacher_logits: Tensor) -> None:
        total = teacher_logits.sum(0, keepdim=True)
        self._logit_sum = total if self._logit_sum is None else self._logit_sum + total
        self._logit_count += len(teacher_logits)

    def on_gradients(self, update: int) -> None:
        """Clips each tensor's gradient by its own norm, then holds the last layer still.

        utils.py lines 132-149.
        """
        if self.config.clip_grad > 0:
            parameters = [*self.student.parameters(), *self.student_head.parameters()]
            clip_each(parameters, self.config.clip_grad)
        if update < round(self.config.freeze_last_layer * self.plan.updates):
            for parameter in self.student_head.last_layer.parameters():
                parameter.grad = None

    def after_update(self, update: int) -> None:
        """Moves the teacher towards the student, and the centre to the teacher's mean output.

        main_dino.py lines 346-350 and 406-416.
        """
        momentum = self._teacher_momentum(update)
        ema_update(self.teacher, self.student, momentum)
        ema_update(self.teacher_head, self.student_head, momentum)
        if self._logit_sum is not None:
            mean = self._logit_sum / self._logit_count
            self.center.mul_(self.config.center_momentum)
            self.center.add_(mean, alpha=1 - self.config.center_momentum)
            self._logit_sum, self._logit_count = None, 0

    def export_encoder(self) -> Encoder:
        """The teacher, which is the better encoder throughout (section 5.1)."""
        return self.teacher

    def chance_loss(self) -> float:
        """The logarithm of K: every output has the same probability."""
        return math.log(self.config.out_dim)


def _build_head(config: Config, embed_dim: int) -> DINOHead:
    return DINOHead(
        embed_dim,
        config.out_dim,
        hidden_dim=config.hidden_dim,
        bottleneck_dim=config.bottleneck_dim,
        layers=3,
        norm_last_layer=config.norm_last_layer,
    )


def _teacher_temp(config: Config, plan: Plan) -> Schedule:
    if config.teacher_temp_per == "update":
        warmup = round(config.teacher_temp_warmup * plan.updates)
        return linear_then_constant(config.warmup_teacher_temp, config.teacher_temp, warmup)
    epochs = math.ceil(plan.updates / plan.updates_per_epoch)
    warmup = round(config.teacher_temp_warmup * epochs)
    by_epoch = linear_then_constant(config.warmup_teacher_temp, config.teacher_temp, warmup)
    return lambda update: by_epoch(update // plan.updates_per_epoch)


def dino_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    center: Tensor,
    *,
    student_temp: float,
    teacher_temp: float,
) -> Loss:
    """Computes equation 3: cross-entropies of all pairs of different views, in float32.

    Args:
        student: logits [B, K] of each crop, the global ones first.
        teacher: logits [B, K] of the two global crops, in the same order.
        center: [1, K], subtracted from the teacher's logits.
        student_temp: temperature of the student.
        teacher_temp: temperature of the teacher.

    Returns:
        The mean over the pairs and the batch, with the teacher's entropy and the divergence of
        the student as parts: entropy at ln K or divergence at 0 is a collapse.
    """
    with torch.autocast(center.device.type, enabled=False):
        targets = [((t.float() - center) / teacher_temp).softmax(-1) for t in teacher]
        log_probs = [(s.float() / student_temp).log_softmax(-1) for s in student]
        terms = [
            -(targets[t] * log_probs[s]).sum(-1).mean()
            for t in range(len(teacher))
            for s in range(len(student))
            if t != s
        ]
        total = torch.stack(terms).mean()
        with torch.no_grad():
            entropy = torch.stack([torch.special.entr(t).sum(-1).mean() for t in targets]).mean()
    parts = {"teacher_entropy": entropy, "divergence": total.detach() - entropy}
    return Loss(total=total, parts=parts)


def clip_each(parameters: Sequence[nn.Parameter], max_norm: float) -> None:
    """Scales down each gradient whose own norm is over `max_norm`; the norms are not joined."""
    for parameter in parameters:
        if parameter.grad is not None:
            factor = max_norm / (parameter.grad.norm(2) + 1e-6)
            parameter.grad.mul_(factor.clamp(max=1.0))


def without_drop_path(encoder: Encoder) -> Encoder:
    """Switches stochastic depth off, in place (main_dino.py lines 162-166)."""
    for module in encoder.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0
    return encoder
