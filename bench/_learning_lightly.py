"""Pre-training with lightly's own parts: transform, head, loss, momentum update and schedule.

The training steps follow `mocov2.py`, `swav.py`, `barlowtwins.py` and `dino.py` of lightly's
`benchmarks/imagenet/resnet50` at e8d317f, and `vitb16/dino.py` for AdamW with DINO. What they count
in epochs, of 100, is here the same share of the run. The head of a key or of a teacher starts as a
copy of the query's or the student's, as in the papers; in those files it starts on its own.
"""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from lightly.loss import BarlowTwinsLoss, DINOLoss, NTXentLoss, SwaVLoss
from lightly.models.modules import (
    BarlowTwinsProjectionHead,
    DINOProjectionHead,
    MoCoProjectionHead,
    SwaVProjectionHead,
    SwaVPrototypes,
)
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import (
    batch_shuffle,
    batch_unshuffle,
    deactivate_requires_grad,
    update_momentum,
)
from lightly.transforms import (
    BYOLTransform,
    BYOLView1Transform,
    BYOLView2Transform,
    DINOTransform,
    MoCoV2Transform,
    SwaVTransform,
)
from lightly.utils.scheduler import cosine_schedule
from PIL import Image
from torch import Tensor, nn

from bench import _learning_settings as settings
from eosin.encoders import Encoder

Transform = Callable[[Image.Image], Sequence[Tensor]]


