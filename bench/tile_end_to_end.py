"""The whole command `eosin tile`, against a script of OpenSlide, Pillow and two processes.

    python -m bench.tile_end_to_end --json

Slides of 24,576 x 24,576 px (see `bench._mosaic`) become tiles of 512 px: at 0.5 mpp from slides of
0.25, the command's default, and at 0.25 mpp. Both sides are started anew and use two processes, and
what is measured is the wall time from start to end. The peer (`bench._openslide_loop`) is given the
places of the tiles that `eosin tile` finds, and neither looks for tissue nor scores, checks,
hashes, indexes or syncs anything: it reads level 0, averages where it must with Pillow or OpenCV,
whichever was faster, and writes JPEGs of quality 90 into a folder per slide. With 16 slides, the
second that a start takes is a tenth of the time; a real run has thousands. CPU seconds of all
processes are told too, since others may use the machine.
"""

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import openslide
import pyarrow.parquet as pq

from bench import _openslide_loop
from bench._compare import Contestant, arguments, as_line, measure, ratios, show, versions_of
from bench._mosaic import MPP, Mosaic, add_options, write_mosaic

WORKERS = 2
TILE_PX = 512
QUALITY = 90
_PLACES_FOR_A_TRIAL = 24


class Run:
    """One command: what it takes in CPU seconds, run by run, all its processes together."""

    def __init__(self, command: Sequence[str], out: Path) -> None:
        self._command, self._out = command, out
        self.cpu_seconds: list[float] = []

    def prepare(self) -> None:
        """Removes what the run before has written."""
        shutil.rmtree(self._out, ignore_errors=True)

    def run(self) -> None:
        """Runs the command to its end."""
        before = _cpu_of_children()
        done = subprocess.run(self._command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(self._command)} failed:\n{done.stderr}")
        self.cpu_seconds.append(_cpu_of_children() - before)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def choose_reduction(slide: dict[str, Any], source_px: int) -> str:
    """Says whether the peer is faster with Pillow or with OpenCV, from reading a few tiles."""
    chosen = {**slide, "places": slide["places"][:_PLACES_FOR_A_TRIAL]}

    def trial(name: str, out: Path) -> Callable[[], object]:
        job = {
            "out": str(out),
            "tile_px": TILE_PX,
            "source_px": source_px,
            "quality": QUALITY,
            "reduce_with": name,
        }
        return lambda: _openslide_loop.tile_slide(job, chosen)

    sides: list[Contestant] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in _openslide_loop.REDUCTIONS:
            out = Path(folder) / name
            sides.append(
                Contestant(
                    name, trial(name, out), lambda out=out: shutil.rmtree(out, ignore_errors=True)
                )
            )
        times = measure(sides, rounds=3, clock=time.process_time)
    return min(times, key=lambda name: statistics.median(times[name]))


def read_places(store: Path, slides: Sequence[Path]) -> list[dict[str, Any]]:
    """Reads where the tiles of each slide lie in a store."""
    found: list[dict[str, Any]] = []
    for slide in slides:
        (rows,) = (store / "tiles").glob(f"{slide.stem}-*.parquet")
        table = pq.read_table(rows, columns=["x", "y"]).to_pydict()
        places = list(zip(table["x"], table["y"], strict=True))
        found.append({"path": str(slide), "places": places})
    return found


def run_resolution(slides: Sequence[Path], mpp: float, folder: Path, rounds: int) -> dict[str, Any]:
    """Measures both sides at one resolution."""
    ours_out, peer_out = folder / "eosin", folder / "peer"
    words = ["-m", "eosin", "tile", "--slides", *map(str, slides), "--out", str(ours_out)]
    words += ["--mpp", str(mpp), "--tile-px", str(TILE_PX), "--workers", str(WORKERS), "--json"]
    ours = Run([sys.executable, *words], ours_out)
    ours.prepare()
    ours.run()
    places = read_places(ours_out, slides)
    count = sum(len(slide["places"]) for slide in places)
    source_px = round(TILE_PX * mpp / MPP)
    reduce_with = choose_reduction(places[0], source_px)
    job = {
        "out": str(peer_out),
        "workers": WORKERS,
        "tile_px": TILE_PX,
        "source_px": source_px,
        "quality": QUALITY,
        "reduce_with": reduce_with,
        "slides": places,
    }
    job_path = folder / "job.json"
    job_path.write_text(json.dumps(job))
    peer = Run([sys.executable, "-m", "bench._openslide_loop", str(job_path)], peer_out)
    peer_name = f"openslide {openslide.__version__} + Pillow"
    if source_px != TILE_PX and reduce_with != "Pillow":
        peer_name += f" + {reduce_with}"
    sides = [
        Contestant("eosin", ours.run, ours.prepare),
        Contestant(peer_name, peer.run, peer.prepare),
    ]
    # The run above has brought the slides into the page cache.
    times = measure(sides, rounds=rounds, warm_up=False)
    cpu = {"ours": ours.cpu_seconds[1:], "peer": peer.cpu_seconds}
    written = [path.stat().st_size for path in peer_out.rglob("*.jpg")]
    if len(written) != count:
        raise SystemExit(f"{count} tiles of ours against {len(written)} of the peer's.")
    ours_bytes = sum(path.stat().st_size for path in (ours_out / "shards").iterdir())
    peer_bytes = sum(written)
    line = as_line(
        f"tile_end_to_end: {mpp} mpp",
        "eosin",
        peer_name,
        times,
        count=count,
        unit="tiles/s",
        environment={"libraries": versions_of("openslide-bin", "pillow", "simplejpeg")},
    )
    ours_wall, peer_wall = (statistics.median(times[name]) for name in ("eosin", peer_name))
    print(
        f"{mpp} mpp: {count:,} tiles of {len(slides)} slides; eosin {ours_wall:.1f} s,"
        f" {ours_bytes / 1e6:.0f} MB; peer {peer_wall:.1f} s, {peer_bytes / 1e6:.0f} MB"
    )
    return line | {
        "cpu_ratio": statistics.median(ratios(cpu["ours"], cpu["peer"])),
        "ours_cpu_s": statistics.median(cpu["ours"]),
        "peer_cpu_s": statistics.median(cpu["peer"]),
        "ours_s": ours_wall,
        "peer_s": peer_wall,
        "ours_bytes": ours_bytes,
        "peer_bytes": peer_bytes,
        "tiles": count,
        "slides": len(slides),
        "workers": WORKERS,
    }


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "", rounds=3)
    add_options(parser)
    parser.add_argument("--slides", type=int, default=16, help="slides that are tiled")
    options = parser.parse_args()
    slides = [
        write_mosaic(Mosaic(edge_px=options.edge_px, seed=seed), options.data)
        for seed in range(options.slides)
    ]
    lines: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="eosin-bench-") as folder:
        # Four times as many tiles come at 0.25 mpp, so fewer slides do.
        for mpp, some in ((0.5, slides), (0.25, slides[: -(-len(slides) // 2)])):
            lines.append(run_resolution(some, mpp, Path(folder), options.rounds))
    lines[0]["name"] = "tile_end_to_end"
    show(lines, as_json=options.json, columns={"ratio of CPU": "cpu_ratio"})


if __name__ == "__main__":
    main()
