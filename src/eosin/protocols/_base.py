"""What a protocol settles, and how one is found, so that a number says how it was obtained.

A module of this folder is a choice; its `PROTOCOL` is called as the module is, with `-` and `.`
where the module's name has `_`. A protocol is never changed: other settings are a new version.
"""

from dataclasses import dataclass

from eosin import plugins
from eosin.errors import UsageError
from eosin.nuclei.settings import Training
from eosin.probes._base import Head
from eosin.protocols._division import Division


@dataclass(frozen=True, kw_only=True)
class FewShot:
    """Class means of a few labelled images, over many random choices of them."""

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Labelled images of each class."""
    episodes: int = 1000
    """How often they are drawn."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Training of all weights with a new linear layer, which starts at zero.

    Nothing but the learning rate is chosen: the length is fixed, and the last weights count.
    """

    learning_rates: tuple[float, ...]
    """Peaks to choose from, for a batch of 256; in proportion for another. One alone: no choice."""
    layer_decay: float
    """Each layer learns so many times as fast as the one above it; 1: all alike."""
    weight_decay: float
    """Of matrices and filters; norms, biases, class tokens and position embeddings have none."""
    epochs: int
    """How often each image is seen, between `min_updates` and `max_updates`."""
    warm_up: float
    """Share of the updates in which the learning rate rises; then it falls as a cosine."""
    batch_size: int
    """Images of an update, all of them where there are fewer."""
    optimizer: str
    """`adamw`, or `sgd` (momentum 0.9, Nesterov's)."""
    min_updates: int = 100
    """The fewest updates, since an epoch of few labels is short."""
    max_updates: int = 12_500
    """The most updates, since an epoch of many images is long."""
    flips: bool = True
    """Horizontal and vertical flips, and turns by 90 degrees."""
    crop_scale: tuple[float, float] = (0.6, 1.0)
    """Share of an image that a random crop covers."""
    jitter: tuple[float, float, float, float] = (0.2, 0.2, 0.2, 0.1)
    """Brightness, contrast, saturation and hue."""
    jitter_p: float = 0.8
    """How many images meet that jitter."""
    drop_path: float = 0.0
    """Rate of stochastic depth at the last block; it grows linearly from 0 at the first."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What is done with an encoder, down to what changes a number.

    Attributes:
        name: as it is asked for.
        version: raised with every change of a setting.
        source: where it is published: project, version and files.
        choices: each setting that its source does not tell, or that cannot be followed here, in a
            sentence; what it is instead is our choice.
        division: what is fitted on, and what hyper-parameters are chosen on.
        linear: the linear classifier; `None` where the protocol has none.
        knn: the nearest-neighbour classifier.
        few_shot: class means of a few images.
        finetune: training of all weights.
        nuclei: training of HoVer-Net, with the metric of its own that it reports.
        metric: the one that the protocol reports.
    """

    name: str
    version: int
    source: str
    division: Division
    metric: str
    choices: tuple[str, ...] = ()
    linear: Head | None = None
    knn: Head | None = None
    few_shot: FewShot | None = None
    finetune: FineTuning | None = None
    nuclei: Training | None = None

    @property
    def tasks(self) -> list[str]:
        """Names what it settles."""
        names = ("linear", "knn", "few_shot", "finetune", "nuclei")
        return [name for name in names if getattr(self, name) is not None]


def protocol_names() -> list[str]:
    """Lists the protocols."""
    return sorted(_load(module).name for module in plugins.names("protocols"))


def find_protocol(name: str) -> Protocol:
    """Gives a protocol by its name.

    Raises:
        UsageError: there is none of this name; the message lists those that exist.
    """
    module = name.replace("-", "_").replace(".", "_")
    if module in plugins.names("protocols") and _load(module).name == name:
        return _load(module)
    raise UsageError(
        f"There is no protocol {name!r}; choose one of: {', '.join(protocol_names())}."
    )


def describe(protocol: Protocol) -> list[str]:
    """Says what a protocol settles, where it is from, and which choices in it are ours."""
    reported = [protocol.metric] if set(protocol.tasks) - {"nuclei"} else []
    reported += [f"{protocol.nuclei.metric} of nuclei"] if protocol.nuclei else []
    lines = [
        f"{protocol.name} (version {protocol.version}): {', '.join(protocol.tasks)}; "
        f"reports {' and '.join(reported).replace('_', ' ')}",
        f"  from {protocol.source}",
    ]
    return lines + [f"  our choice: {choice}" for choice in protocol.choices]


def _load(module: str) -> Protocol:
    return plugins.load("protocols", module).PROTOCOL
