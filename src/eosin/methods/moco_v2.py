"""MoCo v2: a query finds the key of the same tile's other view among a queue of earlier keys.

Chen et al. 2020, arXiv 2003.04297, over He et al. 2020, arXiv 1911.05722; constants from
moco/builder.py and main_moco.py of the official code at 132aea9, with the README's settings of v2
(`--mlp --moco-t 0.2 --aug-plus --cos`), and from configs/config/pretrain/moco/
moco_1node_resnet.yaml of VISSL at 09270ed2.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eosin.encoders import Encoder
from eosin.encoders.resnet import is_resnet
from eosin.engine import batch_norm
from eosin.engine.distributed import all_gather, rank, world_size
from eosin.engine.precision import at_least_float32
from eosin.engine.schedules import Schedule, constant, warmup_cosine
from eosin.errors import UsageError
from eosin.images import presets
from eosin.images.views import Views
from eosin.methods._base import Loss, Method, MethodConfig, Plan
from eosin.methods._contrast import info_nce
from eosin.methods._momentum import ema_update

ENCODER = "resnet50"
"""The encoder of the paper."""


def encoder_args(name: str) -> dict[str, Any]:
    """How the official code builds its encoder: no residual branch starts at zero.

    VISSL's ZERO_INIT_RESIDUAL (line 56) changes nothing: its trunk makes the blocks anew after
    torchvision's constructor has set them to zero (models/trunks/resnext.py lines 99-138).
    """
    return {"zero_init_last": False} if is_resnet(name) else {}


@dataclass(frozen=True, kw_only=True)
class Config(MethodConfig):
    """Settings of MoCo v2; the defaults are those of the official code."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9 is the paper's; AdamW suits runs of a few hundred updates."""
    nesterov: bool = False
    """Whether SGD's momentum is Nesterov's, as in VISSL."""
    view_px: int = 224
    """Side of both views."""
    scale: tuple[float, float] | None = None
    """Share of the tile's area that a view covers, least and most, instead of the preset's."""
    dim: int = 128
    """Length of queries and keys."""
    queue: int = 65536
    """Keys in the queue K, a multiple of the batch size."""
    key_momentum: float = 0.999
    """Momentum of the key encoder's weights."""
    temperature: float = 0.2
    """Temperature of the similarities."""
    bn_splits: int = 1
    """Parts that each process splits its batch in for BatchNorm: one GPU can do as several would.

    Keys pass the encoder in other parts than their queries, so that BatchNorm's statistics do not
    give away which belong together: of one part alone they would.
    """
    lr_per_256: float = 0.03
    """Learning rate for a batch of 256; scaled linearly."""
    lr_schedule: Literal["cosine", "steps"] = "cosine"
    """A cosine to 0, or as in VISSL steps to a tenth."""
    lr_steps: tuple[float, ...] = (0.6, 0.8)
    """Shares of the run at which the steps are: 120 and 160 of 200 epochs."""
    lr_per: Literal["epoch", "update"] = "epoch"
    """Whether the learning rate changes once an epoch, as in the official code, or each update."""
    warmup: float = 0.0
    """Share of the run in which the learning rate warms up; for a cosine at each update."""
    weight_decay: float = 0.0001
    """Weight decay of all parameters, also of biases and BatchNorm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dim", "queue", "bn_splits"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UsageError(
                    f"--method.{option} is {getattr(self, name)}; it must be at least 1."
                )
        for name in ("key_momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise UsageError(
                    f"--method.{option} is {getattr(self, name)}; it must be at least 0 and less "
                    "than 1."
                )
        if self.temperature <= 0:
            raise UsageError(f"--method.temperature is {self.temperature}; it must be positive.")
        if self.warmup and (self.lr_schedule, self.lr_per) != ("cosine", "update"):
            raise UsageError(
                "--method.warmup needs --method.lr-schedule cosine and --method.lr-per update."
            )


PRESETS: dict[str, Config] = {
    "official": Config(),
    "vissl": Config(views="vissl", nesterov=True, lr_schedule="steps"),
    "pathology": Config(views="pathology"),
}
"""The official settings; VISSL's (lines 73-87); and the official ones with pathology's views."""


def views(config: Config) -> Views:
    """Two views drawn alike: the query's and the key's."""
    scale = {} if config.scale is None else {"scale": config.scale}
    preset = config.adapted(presets.moco_v2(config.views))
    return preset.changed(size_px=config.view_px, **scale)


def build(config: Config, encoder: Encoder, plan: Plan) -> "MoCoV2":
    """Builds the method around an encoder, which becomes the query encoder.

    Raises:
        UsageError: the batch does not divide the queue, or the parts for BatchNorm the batch.
    """
    return MoCoV2(config, encoder, plan)


def advice(config: Config, plan: Plan) -> list[str]:
    """Warns of one BatchNorm over all tiles, through which a key would give its query away."""
    parts = world_size() * plan.micro_batches * config.bn_splits
    if parts > 1:
        return []
    return [
        f"BatchNorm sees all {plan.batch_size} tiles of an update at once, and its statistics tell "
        "which key belongs to a query: --method.bn-splits 8, or more processes, prevent it"
    ]


def projection_head(in_dim: int, dim: int) -> nn.Sequential:
    """An MLP without BatchNorm, hidden layer as wide as an embedding (builder.py lines 44-51)."""
    return nn.Sequential(nn.Linear(in_dim, in_dim), nn.ReLU(inplace=True), nn.Linear(in_dim, dim))


class MoCoV2(Method):
    """MoCo v2 around an encoder: query encoder, key encoder, their heads and the queue.

    In one update the key encoder first follows the query encoder, then computes the keys of all
    tiles. The queue takes them when the update is done. VISSL leaves out the first of these moves
    (hooks/moco_hooks.py lines 152-157), which makes no difference: both encoders are equal then.
    """

    queue: Tensor
    enqueued: Tensor

    def __init__(self, config: Config, encoder: Encoder, plan: Plan) -> None:
        super().__init__()
        _check(config, plan)
        self.config: Config = config
        self.plan = plan
        self.encoder = encoder
        batch_norm.split(self.encoder, config.bn_splits)
        self.head = projection_head(encoder.embed_dim, config.dim)
        self.key_encoder = encoder.copied().requires_grad_(False)
        self.key_head = projection_head(encoder.embed_dim, config.dim).requires_grad_(False)
        self.key_head.load_state_dict(self.head.state_dict())
        self.register_buffer("queue", F.normalize(torch.randn(config.queue, config.dim), dim=1))
        # Keys that the queue ever took: where the next ones go, and how full the queue is.
        self.register_buffer("enqueued", torch.zeros((), dtype=torch.long))
        self._keys: Tensor | None = None
        kinds = nn.BatchNorm1d | nn.BatchNorm2d
        self._has_batch_norm = any(isinstance(m, kinds) for m in encoder.modules())

    def views(self) -> Views:
        """The views of the settings."""
        return views(self.config)

    def param_groups(self) -> list[dict[str, Any]]:
        """One group: all parameters are treated alike (main_moco.py lines 293-298)."""
        parameters = [p for p in self.parameters() if p.requires_grad]
        nesterov = {"nesterov": self.config.nesterov} if self.config.optimizer == "sgd" else {}
        return [{"name": "all", "params": parameters, **nesterov}]

    def schedules(self) -> Mapping[str, Mapping[str, Schedule]]:
        """The learning rate (main_moco.py lines 497-506) and the constant weight decay."""
        lr = _learning_rate(self.config, self.plan)
        return {"all": {"lr": lr, "weight_decay": constant(self.config.weight_decay)}}

    @torch.no_grad()
    def before_forward(self, batch: Sequence[Sequence[Tensor]], update: int) -> None:
        """Moves the key encoder and computes all keys of the update (builder.py lines 151-162)."""
        ema_update(self.key_encoder, self.encoder, self.config.key_momentum)
        ema_update(self.key_head, self.head, self.config.key_momentum)
        self._keys = self._all_keys([views[1] for views in batch], update)

    def _all_keys(self, views: Sequence[Tensor], update: int) -> Tensor:
        """The keys [processes, micro-batches, B, dim] of the views of this process and of others.

        Where BatchNorm sees the tiles in several parts, the key encoder gets all tiles of the
        update in another order, and its keys are put back (builder.py lines 89-136).
        """
        shape = (world_size(), len(views), len(views[0]), self.config.dim)
        parts = world_size() * len(views) * self.config.bn_splits
        if parts == 1 or not self._has_batch_norm:
            return all_gather(torch.cat([self._embed_keys(view) for view in views])).view(shape)
        images = all_gather(torch.cat(list(views)))
        order = _order(len(images), update).to(images.device)
        shares = order.view(shape[:3])[rank()]
        shuffled = all_gather(torch.cat([self._embed_keys(images[share]) for share in shares]))
        return torch.empty_like(shuffled).index_copy_(0, order, shuffled).view(shape)

    def _embed_keys(self, images: Tensor) -> Tensor:
        return _directions(self.key_head(self.key_encoder.embed(images)))

    def forward(self, views: Sequence[Tensor], update: int, micro: int = 0) -> Loss:
        """The loss of normalised views [B, 3, S, S]; the second one's keys are there already."""
        assert self._keys is not None, "before_forward computes the keys"
        queries = _directions(self.head(self.encoder.embed(views[0])))
        loss = info_nce(queries, self._keys[rank(), micro], self.queue, self.config.temperature)
        fill = (self.enqueued / len(self.queue)).clamp(max=1)
        return Loss(total=loss.total, parts={**loss.parts, "queue_fill": fill})

    @torch.no_grad()
    def after_update(self, update: int) -> None:
        """Replaces the oldest keys of the queue, in the order of the tiles (builder.py 75-89)."""
        assert self._keys is not None, "before_forward computes the keys"
        keys = self._keys.flatten(0, 2)
        places = (self.enqueued + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue.index_copy_(0, places, keys)
        self.enqueued += len(keys)
        self._keys = None

    def export_encoder(self) -> Encoder:
        """The query encoder."""
        return self.encoder

    def chance_loss(self) -> float:
        """The logarithm of K + 1: a query is as near to every key."""
        return math.log(self.config.queue + 1)


def _check(config: Config, plan: Plan) -> None:
    if config.queue % plan.batch_size:
        fitting = max(round(config.queue / plan.batch_size), 1) * plan.batch_size
        raise UsageError(
            f"--method.queue {config.queue} is no multiple of --batch-size {plan.batch_size}; "
            f"--method.queue {fitting} is."
        )
    micro_batch = plan.batch_size // (world_size() * plan.micro_batches)
    if micro_batch % config.bn_splits:
        raise UsageError(
            f"--method.bn-splits {config.bn_splits} does not divide the {micro_batch} tiles that "
            "pass the encoder at once; choose a divisor, or another --batch-size."
        )


def _learning_rate(config: Config, plan: Plan) -> Schedule:
    peak = config.lr_per_256 * plan.batch_size / 256
    updates_a_step = plan.updates_per_epoch if config.lr_per == "epoch" else 1
    total = math.ceil(plan.updates / updates_a_step)
    if config.lr_schedule == "steps":
        falls = [round(share * total) for share in config.lr_steps]
        schedule = lambda at: peak * 0.1 ** sum(at >= fall for fall in falls)  # noqa: E731
    else:
        warmup = round(config.warmup * total)
        schedule = warmup_cosine(peak, 0.0, total, warmup, through_peak=False)
    return lambda update: schedule(update // updates_a_step)


def _order(count: int, update: int) -> Tensor:
    """A permutation that all processes, and a run that is resumed, draw alike."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(update))


def _directions(projections: Tensor) -> Tensor:
    with torch.autocast(projections.device.type, enabled=False):
        return F.normalize(at_least_float32(projections), dim=1)
