"""SwAV: the code of one crop, an even assignment to prototypes, is predicted from the others.

Caron et al. 2020, arXiv 2006.09882; constants from main_swav.py and scripts/ of the official code
at 06b1b7c, and of VISSL at 09270ed2 (configs/config/pretrain/swav/swav_8node_resnet.yaml).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.encoders.resnet import is_resnet
from eosin.engine import batch_norm
from eosin.engine.precision import at_least_float32
from eosin.engine.schedules import Schedule, constant, cosine, warmup_cosine
from eosin.errors import UsageError
from eosin.images import presets
from eosin.images.views import Views
from eosin.methods._base import Loss, Method, MethodConfig, Plan, refuse_accumulation
from eosin.methods._projection_queue import ProjectionQueue
from eosin.methods._sinkhorn import sinkhorn
from eosin.methods._swapped_prediction import describe_codes, swav_loss

_IMAGENET_TILES = 1_281_167

ENCODER = "resnet50"
"""The encoder of the paper."""


def encoder_args(name: str) -> dict[str, Any]:
    """Residual branches do not start at zero (src/resnet50.py lines 226-234, off by default)."""
    return {"zero_init_last": False} if is_resnet(name) else {}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Settings of SwAV; the defaults are those of scripts/swav_800ep_pretrain.sh (batch 4096).

    For small batches the official swav_200ep_bs256_pretrain.sh has `queue_length` 3840,
    `lr_per_256` 0.6 and `warmup` 0.
    """

    optimizer: Literal["larc", "adamw"] = "larc"
    """LARC is the paper's; AdamW, with a smaller rate, suits runs of a few hundred updates."""
    global_px: int = 224
    """Side of the two global crops, which codes are computed of."""
    local_px: int = 96
    """Side of the local crops."""
    local_crops: int | None = None
    """Number of local crops, instead of the preset's 6."""
    global_scale: tuple[float, float] | None = None
    """Share of the tile's area in a global crop, least and most, instead of the preset's."""
    local_scale: tuple[float, float] | None = None
    """Share of the tile's area in a local crop, least and most, instead of the preset's."""
    hidden_dim: int = 2048
    """Width of the projector's hidden layer."""
    dim: int = 128
    """Length of what is compared with the prototypes."""
    prototypes: int = 3000
    """Number of prototypes K."""
    temperature: float = 0.1
    """Temperature of the prediction."""
    epsilon: float = 0.05
    """Softness of the codes."""
    sinkhorn_iterations: int = 3
    """How often the codes are evened out."""
    freeze_prototypes: int | None = None
    """Updates before the prototypes are trained; one pass of ImageNet, 1 % of the run at most."""
    queue_length: int = 0
    """Earlier tiles of all processes that codes are evened out with; 3840 for a batch of 256."""
    queue_start: float = 0.075
    """Share of the run before the queue fills: 15 of 200 epochs."""
    lr_per_256: float = 0.3
    """Learning rate for a batch of 256; scaled linearly."""
    warmup: float = 0.0125
    """Share of the run that warms up: 10 of 800 epochs."""
    warmup_start: float = 0.0625
    """Share of the learning rate that the warm-up starts at: 0.3 of 4.8."""
    final_lr: float = 0.001
    """Share of the learning rate that is left at the end: 0.0048 of 4.8."""
    cosine_over: Literal["rest", "run"] = "rest"
    """Whether the cosine starts after the warm-up, or with the run and is joined then (VISSL)."""
    weight_decay: float = 1e-6
    """Weight decay, of biases and BatchNorm too."""
    bn_ranks: int = 0
    """How many processes share BatchNorm statistics; 0 for all; official large runs have 8."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("queue_start", "warmup", "warmup_start", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{_option(self, name)}; it is a share, 0 to 1.")
        for name in ("local_crops", "freeze_prototypes", "queue_length", "bn_ranks"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{_option(self, name)}; it cannot be negative.")
        for name in ("temperature", "epsilon", "sinkhorn_iterations", "hidden_dim", "dim"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{_option(self, name)}; it must be greater than 0.")
        if self.prototypes < 2:
            raise UsageError(f"{_option(self, 'prototypes')}; there must be 2 at least.")


def _option(config: Config, name: str) -> str:
    return f"--method.{name.replace('_', '-')} is {getattr(config, name)}"


PRESETS: dict[str, Config] = {
    "official": Config(),
    # 10 of 400 epochs; the linear part starts at the rate of one machine's 512 tiles of 4096
    # (vissl/utils/hydra_config.py 227-252) and the cosine's interval is `fixed`, the whole run.
    "vissl": Config(views="vissl", warmup=0.025, warmup_start=0.125, cosine_over="run", bn_ranks=8),
    "pathology": Config(views="pathology"),
}
"""What the official code, VISSL and pathology train with.

