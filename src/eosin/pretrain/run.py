"""A pre-training run: tiles in, an encoder in timm's layout out."""

import json
import math
import os
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eosin import atomic
from eosin.encoders import Encoder, build_encoder
from eosin.encoders._base import create_timm_model
from eosin.encoders.vit import resizing_as_dino
from eosin.engine import precision as number_format
from eosin.engine.loop import LoopConfig, train
from eosin.engine.optimizers import build_optimizer
from eosin.errors import InputError, UsageError
from eosin.methods._base import Method, Plan
from eosin.pretrain.config import Config
from eosin.pretrain.data import Batch, batches
from eosin.pretrain.monitor import CollapseMonitor
from eosin.pretrain.sources import TileSource, open_source
from eosin.provenance import available_cores, plain, sha256_of, stamp
from eosin.weights import export_encoder, load_encoder

_MONITORED_TILES = 256
_MOST_WORKERS = 8
# What may differ between a run and its continuation, since the weights do not depend on it.
_FREE_FIELDS = ("data", "out", "workers", "checkpoint_every", "log_every")


def pretrain_encoder(config: Config) -> Path:
    """Pre-trains an encoder, or goes on where an earlier run with this config stopped.

    Returns:
        The folder of the exported encoder, `<out>/encoder`.

    Raises:
        InputError: the data, the encoder or the run's folder cannot be used; nothing was changed.
        Interrupted: the process was asked to stop; the same call resumes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("eosin pretrain runs in one process so far; start it without torchrun.")
    if not config.data:
        raise UsageError("--data is missing; give tile stores, image folders or HDF5 files.")
    if config.threads:
        torch.set_num_threads(config.threads)
    sources = [open_source(path) for path in config.data]
    plan = _plan(config, sum(len(source) for source in sources))
    config.views()  # which may read a file, and must fail before anything is written
    with atomic.locked(config.out):
        _claim_folder(config, sources)
        device = number_format.default_device()
        torch.manual_seed(config.seed)
        method = build_method(config, plan).to(device)
        method = method.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        encoder = method.export_encoder()
        _announce(config, plan, encoder, device)
        groups = method.param_groups()
        optimizer = build_optimizer(config.method.optimizer, groups)
        monitor = CollapseMonitor(method, _fixed_tiles(sources, encoder.input_px), plan.updates)

        loop = LoopConfig(
            updates=plan.updates,
            tiles_per_update=plan.batch_size,
            precision=config.precision,
            checkpoint_every=config.checkpoint_every,
            log_every=config.log_every,
            title=f"pre-training {config.method_name}",
        )
        with ExitStack() as loading:

            def prepared(start: int) -> Iterator[Sequence[Tensor]]:
                made = loading.enter_context(
                    closing(_batches(config, sources, plan, start, device))
                )
                return (_on_device(batch, encoder, device) for batch in made)

            train(method, optimizer, prepared, config.out, loop, device=device, monitor=monitor)
        folder = config.out / "encoder"
        export_encoder(method.export_encoder().cpu(), folder, _provenance(config, plan, sources))
    return folder


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
    return Encoder(resizing_as_dino(model), card)


def _plan(config: Config, tiles: int) -> Plan:
    if tiles < config.batch_size:
        raise InputError(
            f"--data holds {tiles:,} tiles, fewer than the {config.batch_size} of one update. "
            f"Give --batch-size {max(tiles // 2, 2)} or less, or more tiles."
        )
    updates_per_epoch = tiles // config.batch_size
    seen = config.tiles_seen or config.epochs * tiles
    return Plan(
        batch_size=config.batch_size,
        updates=max(math.ceil(seen / config.batch_size), 1),
        updates_per_epoch=updates_per_epoch,
    )


def _claim_folder(config: Config, sources: Sequence[TileSource]) -> None:
    """Writes what the run is, or checks that the folder holds the same run.

    Raises:
        InputError: it holds another one; the message says in what they differ.
    """
    description: dict[str, Any] = {
        "method_name": config.method_name,
        "config": plain(config),
        "tiles": [source.fingerprint for source in sources],
        "views_sha256": sha256_of(config.views()),
    }
    path = config.out / "run.json"
    if not path.is_file():
        atomic.write_json(path, {**description, "provenance": stamp()})
        return
    earlier = json.loads(path.read_text())
    differing = [
        name
        for name in (field.name for field in fields(config))
        if name not in _FREE_FIELDS and earlier["config"].get(name) != description["config"][name]
    ]
    if earlier["tiles"] != description["tiles"]:
        differing.append("the tiles of --data")
    if earlier.get("views_sha256") != description["views_sha256"] and "method" not in differing:
        differing.append("the views (the file of --method.stain, or the version of Eosin)")
    if earlier["method_name"] != config.method_name:
        differing.insert(0, f"the method (it was {earlier['method_name']})")
    if differing:
        raise InputError(
            f"{config.out} holds a run that differs in: {', '.join(differing)}. "
            "Give another --out, or the settings of its run.json to resume it."
        )


def _announce(config: Config, plan: Plan, encoder: Encoder, device: torch.device) -> None:
    """Prints what the run will do, before it starts."""
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    rates = [
        f"{name} {value:g} x {plan.batch_size}/256 = {value * plan.batch_size / 256:.4g}"
        for name, value in plain(config.method).items()
        if name.endswith("_per_256")
    ]
    lines = (
        f"{config.method_name} on {encoder.architecture} ({parameters / 1e6:.1f} M parameters), "
        f"{number_format.resolve(config.precision, device)} on {device}",
        f"{plan.updates:,} updates of {plan.batch_size} tiles = "
        f"{plan.updates * plan.batch_size:,} tiles seen",
        f"learning rate: {'; '.join(rates)}",
        f"run folder: {config.out}",
    )
    print("\n".join(lines), file=sys.stderr)


def _batches(
    config: Config,
    sources: Sequence[TileSource],
    plan: Plan,
    start: int,
    device: torch.device,
) -> Generator[Batch]:
    workers = min(available_cores(), _MOST_WORKERS) if config.workers is None else config.workers
    return batches(
        sources,
        config.data_weights or None,
        config.views(),
        batch_size=config.batch_size,
        seed=config.seed,
        start_update=start,
        total_updates=plan.updates,
        workers=workers,
        pinned=device.type == "cuda",
    )


def _on_device(batch: Batch, encoder: Encoder, device: torch.device) -> list[Tensor]:
    return [
        encoder.normalise(view.to(device, non_blocking=True)).contiguous(
            memory_format=torch.channels_last
        )
        for view in batch.views
    ]


def _fixed_tiles(sources: Sequence[TileSource], size_px: int) -> Tensor:
    """Tiles spread evenly over the sources, as uint8 [N, 3, S, S]."""
    places = [(source, index) for source in sources for index in _spread(len(source), len(sources))]
    tiles = [
        np.array(Image.fromarray(source.read(index)).resize((size_px, size_px)))
        for source, index in places
    ]
    return torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()


def _spread(count: int, sources: int) -> list[int]:
    wanted = min(max(_MONITORED_TILES // sources, 2), count)
    return np.linspace(0, count - 1, wanted).astype(int).tolist()


def _provenance(config: Config, plan: Plan, sources: Sequence[TileSource]) -> dict[str, Any]:
    portable = replace(
        config,
        data=tuple(map(_last_part, config.data)),
        method=replace(config.method, stain=_last_part(config.method.stain)),
        out=Path(),
    )
    return {
        "method": config.method_name,
        "config": plain(portable),
        "views": plain(config.views()),
        "config_sha256": sha256_of(portable),
        "tiles_sha256": [source.fingerprint for source in sources],
        "tiles_seen": plan.updates * plan.batch_size,
        **stamp(),
        "name": config.out.resolve().name,
    }


def _last_part(location: str | Path) -> str:
    """The name of a folder or file without where it lies; what follows a URL's `?` may be a key."""
    return Path(str(location).partition("?")[0]).name
