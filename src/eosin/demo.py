"""The whole line in one command: slides, tiles, two encoders, a comparison, a report."""

import json
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from eosin import atomic, recipes, synthetic
from eosin.datasets._base import Options
from eosin.errors import InputError, UsageError
from eosin.images import sheet
from eosin.pretrain import run as pretraining
from eosin.report import html as report
from eosin.store.tile_store import TileStore
from eosin.tasks import _evaluate as evaluation
from eosin.tiling import run as tiling

SYNTHETIC_NOTE = (
    "The images are synthetic: they show that the whole line works and that pre-training learns "
    "architecture that colour does not show. They say nothing about encoders on real tissue."
)
_FEWEST_TILES = 32
_SHEET_TILE_PX = 128
_LOG_LINES = 15


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much the demo does."""

    slides: int
    """Synthetic slides to pre-train on."""
    labelled_slides: int
    """Other synthetic slides, which labelled tiles are cut from."""
    tiles_per_class: int
    """Labelled tiles of each class."""
    tiles_seen: Mapping[str, int]
    """For each recipe, how many tiles its pre-training sees."""


SIZES = {
    "full": Size(
        slides=10,
        labelled_slides=40,
        tiles_per_class=320,
        tiles_seen={"barlow_twins_resnet10t_cpu": 15_360, "dino_vit_tiny_cpu": 2_432},
    ),
    "small": Size(
        slides=1,
        labelled_slides=8,
        tiles_per_class=40,
        tiles_seen={"barlow_twins_resnet10t_cpu": 512, "dino_vit_tiny_cpu": 128},
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the demo runs on, and where its output goes."""

    out: Path = Path("eosin-demo")
    """Folder for everything: tiles, runs, results and the report."""
    slides: tuple[Path, ...] = ()
    """Your own slides or folders of them; synthetic ones are drawn if none are given."""
    labelled: Path | None = None
    """Your own labelled images, one folder a class, or PatchCamelyon; goes with --slides."""
    groups: Path | None = None
    """CSV file that names the patient, slide or source image of each labelled image."""
    mpp: float = 0.5
    """Resolution of the tiles in micrometres per pixel."""
    tile_px: int = 128
    """Edge of a tile in pixels."""
    slide_mpp: float | None = None
    """Micrometres per pixel of the slides that do not say it themselves."""
    mpp_csv: Path | None = None
    """CSV file with the columns slide and mpp, for single slides."""
    size: Literal["full", "small"] = "full"
    """How much to do: small is a quick look whose figures mean nothing."""
    seed: int = 0
    """Seed of the encoders; the synthetic images are always the same."""

    def __post_init__(self) -> None:
        if bool(self.slides) != (self.labelled is not None):
            given, missing = ("slides", "labelled") if self.slides else ("labelled", "slides")
            raise UsageError(
                f"--{given} is given without --{missing}; give both for your own images, or "
                "neither for synthetic ones."
            )

    @property
    def is_synthetic(self) -> bool:
        """Whether the images are drawn."""
        return not self.slides


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a demo left behind."""

    report: report.Report
    tiling: tiling.TilingReport
    seconds: float

    @property
    def exit_code(self) -> int:
        """3 where slides were quarantined, as of `eosin tile`."""
        return self.tiling.exit_code


def run_demo(config: Config) -> Outcome:
    """Runs the whole line, or what an earlier run with this config has left to do.

    Raises:
        InputError: the input cannot be used; the message names it.
        Interrupted: stopped; the same command resumes.
    """
    started = time.monotonic()
    size = SIZES[config.size]
    _claim_folder(config)
    with _step(1, "slides"):
        slides, labelled = _images(config, size)
    with _step(2, "tiles"):
        tiled = _tile(config, slides)
    with _step(3, "pre-training with two methods"):
        runs = [_pretrain(config, name, tiles) for name, tiles in size.tiles_seen.items()]
    with _step(4, "comparison on images the encoders have not seen"):
        _evaluate(config, labelled, runs)
    with _step(5, "report"):
        written = _report(config, labelled, runs)
    return Outcome(report=written, tiling=tiled, seconds=time.monotonic() - started)


@contextmanager
def _step(number: int, what: str) -> Generator[None]:
    print(f"[{number}/5] {what}", file=sys.stderr)
    started = time.monotonic()
    yield
    print(f"[{number}/5] done in {time.monotonic() - started:.0f} s", file=sys.stderr)


def _claim_folder(config: Config) -> None:
    """Keeps a folder to one kind of input and size, so that no stage mixes two."""
    path = config.out / "demo.json"
    wanted = {"images": "synthetic" if config.is_synthetic else "given", "size": config.size}
    if path.is_file() and (found := json.loads(path.read_text())) != wanted:
        raise InputError(
            f"{config.out} holds a {found['size']} demo on {found['images']} images, and this is a "
            f"{config.size} one on {wanted['images']} images; give another --out."
        )
    atomic.write_json(path, wanted)


def _images(config: Config, size: Size) -> tuple[tuple[Path, ...], Path]:
    """The slides to pre-train on, and the labelled images of other slides."""
    if config.labelled is not None:
        return config.slides, config.labelled
    slides, labelled = config.out / "slides", config.out / "labelled"
    synthetic.write_slides(slides, count=size.slides)
    synthetic.write_labelled(
        labelled,
        slides=size.labelled_slides,
        tiles_per_class=size.tiles_per_class,
        tile_px=config.tile_px,
    )
    return (slides,), labelled


def _tile(config: Config, slides: tuple[Path, ...]) -> tiling.TilingReport:
    tiled = tiling.tile(
        tiling.Config(
            slides=slides,
            out=config.out / "tiles",
            mpp=(config.mpp,),
            tile_px=config.tile_px,
            slide_mpp=config.slide_mpp,
            mpp_csv=config.mpp_csv,
        )
    )
    for record in tiled.quarantined:
        print(f"quarantined: {record.path}: {record.reason}", file=sys.stderr)
    for record in tiled.notes:
        print(f"note: {record.path}: {record.note}", file=sys.stderr)
    if tiled.tiles < _FEWEST_TILES:
        raise InputError(
            f"--slides gave {tiled.tiles} tiles of {config.tile_px} px, and the demo needs "
            f"{_FEWEST_TILES}. Give more slides, or a smaller --tile-px."
        )
    return tiled


def _pretrain(config: Config, recipe: str, tiles_seen: int) -> Path:
    base = recipes.load(recipe)
    tiles = config.out / "tiles"
    # Few tiles make small batches, so that there are some updates in each pass over them.
    batch_size = min(base.batch_size, max(len(TileStore(tiles)) // 4, 2))
    return pretraining.pretrain_encoder(
        replace(
            base,
            data=(tiles,),
            out=config.out / "runs" / base.method_name,
            batch_size=batch_size,
            tiles_seen=tiles_seen,
            log_every=max(1, tiles_seen // batch_size // _LOG_LINES),
            seed=config.seed,
        )
    )


def _evaluate(config: Config, labelled: Path, runs: list[Path]) -> None:
    evaluation.evaluate(
        evaluation.Config(
            encoders=tuple(str(run) for run in runs),
            on=(labelled,),
            out=config.out / "results",
            grouping=Options(groups=config.groups),
            seed=config.seed,
        )
    )


def _report(config: Config, labelled: Path, runs: list[Path]) -> report.Report:
    picture = config.out / "report" / "tiles.png"
    _write_sheet(TileStore(config.out / "tiles"), picture)
    return report.write_report(
        report.Config(
            results=(config.out / "results",),
            out=config.out / "report",
            title="Eosin demo" if config.is_synthetic else f"Eosin demo on {labelled.name}",
            notes=(SYNTHETIC_NOTE,) if config.is_synthetic else (),
            gallery=(("Tiles that the encoders were pre-trained on", picture),),
            curves=tuple((run.parent.name, run.parent / "log.jsonl") for run in runs),
        )
    )


def _write_sheet(store: TileStore, path: Path, columns: int = 10, rows: int = 4) -> None:
    """Writes a picture of tiles spread evenly over the store."""
    chosen = np.linspace(0, len(store) - 1, columns * rows).astype(int).tolist()
    tiles = [sheet.resized(store.read(i), _SHEET_TILE_PX, _SHEET_TILE_PX) for i in chosen]
    sheet.write(path, sheet.grid(tiles, columns))