VISSL also sets the prototypes to length 1 after each update instead of before each forward pass,
which differs at the first update alone, where its prototypes are still as they were drawn.
"""


def views(config: Config) -> Views:
    """Two global crops and the local crops, all drawn alike but for their size and scale."""
    first, _, *local = config.adapted(presets.swav(config.views)).specs
    count = len(local) if config.local_crops is None else config.local_crops
    large = replace(first, size_px=config.global_px, scale=config.global_scale or first.scale)
    small_scale = config.local_scale or local[0].scale
    small = replace(local[0], size_px=config.local_px, scale=small_scale)
    return Views((large, large, *[small] * count))


def build(config: Config, encoder: Encoder, plan: Plan) -> "SwAV":
    """Builds the method around an encoder."""
    return SwAV(config, encoder, plan)


class SwAV(Method):
    """SwAV around an encoder: projector, prototypes and, for small batches, a queue.

    Two things differ from the official code and are not to be set. Its ResNet pads the image by 1
    and the first convolution by 2 (src/resnet50.py lines 157 and 173-177), where every other has 3:
    Eosin's has 3 too, since its weights must do in a plain ResNet. And its standard deviation of
    red is 0.228 (src/multicropdataset.py line 39), where ImageNet's is 0.229, and the encoder's.

    Raises:
        UsageError: the plan has micro-batches, or the queue is not made for its batches.
    """

    def __init__(self, config: Config, encoder: Encoder, plan: Plan) -> None:
        super().__init__()
        refuse_accumulation(plan, "SwAV")
        self.config: Config = config
        self.plan = plan
        self.encoder = encoder
        self.projector = nn.Sequential(
            nn.Linear(encoder.embed_dim, config.hidden_dim),
            nn.BatchNorm1d(config.hidden_dim),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden_dim, config.dim),
        )
        self.prototypes = nn.Linear(config.dim, config.prototypes, bias=False)
        self.queue = _build_queue(config, plan)
        self.frozen_updates = frozen_updates(config, plan)
        batch_norm.synchronise(self, config.bn_ranks)

    def views(self) -> Views:
        """The views of the settings."""
        return views(self.config)

    def param_groups(self) -> list[dict[str, Any]]:
        """All parameters in one group: LARC scales and decays biases and BatchNorm too."""
        return [{"name": "all", "params": [p for p in self.parameters() if p.requires_grad]}]

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """Learning rate and weight decay at each update (main_swav.py lines 178-182)."""
        decay = constant(self.config.weight_decay)
        return {"all": {"lr": learning_rate(self.config, self.plan), "weight_decay": decay}}

    @torch.no_grad()
    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        """Sets every prototype to length 1 (main_swav.py lines 277-281)."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """The loss of normalised crops: two [B, 3, S, S], then the local ones.

        Crops of one size pass the encoder together, and all embeddings the projector at once.
        """
        by_size = groupby(views, key=lambda view: view.shape[-1])
        embeddings = [self.encoder.embed(torch.cat(list(group))) for _, group in by_size]
        projections = self.projector(torch.cat(embeddings))
        with torch.autocast(projections.device.type, enabled=False):
            projections = F.normalize(at_least_float32(projections), dim=1)
            scores = self.prototypes(projections).unflatten(0, (len(views), -1))
        codes = self._codes(scores[:2].detach())
        parts = describe_codes(codes)
        if self.queue is not None:
            self.queue.hold(projections.unflatten(0, (len(views), -1))[:2], update)
            parts["queue_fill"] = codes.new_full((), self.queue.filled())
        return Loss(total=swav_loss(scores, codes, self.config.temperature), parts=parts)

    @torch.no_grad()
    def _codes(self, scores: Tensor) -> Tensor:
        """Codes [2, B, K] of the global crops, evened out with a full queue (lines 290-307).

        The queue is scored with the prototypes of now. Sinkhorn does not ask which process holds a
        tile, so each scores its share.
        """
        batch = scores.shape[1]
        if self.queue is not None and self.queue.filled() == 1:
            with torch.autocast(scores.device.type, enabled=False):
                scores = torch.cat([self.prototypes(self.queue.own_share()), scores], 1)
        config = self.config
        return sinkhorn(
            scores, epsilon=config.epsilon, iterations=config.sinkhorn_iterations, last=batch
        )

    def on_gradients(self, update: int) -> None:
        """Holds the prototypes still at first (main_swav.py lines 324-328)."""
        if update < self.frozen_updates:
            self.prototypes.weight.grad = None

    def after_update(self, update: int) -> None:
        """Adds the update's tiles to the queue."""
        if self.queue is not None:
            self.queue.add()

    def export_encoder(self) -> Encoder:
        """The trained encoder."""
        return self.encoder

    def chance_loss(self) -> float:
        """The logarithm of K: equal scores have even codes and predictions."""
        return math.log(self.config.prototypes)


def _build_queue(config: Config, plan: Plan) -> ProjectionQueue | None:
    if not config.queue_length:
        return None
    return ProjectionQueue(
        config.queue_length,
        config.dim,
        batch_size=plan.batch_size,
        start=round(config.queue_start * plan.updates),
    )


def frozen_updates(config: Config, plan: Plan) -> int:
    """How many updates the prototypes are held still for.

    The official scripts say 313 for batches of 4096 and 5005 for 256, which is one pass of
    ImageNet's 1,281,167 images, in runs of 100 to 800 passes. Unless the settings say otherwise
    that number, ceil(1,281,167 / batch), is taken, but at most a hundredth of the run. (Of all
    scripts that of 100 passes, 31,200 updates, differs: it has 313, and this gives 312.)
    """
    if config.freeze_prototypes is not None:
        return config.freeze_prototypes
    return min(math.ceil(_IMAGENET_TILES / plan.batch_size), plan.updates // 100)


def learning_rate(config: Config, plan: Plan) -> Schedule:
    """Linear warm-up, then a cosine (main_swav.py lines 178-182).

    VISSL's warm-up ends one step short of the peak, and the cosine is then where it would be had it
    begun with the run.
    """
    peak = config.lr_per_256 * plan.batch_size / 256
    start, end = config.warmup_start * peak, config.final_lr * peak
    warmup, updates = round(config.warmup * plan.updates), plan.updates
    is_official = config.cosine_over == "rest"
    schedule = warmup_cosine(peak, end, updates, warmup, start=start, through_peak=is_official)
    if is_official:
        return schedule
    whole = cosine(peak, end, updates)
    return lambda update: schedule(update) if update < warmup else whole(update)