class LightlyMethod(nn.Module, ABC):
    """One of lightly's methods around an encoder, for a run of some updates."""

    def __init__(self, encoder: Encoder, updates: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.updates = updates

    @abstractmethod
    def transform(self) -> Transform:
        """What makes the views of a tile."""

    @abstractmethod
    def trained(self) -> Sequence[nn.Module]:
        """The modules that the optimizer gets."""

    @abstractmethod
    def loss(self, views: Sequence[Tensor], update: int) -> Tensor:
        """The loss of the views, with the momentum updates that precede it."""

    def on_gradients(self, update: int) -> None:
        """What happens between the backward pass and the optimizer."""

    def decay(self, update: int) -> float:
        """The weight decay of weights; biases and norms have none."""
        return settings.WEIGHT_DECAY

    def is_frozen(self, update: int) -> bool:
        """Whether prototypes or the last layer are held still."""
        return update < settings.frozen_updates(self.updates)


class MoCoV2(LightlyMethod):
    """`mocov2.py` lines 25-84."""

    def __init__(self, encoder: Encoder, updates: int) -> None:
        super().__init__(encoder, updates)
        sizes = encoder.embed_dim, encoder.embed_dim, settings.PROJECTION
        self.head = MoCoProjectionHead(*sizes)
        self.key_encoder = copy.deepcopy(encoder)
        self.key_head = copy.deepcopy(self.head)
        deactivate_requires_grad(self.key_encoder)
        deactivate_requires_grad(self.key_head)
        self.criterion = NTXentLoss(
            temperature=settings.MOCO_TEMPERATURE,
            memory_bank_size=(settings.MOCO_QUEUE, settings.PROJECTION),
        )

    def transform(self) -> Transform:
        """Lightly's MoCo v2 views."""
        return MoCoV2Transform(input_size=settings.VIEW_PX)

    def trained(self) -> Sequence[nn.Module]:
        """The query's encoder and head."""
        return self.encoder, self.head

    def loss(self, views: Sequence[Tensor], update: int) -> Tensor:
        """Queries of the second view against keys of the first."""
        queries = self.head(self.encoder(views[1]))
        update_momentum(self.encoder, self.key_encoder, m=settings.KEY_MOMENTUM)
        update_momentum(self.head, self.key_head, m=settings.KEY_MOMENTUM)
        with torch.no_grad():
            shuffled, shuffle = batch_shuffle(views[0])
            keys = batch_unshuffle(self.key_head(self.key_encoder(shuffled)), shuffle)
        return self.criterion(queries, keys)


class SwaV(LightlyMethod):
    """`swav.py` lines 24-105; the queue is counted from where it starts to fill."""

    def __init__(self, encoder: Encoder, updates: int) -> None:
        super().__init__(encoder, updates)
        self.head = SwaVProjectionHead(encoder.embed_dim, settings.MLP_WIDTH, settings.PROJECTION)
        self.prototypes = SwaVPrototypes(
            settings.PROJECTION, settings.SWAV_PROTOTYPES, n_steps_frozen_prototypes=1
        )
        rows = settings.SWAV_QUEUE_BATCHES * settings.BATCH
        self.queues = nn.ModuleList(
            MemoryBankModule(size=(rows, settings.PROJECTION)) for _ in range(2)
        )
        self.criterion = SwaVLoss()

    def transform(self) -> Transform:
        """Lightly's SwAV crops."""
        return SwaVTransform(
            crop_sizes=(settings.VIEW_PX, settings.LOCAL_PX),
            crop_counts=(2, settings.LOCAL_CROPS),
        )

    def trained(self) -> Sequence[nn.Module]:
        """The encoder, the head and the prototypes."""
        return self.encoder, self.head, self.prototypes

    def loss(self, views: Sequence[Tensor], update: int) -> Tensor:
        """Codes of the large crops, predicted from the other crops; each passes on its own."""
        self.prototypes.normalize()
        projections = [F.normalize(self.head(self.encoder(view)), dim=1) for view in views]
        step = 0 if self.is_frozen(update) else 1
        from_queue = self._from_queue(projections[:2], update, step)
        scores = [self.prototypes(each, step=step) for each in projections]
        return self.criterion(scores[:2], scores[2:], from_queue).squeeze()

    @torch.no_grad()
    def _from_queue(
        self, projections: Sequence[Tensor], update: int, step: int
    ) -> list[Tensor] | None:
        start = round(settings.SWAV_QUEUE_START * self.updates)
        if update < start:
            return None
        queued = [
            queue(each, update=True)[1].T
            for queue, each in zip(self.queues, projections, strict=True)
        ]
        if update - start <= settings.SWAV_QUEUE_BATCHES:
            return None
        return [self.prototypes(each, step=step) for each in queued]


class BarlowTwins(LightlyMethod):
    """`barlowtwins.py` lines 20-44."""

    def __init__(self, encoder: Encoder, updates: int) -> None:
        super().__init__(encoder, updates)
        width = settings.BARLOW_PROJECTOR
        self.head = BarlowTwinsProjectionHead(encoder.embed_dim, width, width)
        self.criterion = BarlowTwinsLoss(lambda_param=5e-3)

    def transform(self) -> Transform:
        """BYOL's views, which are Barlow Twins' too."""
        return BYOLTransform(
            BYOLView1Transform(input_size=settings.VIEW_PX),
            BYOLView2Transform(input_size=settings.VIEW_PX),
        )

    def trained(self) -> Sequence[nn.Module]:
        """The encoder and the head."""
        return self.encoder, self.head

    def loss(self, views: Sequence[Tensor], update: int) -> Tensor:
        """Both views pass together."""
        first, second = self.head(self.encoder(torch.cat(list(views)))).chunk(2)
        return self.criterion(first, second)


class DINO(LightlyMethod):
    """`dino.py` lines 26-84, 150-161 and 166; the decay of `vitb16/dino.py` lines 114-154."""

    def __init__(self, encoder: Encoder, updates: int) -> None:
        super().__init__(encoder, updates)
        self.student = copy.deepcopy(encoder)
        self.student_head, self.head = _dino_head(encoder), _dino_head(encoder)
        self.head.load_state_dict(self.student_head.state_dict())
        deactivate_requires_grad(self.encoder)
        deactivate_requires_grad(self.head)
        self.criterion = DINOLoss(output_dim=settings.DINO_OUTPUTS)

    def transform(self) -> Transform:
        """Lightly's DINO crops, with the scales that it takes for convolutional networks."""
        return DINOTransform(
            global_crop_size=settings.VIEW_PX,
            global_crop_scale=settings.DINO_SCALES[0],
            local_crop_size=settings.LOCAL_PX,
            local_crop_scale=settings.DINO_SCALES[1],
            n_local_views=settings.LOCAL_CROPS,
        )

    def trained(self) -> Sequence[nn.Module]:
        """The student."""
        return self.student, self.student_head

    def loss(self, views: Sequence[Tensor], update: int) -> Tensor:
        """The teacher follows first; crops of one size pass together."""
        momentum = cosine_schedule(update, self.updates, settings.TEACHER_MOMENTUM, 1.0)
        update_momentum(self.student, self.encoder, m=momentum)
        update_momentum(self.student_head, self.head, m=momentum)
        large, small = torch.cat(list(views[:2])), torch.cat(list(views[2:]))
        with torch.no_grad():
            teacher = self.head(self.encoder(large))
        student = torch.cat([self.student_head(self.student(each)) for each in (large, small)])
        return self.criterion(
            teacher_out=teacher.chunk(2), student_out=student.chunk(len(views)), teacher_temp=0.04
        )

    def on_gradients(self, update: int) -> None:
        """Clips by the norm of all gradients together, and holds the last layer still."""
        parameters = [each for module in self.trained() for each in module.parameters()]
        nn.utils.clip_grad_norm_(parameters, 3.0)
        self.student_head.cancel_last_layer_gradients(0 if self.is_frozen(update) else 1)

    def decay(self, update: int) -> float:
        """Rises by a cosine."""
        return cosine_schedule(update, self.updates, *settings.DINO_WEIGHT_DECAY)


def _dino_head(encoder: Encoder) -> DINOProjectionHead:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # it uses the old `weight_norm`
        return DINOProjectionHead(
            encoder.embed_dim,
            settings.MLP_WIDTH,
            settings.DINO_BOTTLENECK,
            settings.DINO_OUTPUTS,
            freeze_last_layer=1,
        )


METHODS = {"moco_v2": MoCoV2, "swav": SwaV, "barlow_twins": BarlowTwins, "dino": DINO}
