"""What a run is: written into its folder at the start, and into its encoder at the end."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from eosin import atomic
from eosin.errors import InputError
from eosin.methods._base import Plan
from eosin.pretrain.config import Config
from eosin.pretrain.sources import TileSource
from eosin.provenance import plain, sha256_of, stamp

RUN = "run.json"
# What may differ between a run and its continuation, since the weights do not depend on it.
_FREE_FIELDS = {
    *("data", "out", "workers", "plan", "log_every", "track"),
    *("checkpoint_every", "keep_checkpoints", "most_skipped"),
    *("monitor_every", "monitor_on", "monitor_groups", "monitor_images"),
}


def claim_folder(config: Config, sources: Sequence[TileSource], world_size: int) -> None:
    """Writes what the run is, or checks that the folder holds the same run.

    Raises:
        InputError: it holds another one; the message says in what they differ.
    """
    description: dict[str, Any] = {
        "method_name": config.method_name,
        "config": plain(config),
        "tiles": [source.fingerprint for source in sources],
        "views_sha256": sha256_of(config.views()),
        "processes": world_size,
    }
    path = config.out / RUN
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
    if earlier["processes"] != world_size:
        differing.append(f"the number of processes (it was {earlier['processes']})")
    if differing:
        raise InputError(
            f"{config.out} holds a run that differs in: {', '.join(differing)}. "
            "Give another --out, or the settings of its run.json to resume it."
        )


def record_plan(folder: Path, plan: Mapping[str, Any]) -> None:
    """Adds to what the run is how long it is, and what its log is judged by."""
    run = json.loads((folder / RUN).read_text())
    if run.get("plan") != plan:
        atomic.write_json(folder / RUN, {**run, "plan": dict(plan)})


def provenance(
    config: Config, plan: Plan, sources: Sequence[TileSource], tiles_seen: int, world_size: int
) -> dict[str, Any]:
    """Says how an encoder came about, without the paths of the machine.

    Args:
        config: of the run.
        plan: of the run.
        sources: of its tiles.
        tiles_seen: until the encoder was taken.
        world_size: number of processes.
    """
    init = config.init
    portable = replace(
        config,
        data=tuple(map(_last_part, config.data)),
        init=_last_part(init) if init and Path(init).exists() else init,
        method=replace(config.method, stain=_last_part(config.method.stain)),
        monitor_on=None,
        monitor_groups=None,
        out=Path(),
    )
    return {
        "method": config.method_name,
        "config": plain(portable),
        "views": plain(config.views()),
        "config_sha256": sha256_of(portable),
        "data": [_describe(*each) for each in zip(config.data, sources, strict=True)],
        "tiles_seen": tiles_seen,
        "updates": plan.updates,
        "processes": world_size,
        **stamp(),
        "name": config.out.resolve().name,
    }


def _describe(location: str | Path, source: TileSource) -> dict[str, Any]:
    mpps = getattr(source, "mpps", ())  # of a tile store
    size = {"mpp": list(mpps), "tile_px": getattr(source, "tile_px", None)} if mpps else {}
    name = _last_part(location)
    return {"name": name, "tiles": len(source), **size, "sha256": source.fingerprint}


def _last_part(location: str | Path) -> str:
    """The name of a folder or file without where it lies; what follows a URL's `?` may be a key."""
    return Path(str(location).partition("?")[0]).name
