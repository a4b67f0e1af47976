"""The index of a tile store of 100 million tiles, against a Python list of samples.

    python -m bench.store_index --json

The store has 100,000 slides, whose rows are one file under many names, so that the disk holds them;
the index is then derived from them as `eosin tile` does. What is measured is opening, drawing at
random, and the memory of 8 processes that each open the store and touch its rows all over. The
peer is what loaders like torchvision's ImageFolder hold, a list with a tuple per sample, here of
path, offset and length with the path shared by a slide's tiles; it is built at 1/100 of the rows in
one process, inherited by 8 forked ones that touch it all over, and its figure scaled by 100.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench._compare import arguments, show
from eosin.progress import Bar
from eosin.provenance import stamp
from eosin.slides.quality import Quality
from eosin.store import records, shards
from eosin.store import tile_store as store
from eosin.store.records import SlideRecord
from eosin.store.shards import TilePlace
from eosin.store.tile_store import TileStore

SLIDES = 100_000
PROCESSES = 8
PEER_SHARE = 100

WORKER = """
import sys
from pathlib import Path
import numpy as np
from eosin.store.tile_store import TileStore
if sys.argv[1] == "open":
    tiles = TileStore(Path(sys.argv[2]))
    rng = np.random.default_rng(int(sys.argv[3]))
    for _ in range(80):
        tiles.index.rows["offset"][rng.integers(len(tiles), size=100_000)].sum()
print("ready", flush=True)
sys.stdin.read()
"""

OPENING = """
import sys, time
from pathlib import Path
from eosin.store.tile_store import TileStore
started = time.perf_counter()
len(TileStore(Path(sys.argv[1])))
print(time.perf_counter() - started)
"""

PEER = """
import os, random, sys
slides, per_slide = int(sys.argv[1]), int(sys.argv[2])
samples = []
for slide in range(slides):
    path = f"tiles/shards/slide_{slide:06d}-0123abcd.tar"
    samples += [(path, 512 + 60416 * tile, 60000 + tile) for tile in range(per_slide)]
for number in range(int(sys.argv[3])):
    if os.fork() == 0:
        random.seed(number)
        for _ in range(3 * len(samples)):
            path, offset, length = samples[random.randrange(len(samples))]
        os.write(1, f"ready {os.getpid()}\\n".encode())
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


