"""A pre-training run: tiles in, an encoder in timm's layout out."""

import copy
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from eosin import atomic
from eosin.datasets._base import find_dataset
from eosin.encoders import Encoder, build_encoder
from eosin.encoders._base import create_timm_model
from eosin.encoders.vit import resizing_as_dino
from eosin.engine import distributed
from eosin.engine.checkpoint import load_checkpoint
from eosin.engine.loop import LoopConfig, train
from eosin.engine.optimizers import build_optimizer
from eosin.engine.precision import default_device
from eosin.engine.trainable import Batch, Observer
from eosin.errors import UsageError
from eosin.methods._base import Method, Plan
from eosin.pretrain.config import Config
from eosin.pretrain.feeding import on_device, start_batches
from eosin.pretrain.observer import RunObserver, WarmUp, find_best
from eosin.pretrain.plan import describe, make_plan
from eosin.pretrain.record import claim_folder, provenance
from eosin.pretrain.sources import TileSource, open_source
from eosin.pretrain.trackers import check_trackers
from eosin.weights import export_encoder, load_encoder

_WARM_UP_UPDATES = 6
_SEEDS_APART = 1_000_003


def pretrain_encoder(config: Config) -> Path:
    """Pre-trains an encoder, or goes on where an earlier run with this config stopped.

    Where `torchrun` started several processes, each calls it and trains on its share.

    Returns:
        The folder of the exported encoder, `<out>/encoder`.

    Raises:
        InputError: the data, the encoder or the run's folder cannot be used; nothing was changed.
        Interrupted: the process was asked to stop; the same call resumes.
    """
    device = default_device()
    with distributed.process_group(device), ExitStack() as held:
        run = _open(config, device)
        if distributed.is_main():
            held.enter_context(atomic.locked(config.out))
            claim_folder(config, run.sources, distributed.world_size())
        distributed.barrier()
        method = run.build()
        run.announce(method)
        observer = run.observe(method, held) if distributed.is_main() else Observer()
        run.train(method, config.out, run.plan.updates, observer)
        if distributed.is_main():
            run.export(method)
        distributed.barrier()
    return config.out / "encoder"


def plan_pretraining(config: Config) -> str:
    """Tells what a run would do, with the time and the memory of its first updates.

    They are taken in a folder that is removed; the run's own is neither read nor written.

    Raises:
        InputError: the data or the encoder cannot be used.
    """
    device = default_device()
    with distributed.process_group(device), tempfile.TemporaryDirectory("eosin-plan") as folder:
        run = _open(config, device)
        method = run.build()
        observer = WarmUp(run.plan, device)
        run.train(method, Path(folder), min(_WARM_UP_UPDATES, run.plan.updates), observer)
        return "\n".join([*run.description(method), *observer.notes])


def _open(config: Config, device: torch.device) -> "_Run":
    """Opens all that a run needs, and fails before anything is written."""
    if not config.data:
        raise UsageError("--data is missing; give tile stores, image folders or HDF5 files.")
    if config.threads:
        torch.set_num_threads(config.threads)
    sources = [open_source(path) for path in config.data]
    plan = make_plan(config, sum(map(len, sources)))
    config.views()  # which may read a file
    check_trackers(config.track)
    if config.monitor_on is not None:
        find_dataset(config.monitor_on)
    return _Run(config=config, sources=sources, plan=plan, device=device)


@dataclass(frozen=True, kw_only=True)
class _Run:
    config: Config
    sources: Sequence[TileSource]
    plan: Plan
    device: torch.device

    def build(self) -> Method:
        """The same method in every process; what is drawn at random from then on differs."""
        torch.manual_seed(self.config.seed)
        method = build_method(self.config, self.plan).to(self.device)
        method = method.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        if self.config.compile:
            for module in method.modules():
                if isinstance(module, Encoder):
                    module.model.compile()
        if distributed.rank():
            torch.manual_seed(self.config.seed + distributed.rank() * _SEEDS_APART)
        return method

    def description(self, method: Method) -> list[str]:
        tiles = sum(map(len, self.sources))
        return describe(self.config, self.plan, tiles, method.export_encoder(), self.device)

    def announce(self, method: Method) -> None:
        """Prints what the run will do, before it starts."""
        if distributed.is_main():
            print("\n".join(self.description(method)), file=sys.stderr)

    def observe(self, method: Method, held: ExitStack) -> Observer:
        """Opens what looks on, which `held` closes."""
        config, sources = self.config, self.sources
        observer = RunObserver(config, self.plan, method, sources, self.device)
        return held.enter_context(closing(observer))

    def train(self, method: Method, folder: Path, updates: int, observer: Observer) -> None:
        """Takes the first `updates` updates of the run."""
        config, plan = self.config, self.plan
        optimizer = build_optimizer(config.method.optimizer, method.param_groups())
        loop = LoopConfig(
            updates=updates,
            tiles_per_update=plan.batch_size,
            precision=config.precision,
            checkpoint_every=config.checkpoint_every,
            keep_checkpoints=config.keep_checkpoints,
            log_every=config.log_every,
            measure_every=config.monitor_every or config.checkpoint_every,
            most_skipped=config.most_skipped,
            title=f"pre-training {config.method_name}",
        )
        encoder = method.export_encoder()
        with ExitStack() as loading:

            def batches(start: int) -> Iterator[Batch]:
                made = start_batches(config, self.sources, plan, start, self.device)
                loading.enter_context(closing(made))
                return (on_device(batch, config, plan, encoder, self.device) for batch in made)

            train(method, optimizer, batches, folder, loop, device=self.device, observer=observer)

    def export(self, method: Method) -> None:
        """Writes the trained encoder, and the one with the best score where there are scores."""
        best = find_best(self.config.out)
        if best is not None:
            state = load_checkpoint(best)
            last = copy.deepcopy(method.state_dict())
            method.load_state_dict(state["module"])
            self._export(method, "best_encoder", state["update"])
            method.load_state_dict(last)
        self._export(method, "encoder", self.plan.updates)

    def _export(self, method: Method, name: str, updates: int) -> None:
        seen, processes = updates * self.plan.batch_size, distributed.world_size()
        origin = provenance(self.config, self.plan, self.sources, seen, processes)
        export_encoder(method.export_encoder().cpu(), self.config.out / name, origin)


def build_method(config: Config, plan: Plan) -> Method:
    """Builds the method around a new encoder, or around the one to continue from."""
    module = config.method_module
    view_px = max(config.views().sizes)
    name = config.encoder or module.ENCODER
    if config.init:
        encoder = load_encoder(config.init)
        encoder = _for_training(encoder, module.encoder_args(encoder.architecture))
    else:
        encoder = build_encoder(name, input_px=view_px, **module.encoder_args(name))
    return module.build(config.method, encoder, plan)


def _for_training(encoder: Encoder, args: dict[str, Any]) -> Encoder:
    """The same weights in a model that has what the method trains with, such as drop path."""
    card = encoder.card
    model = create_timm_model(card.architecture, {**card.model_args, **args})
    model.load_state_dict(encoder.model.state_dict())
    rebuilt = Encoder(resizing_as_dino(model), replace(card, stem_stride=None))
    return rebuilt if card.stem_stride is None else rebuilt.with_stem_stride(card.stem_stride)
