"""How HoVer-Net is trained, cut into windows, and chosen."""

from dataclasses import dataclass, field
from typing import Literal

from eosin.nuclei.hovernet import Geometry
from eosin.nuclei.loss import LossWeights
from eosin.nuclei.postprocess import PostProcessing

Choice = Literal["held out", "test", "last"]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training, with an optimizer of its own."""

    epochs: int
    """How often each window is seen, unless that makes less than `min_updates`."""
    batch_size: int
    """Windows of an update, all of them where there are fewer."""
    is_frozen: bool
    """Whether the encoder stays as it is, with its running statistics."""
    min_updates: int = 200
    """The fewest updates, since an epoch of few images is short."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The settings of a protocol for nuclei."""

    phases: tuple[Phase, ...] = (
        Phase(epochs=50, batch_size=16, is_frozen=True),
        Phase(epochs=50, batch_size=4, is_frozen=False),
    )
    """One after the other; weights go on, the optimizer starts anew."""
    learning_rate: float = 1e-4
    """Of Adam, without weight decay."""
    decay_at: float = 0.5
    """After this share of a phase the learning rate is a tenth."""
    input_px: int = 256
    """Side of the crops that the network sees."""
    geometry: Geometry = "same"
    """Whether all convolutions are padded."""
    width: float = 1.0
    """Share of HoVer-Net's channels."""
    window_px: int = 540
    """Side of the windows whose middle is augmented and cropped."""
    step_px: int = 164
    """From window to window."""
    weights: LossWeights = field(default_factory=LossWeights)
    """Of the loss."""
    official_targets: bool = False
    """Distance maps that are off by one pixel, as the authors' code has them."""
    contrast: bool = True
    """Change the contrast; the authors' code means to and does not."""
    metric: str = "pq"
    """What is reported, and chosen by: `pq`, `mpq`, `dice` and others of an image."""
    held_out: float = 0.15
    """Share of the training images that is held out, whole groups at a time."""
    chosen_on: Choice = "held out"
    """What the best of the measured weights is chosen on; `last`: nothing is chosen."""
    measured: int = 10
    """How often, evenly over the last phase, the network is measured to choose."""
    overlap_px: int = 64
    """How far windows of whole images overlap where all convolutions are padded."""
    post_processing: PostProcessing = field(default_factory=PostProcessing)
    """From the network's maps to nuclei."""