def generate(folder: Path, rows: int, slides: int) -> None:
    """Writes a store's tables: `rows` tiles of `slides` slides, and no pixels."""
    store.create(folder, tile_px=512, mpps=[0.5], settings={})
    table = shards.Rows()
    for tile in range(rows // slides):
        place = TilePlace(1024 * (tile % 32), 1024 * (tile // 32), 0.5, 0.5, 0.9)
        table.add(place, Quality(100.0, 0.1, 0.0, 0.0), 512 + 60416 * tile, 60000 + tile, tile)
    record = SlideRecord(
        slide_id="slide_000000-0123abcd",
        path="slide_000000.svs",
        tiles=rows // slides,
        rows_sha256=shards.hash_rows(table.table()),
    )
    shards.commit(folder, record, table.table())
    first = shards.rows_path(folder, record.slide_id)
    every = [
        replace(record, slide_id=f"slide_{slide:06d}-0123abcd", path=f"slide_{slide:06d}.svs")
        for slide in range(slides)
    ]
    for other in every[1:]:
        # A file system allows some ten thousand names of one file.
        if int(other.slide_id[6:12]) % 10_000 == 0:
            shards.commit(folder, other, table.table())
            first = shards.rows_path(folder, other.slide_id)
        else:
            os.link(first, shards.rows_path(folder, other.slide_id))
    records.write_slides(folder, every)


def pss_mb(process: int) -> float:
    """A process's memory, in which what n processes share counts as an n-th (Linux)."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


def workers_mb(*words: str) -> float:
    """Memory of all worker processes together, once each has done its part."""
    commands = [[sys.executable, "-c", WORKER, *words, str(n)] for n in range(PROCESSES)]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(each, stdin=pipe, stdout=pipe, text=True) for each in commands]
    try:
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        return sum(pss_mb(worker.pid) for worker in workers)
    finally:
        for worker in workers:
            worker.communicate()


def peer_mb(rows: int, slides: int) -> float:
    """Memory of the processes that inherit a list of samples, without an interpreter's own."""
    words = [sys.executable, "-c", PEER, str(slides), str(rows // slides), str(PROCESSES)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout is not None
        children = [int(parent.stdout.readline().split()[1]) for _ in range(PROCESSES)]
        total = sum(map(pss_mb, children))
        parent.communicate()
    return total


def opening_s(folder: Path, *, cold: bool) -> float:
    """How long a fresh process takes to open the store, its imports aside."""
    if cold:
        for path in (folder / "slides.parquet", *(folder / "index").iterdir()):
            with open(path, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    words = [sys.executable, "-c", OPENING, str(folder)]
    return float(subprocess.run(words, capture_output=True, check=True).stdout)


def drawing_rates(tiles: TileStore) -> tuple[float, float]:
    """Rows of the index per second: one by one, and in batches of 256."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(len(tiles), size=200_000)
    started = time.perf_counter()
    for number in numbers.tolist():
        row = tiles.index.row(number)
        assert row["length"] > 0
    single = len(numbers) / (time.perf_counter() - started)
    numbers = rng.integers(len(tiles), size=(20_000, 256))
    started = time.perf_counter()
    for batch in numbers:
        assert tiles.index.rows[batch]["length"].all() and tiles.slide_numbers(batch).max() >= 0
    return single, numbers.size / (time.perf_counter() - started)


def measure(folder: Path, rows: int, slides: int, rounds: int) -> dict[str, object]:
    """Builds the index and measures it and the peer."""
    with Bar("building the index", 1, "indexes") as bar:
        started = time.perf_counter()
        tiles = TileStore(folder)
        build_s = time.perf_counter() - started
        bar.advance()
    assert len(tiles) == rows
    warm = [opening_s(folder, cold=False) for _ in range(rounds)]
    cold = [opening_s(folder, cold=True) for _ in range(rounds)]
    single, batched = drawing_rates(tiles)
    interpreters_mb = workers_mb("import", str(folder))
    ours = [workers_mb("open", str(folder)) for _ in range(rounds)]
    peer_slides = max(slides // PEER_SHARE, 1)
    bare = peer_mb(peer_slides, peer_slides)
    part = [peer_mb(rows // PEER_SHARE, peer_slides) for _ in range(rounds)]
    theirs = [(each - bare) * PEER_SHARE + bare for each in part]
    ratios = [other / own for own, other in zip(ours, theirs, strict=True)]
    return {
        "name": "store_index",
        "ours": statistics.median(ours),
        "peer": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "unit": "MB",
        "peer_name": f"a list of tuples, 1/{PEER_SHARE} measured and scaled",
        "rounds": rounds,
        "ours_spread": [min(ours), max(ours)],
        "peer_spread": [min(theirs), max(theirs)],
        "ratio_spread": [min(ratios), max(ratios)],
        "rows": rows,
        "slides": slides,
        "processes": PROCESSES,
        "index_mb": tiles.index.path.stat().st_size / 2**20,
        "interpreters_mb": interpreters_mb,
        "open_s": statistics.median(warm),
        "open_cold_s": statistics.median(cold),
        "build_s": build_s,
        "rows_per_s_one_by_one": single,
        "rows_per_s_in_batches": batched,
        "environment": stamp(),
    }


def main() -> None:
    """Runs the benchmark."""
    parser = arguments(__doc__ or "")
    parser.set_defaults(rounds=3)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--slides", type=int, default=SLIDES)
    options = parser.parse_args()
    slides = min(options.slides, options.rows)
    rows = options.rows // slides * slides
    with tempfile.TemporaryDirectory(prefix="eosin-bench-") as temporary:
        folder = Path(temporary) / "tiles"
        generate(folder, rows, slides)
        line = measure(folder, rows, slides, options.rounds)
    print(
        f"{rows:,} rows of {slides:,} slides: opened in {line['open_s']:.2f} s, with a cold page "
        f"cache {line['open_cold_s']:.2f} s; index derived once in {line['build_s']:.0f} s\n"
        f"drawn at random: {line['rows_per_s_one_by_one']:,.0f} rows/s one by one, "
        f"{line['rows_per_s_in_batches']:,.0f} rows/s in batches of 256\n"
        f"memory of {PROCESSES} processes: {line['ours']:,.0f} MB, of which the bare interpreters "
        f"{line['interpreters_mb']:,.0f} MB; one index has {line['index_mb']:,.0f} MB"
    )
    show([line], as_json=options.json)


if __name__ == "__main__":
    main()
