"""HoVer-Net trained in its phases, which a killed process can take up again."""

import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from eosin.atomic import replacing, write_json
from eosin.datasets._instances import InstanceImages
from eosin.encoders import Encoder
from eosin.engine import batch_norm, distributed
from eosin.engine.loop import LoopConfig, train
from eosin.engine.optimizers import build_optimizer
from eosin.engine.precision import Precision
from eosin.engine.trainable import Batch, Observer
from eosin.errors import UsageError
from eosin.nuclei.choice import Choosing, Measure
from eosin.nuclei.feeding import Feed, Indices, training_windows
from eosin.nuclei.hovernet import HoVerNet
from eosin.nuclei.segmenter import Segmenter, fix_unused
from eosin.nuclei.settings import Phase, Training
from eosin.provenance import sha256_of

CHECKPOINT_EVERY = 200
"""Updates between checkpoints; one is written too when a process is asked to stop."""
_DONE = "done.safetensors"
_SEEDS_APART = 1_000_003


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """What a training takes.

    Attributes:
        encoder: what the network stands on; its own weights stay as they are.
        images: the training images of a dataset.
        chosen: which of them are trained on.
        training: how.
        precision: number format of the forward passes.
        seed: of the decoders' first weights, the order and the augmentation.
        device: where to train.
    """

    encoder: Encoder
    images: InstanceImages
    chosen: Indices
    training: Training
    precision: Precision
    seed: int
    device: torch.device


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A trained network in evaluation mode, and how it came about, as plain JSON values."""

    network: HoVerNet
    facts: Mapping[str, Any]


def updates_of(phase: Phase, windows: int) -> int:
    """Gives the length of a phase over so many windows."""
    size = min(phase.batch_size, windows)
    return max(-(-phase.epochs * windows // size), phase.min_updates)


def train_hovernet(setup: Setup, measure: Measure | None, folder: Path) -> Trained:
    """Trains all phases, each from the newest checkpoint in `folder`.

    Args:
        setup: what to train, on what.
        measure: scores the network, to choose the best weights of the last phase by; called by
            the main process alone. `None`: the last weights are taken.
        folder: for checkpoints and logs; it lasts.

    Raises:
        Diverged: the loss or the weights ceased to be numbers.
        InputError: an image cannot be read.
        Interrupted: the process was asked to stop; the same call goes on.
        UsageError: processes cannot share a batch evenly.
    """
    _claim(setup, folder)
    windows = len(training_windows(setup.images, setup.chosen, setup.training))
    state: Mapping[str, Tensor] | None = None
    facts: dict[str, Any] = {"windows": windows, "updates": []}
    phases = setup.training.phases
    for number, phase in enumerate(phases):
        own = folder / f"phase-{number + 1}"
        is_last = number == len(phases) - 1
        updates = updates_of(phase, windows)
        facts["updates"].append(updates)
        done = own / _DONE
        if not distributed.from_main(done.is_file()):
            choosing = _choosing(setup, measure, own) if is_last else None
            _train_phase(setup, phase, number, updates, windows, state, own, choosing)
        state = load_file(done, device=str(setup.device))
        if is_last and measure is not None:
            facts |= _choosing(setup, measure, own).best()
    assert state is not None, "a training has at least one phase"
    network = _make_network(setup, phases[-1])
    network.load_state_dict(dict(state))
    return Trained(network=network.eval(), facts=facts)


def _choosing(setup: Setup, measure: Measure | None, own: Path) -> Choosing:
    return Choosing(own, measure, setup.training.metric, setup.training.measured)


def _train_phase(
    setup: Setup,
    phase: Phase,
    number: int,
    updates: int,
    windows: int,
    state: Mapping[str, Tensor] | None,
    own: Path,
    choosing: Choosing | None,
) -> None:
    training, size = setup.training, min(phase.batch_size, windows)
    if size % distributed.world_size():
        raise UsageError(
            f"{distributed.world_size()} processes cannot share updates of {size} windows evenly; "
            "start a number that divides it."
        )
    with _seeded(setup, number):
        network = _make_network(setup, phase)
        if state is not None:
            network.load_state_dict(dict(state))
        fix_unused(network, training.input_px)
        decay_at = round(training.decay_at * updates)
        segmenter = Segmenter(network, training.weights, training.learning_rate, decay_at)
        batch_norm.synchronise(segmenter)
        segmenter.train()
        feed = Feed(
            setup.images,
            setup.chosen,
            setup.encoder,
            training,
            output_px=network.output_px(training.input_px),
            batch_size=size,
            updates=updates,
            seed=setup.seed + number * _SEEDS_APART,
            device=setup.device,
        )
        observer = choosing.observer(network, updates) if choosing else Observer()
        every = choosing.every(updates) if choosing else updates
        title = f"training on {setup.encoder.name}, phase {number + 1}"
        _loop(setup, segmenter, feed, own, observer, updates, size, every, title)
    if distributed.is_main():
        best = choosing.weights() if choosing else None
        _save(best or network.state_dict(), own / _DONE)
        shutil.rmtree(own / "checkpoints", ignore_errors=True)
    distributed.barrier()


def _loop(
    setup: Setup,
    segmenter: Segmenter,
    feed: Callable[[int], Generator[Batch]],
    own: Path,
    observer: Observer,
    updates: int,
    size: int,
    every: int,
    title: str,
) -> None:
    loop = LoopConfig(
        updates=updates,
        tiles_per_update=size,
        precision=setup.precision,
        checkpoint_every=min(CHECKPOINT_EVERY, every),
        measure_every=every,
        title=title,
    )
    with ExitStack() as loading:

        def batches(start: int) -> Iterator[Batch]:
            return loading.enter_context(closing(feed(start)))

        # Without weight decay AdamW is Adam.
        optimizer = build_optimizer("adamw", segmenter.groups())
        train(
            cast(Any, segmenter),
            optimizer,
            batches,
            own,
            loop,
            device=setup.device,
            observer=observer,
        )


def _make_network(setup: Setup, phase: Phase) -> HoVerNet:
    training = setup.training
    encoder = setup.encoder.thawed()
    encoder = encoder.freeze() if phase.is_frozen else encoder
    network = HoVerNet(
        encoder, len(setup.images.classes), geometry=training.geometry, width=training.width
    )
    return network.to(setup.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def _claim(setup: Setup, folder: Path) -> None:
    """Takes up a folder of the very same training, and empties one of another."""
    job = sha256_of(
        {
            "training": repr(setup.training),
            "encoder": setup.encoder.weights_sha256(),
            "images": setup.images.manifest_sha256,
            "chosen": setup.chosen.tolist(),
            "seed": setup.seed,
            "precision": setup.precision,
            "processes": distributed.world_size(),
        }
    )
    path = folder / "job.json"
    if distributed.is_main() and not (path.is_file() and job in path.read_text()):
        shutil.rmtree(folder, ignore_errors=True)
        write_json(path, {"job": job})
    distributed.barrier()


@contextmanager
def _seeded(setup: Setup, number: int) -> Generator[None]:
    """Draws the first weights alike in all processes, and leaves the generators as they were."""
    devices = [setup.device] if setup.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(setup.seed + number * _SEEDS_APART)
        yield
