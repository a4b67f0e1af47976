"""DINO: a student matches the sharpened, centred output of a teacher that is its own average.

Caron et al. 2021, arXiv 2104.14294; constants from main_dino.py of the official code at 7c446df,
and from VISSL at 09270ed, configs/config/pretrain/dino/dino_16gpus_deits16.yaml.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.encoders.vit import is_vit
from eosin.engine import batch_norm, distributed
from eosin.engine.schedules import Schedule, constant, cosine
from eosin.errors import UsageError
from eosin.images import presets
from eosin.images.views import Views
from eosin.methods import _dino_networks, _dino_schedules
from eosin.methods._base import Loss, Method, MethodConfig, Plan, refuse_accumulation
from eosin.methods._heads import DINOHead
from eosin.methods._momentum import ema_update
from eosin.methods._self_distillation import self_distillation_loss

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
    """Whose crops: VISSL has fewer and other ones for patches of 8 px (dino_64gpus_deits8.yaml)."""
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
    """Teacher's temperature after its warm-up; the README's longer runs use 0.07 (line 188)."""
    teacher_temp_warmup: float = 0.3
    """Share of the run in which the teacher's temperature changes: 30 of 100 epochs, as the help
    says; the script's default is 0 (lines 74-75), which is the same for equal temperatures."""
    teacher_temp_per: Literal["epoch", "update"] = "epoch"
    """Whether the temperature changes once an epoch, as in the official code, or at each update."""
    center_momentum: float = 0.9
    """Momentum of the centre of the teacher's outputs."""
    teacher_momentum: float = 0.996
    """Momentum of the teacher's weights at the start; a cosine takes it to 1."""
    lr_per_256: float = 0.0005
    """Learning rate for a batch of 256; scaled linearly."""
    min_lr: float = 1e-6
    """Learning rate at the end, for any batch."""
    warmup: float = 0.1
    """Share of the run in which the learning rate warms up: 10 of 100 epochs."""
    warmup_lr: float = 0.0
    """Learning rate at the start, for any batch."""
    schedules: Literal["official", "vissl"] = "official"
    """How learning rate and weight decay run: `official`, at each update, through the peak to a
    cosine over the rest; `vissl`, once an epoch, up to a cosine over the whole run."""
    weight_decay: float = 0.04
    """Weight decay at the start; biases and 1-D parameters have none."""
    weight_decay_end: float = 0.4
    """Weight decay that a cosine leads to."""
    clip_grad: float = 3.0
    """Greatest norm of the gradient of each parameter tensor; 0 for none."""
    freeze_last_layer: float = 0.01
    """Share of the run in which the last layer is not trained: 1 of 100 epochs."""
    bn_ranks: int = 0
    """Processes that share the statistics of an encoder's BatchNorm; 0 for all, 1 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("warmup", "teacher_temp_warmup", "freeze_last_layer"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(
                    f"--method.{name.replace('_', '-')} is {getattr(self, name)}; it is a share of "
                    "the run, 0 to 1."
                )
        if self.out_dim < 2:
            raise UsageError(f"--method.out-dim is {self.out_dim}; it must be at least 2.")
        if self.bn_ranks < 0:
            raise UsageError(f"--method.bn-ranks is {self.bn_ranks}; it is 0 for all, or more.")


PRESETS: dict[str, Config] = {
    "official": Config(),
    # The lines are those of dino_16gpus_deits16.yaml, but for the last.
    "vissl": Config(
        views="vissl",  # 21-36
        norm_last_layer=False,  # 70
        teacher_temp=0.07,  # 84-86
        teacher_temp_warmup=0.1,  # 37,530 of the 375,300 updates of 300 epochs
        teacher_temp_per="update",
        lr_per_256=0.0005,  # 100-105: 0.002, set by hand for a batch of 1,024
        min_lr=1e-5,
        warmup=0.0333,  # 108
        warmup_lr=1e-5,
        schedules="vissl",  # 106-107 and 113
        freeze_last_layer=1 / 300,  # 73-76: 1,251 updates, an epoch
        clip_grad=0.0,  # none: defaults.yaml 644-645
    ),
    "pathology": Config(views="pathology"),
}
"""Settings by name. `vissl` is for 300 epochs of ViT-S; with patches of 8 px it has `crops` of
`patch8`, no mixed precision, and all else the same (dino_64gpus_deits8.yaml). Its groups of decayed
parameters, by the word "norm" in their names (param_groups/dino.py line 39), are those of the
official code for such a network. `pathology` is the official training with our views."""


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
    """DINO around an encoder: student, teacher, their heads and the centre.

    An encoder with BatchNorm is trained with statistics over all processes, as main_dino.py lines
    195-202 have it, and cannot accumulate gradients; one without can, and gets the same update.
    """

    center: Tensor

    def __init__(self, config: Config, encoder: Encoder, plan: Plan) -> None:
        super().__init__()
        self.config: Config = config
        self.plan = plan
        if _dino_networks.has_batch_norm(encoder):
            refuse_accumulation(plan, "DINO with BatchNorm")
            batch_norm.synchronise(encoder, config.bn_ranks)
        self.student = encoder
        self.student_head = self._build_head()
        self.teacher = _dino_networks.without_drop_path(encoder.copied()).requires_grad_(False)
        self.teacher_head = self._build_head().requires_grad_(False)
        self.teacher_head.load_state_dict(self.student_head.state_dict())
        self.register_buffer("center", torch.zeros(1, config.out_dim))
        # Sum and number of the teacher's outputs in this update, over all micro-batches.
        self._logit_sum: Tensor | None = None
        self._logit_count = 0
        self._teacher_momentum = cosine(config.teacher_momentum, 1.0, plan.updates)
        self._teacher_temp = _dino_schedules.teacher_temp(
            config.warmup_teacher_temp,
            config.teacher_temp,
            warmup=config.teacher_temp_warmup,
            per=config.teacher_temp_per,
            plan=plan,
        )

    def _build_head(self) -> DINOHead:
        config = self.config
        return DINOHead(
            self.student.embed_dim,
            config.out_dim,
            hidden_dim=config.hidden_dim,
            bottleneck_dim=config.bottleneck_dim,
            layers=3,
            norm_last_layer=config.norm_last_layer,
        )

    def views(self) -> Views:
        """The views of the settings."""
        return views(self.config)

    def param_groups(self) -> list[dict[str, Any]]:
        """The student's parameters; biases and 1-D ones are not decayed (utils.py 632-643)."""
        groups: dict[str, list[nn.Parameter]] = {"decayed": [], "free": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_free = name.endswith(".bias") or parameter.ndim == 1
                groups["free" if is_free else "decayed"].append(parameter)
        return [{"name": name, "params": params} for name, params in groups.items()]

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """Learning rate and weight decay at each update."""
        config, plan = self.config, self.plan
        lr = _dino_schedules.learning_rate(
            config.schedules,
            start=config.warmup_lr,
            peak=config.lr_per_256 * plan.batch_size / 256,
            end=config.min_lr,
            warmup=config.warmup,
            plan=plan,
        )
        decay = _dino_schedules.weight_decay(
            config.schedules, config.weight_decay, config.weight_decay_end, plan
        )
        return {
            "decayed": {"lr": lr, "weight_decay": decay},
            "free": {"lr": lr, "weight_decay": constant(0.0)},
        }

    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        """Forgets what the teacher gave in an update that was not finished."""
        self._logit_sum, self._logit_count = None, 0

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """The loss of normalised crops: two [B, 3, S, S], then the local ones.

        Crops of one size pass the encoder together, and all embeddings the head at once.
        """
        with torch.no_grad():
            teacher = self.teacher_head(self.teacher.embed(torch.cat(list(views[:2]))))
            self._remember(teacher)
        by_size = groupby(views, key=lambda view: view.shape[-1])
        embeddings = [self.student.embed(torch.cat(list(group))) for _, group in by_size]
        return self_distillation_loss(
            self.student_head.bottleneck(torch.cat(embeddings)),
            self.student_head.last_layer,
            teacher,
            self.center,
            student_temp=self.config.student_temp,
            teacher_temp=self._teacher_temp(update),
        )

    def _remember(self, teacher_logits: Tensor) -> None:
        wide = torch.promote_types(teacher_logits.dtype, torch.float32)
        total = teacher_logits.sum(0, keepdim=True, dtype=wide)
        self._logit_sum = total if self._logit_sum is None else self._logit_sum + total
        self._logit_count += len(teacher_logits)

    def on_gradients(self, update: int) -> None:
        """Clips each tensor's gradient by its own norm, then holds the last layer still.

        In this order, as main_dino.py lines 331-334 (utils.py lines 132-149).
        """
        if self.config.clip_grad > 0:
            parameters = [*self.student.parameters(), *self.student_head.parameters()]
            _dino_networks.clip_each(parameters, self.config.clip_grad)
        if update < round(self.config.freeze_last_layer * self.plan.updates):
            for parameter in self.student_head.last_layer.parameters():
                parameter.grad = None

    @torch.no_grad()
    def after_update(self, update: int) -> None:
        """Moves the teacher towards the student, and the centre to the teacher's mean output.

        main_dino.py lines 346-350 and 406-416: the mean is that of all processes.
        """
        momentum = self._teacher_momentum(update)
        ema_update(self.teacher, self.student, momentum)
        ema_update(self.teacher_head, self.student_head, momentum)
        if self._logit_sum is not None:
            count = self._logit_sum.new_full((1, 1), self._logit_count)
            total = distributed.all_reduce(torch.cat([self._logit_sum, count], 1))
            self.center.lerp_(total[:, :-1] / total[:, -1:], 1 - self.config.center_momentum)
            self._logit_sum, self._logit_count = None, 0

    def export_encoder(self) -> Encoder:
        """The teacher, which is the better encoder throughout (section 5.1)."""
        return self.teacher

    def chance_loss(self) -> float:
        """The logarithm of K: every output has the same probability."""
        return math.log(self.config.out_dim)
