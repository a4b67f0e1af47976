import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
import tifffile

from eosin import atomic
from eosin.errors import InputError, Interrupted, UsageError
from eosin.slides.reader import open_slide
from eosin.store import shards
from eosin.store.records import SlideRecord
from eosin.store.tile_store import TileStore
from eosin.tiling import run as tiling
from eosin.tiling.cutting import Job, Report
from eosin.tiling.run import Config, tile

WriteSlide = Callable[..., Path]


def _config(tmp_path: Path, **options: Any) -> Config:
    defaults: dict[str, Any] = {
        "slides": (tmp_path / "slides",),
        "out": tmp_path / "store",
        "tile_px": 64,
        "workers": 1,
    }
    return Config(**(defaults | options))


def _content(folder: Path) -> dict[str, bytes]:
    """Every file of a store; of `store.json` all but the stamp, which holds the time."""
    content = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    header = json.loads(content.pop("store.json"))
    del header["provenance"]
    return content | {"store.json": json.dumps(header).encode()}


def test_slides_become_tiles_of_tissue(write_slide: WriteSlide, tmp_path: Path) -> None:
    paths = [write_slide("a.tif", seed=1), write_slide("cohort/b.tif", seed=2)]
    report = tile(_config(tmp_path))
    assert (report.done, report.skipped, report.quarantined, report.exit_code) == (2, 0, (), 0)
    tiles = TileStore(tmp_path / "store")
    assert len(tiles) == report.tiles > 40
    assert report.bytes == sum(slide.bytes for slide in tiles.slides)
    assert tiles.verify() == []
    assert [(slide.path, slide.group) for slide in tiles.slides] == [
        ("a.tif", None),
        ("cohort/b.tif", "cohort"),
    ]
    number = 0
    for path, slide_id in zip(paths, tiles.slide_ids, strict=True):
        with open_slide(path) as slide:
            for row in shards.read_rows(tiles.folder, slide_id).to_pylist():
                pixels = slide.read(row["x"], row["y"], 64, 0.5)
                assert cv2.PSNR(tiles.read(number), pixels) > 40
                assert row["tissue"] >= 0.5 and row["mpp"] == pytest.approx(0.5)
                number += 1
        mask = cv2.imread(str(shards.mask_path(tiles.folder, slide_id)), cv2.IMREAD_UNCHANGED)
        assert set(np.unique(mask)) == {0, 255}
    assert number == len(tiles)


def test_the_resolution_that_was_read_is_recorded(write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide("native.tif", mpp=0.504)
    write_slide("reduced.tif", mpp=0.4)
    write_slide("second.tif", mpp=0.25)
    write_slide("third.tif", mpp=0.25, levels=1)
    write_slide("zfourth.tif", mpp=0.2, levels=1)
    report = tile(_config(tmp_path))
    slides = TileStore(tmp_path / "store").slides
    reached = [one for slide in slides for one in slide.reached]
    assert [(one.level, one.scale, one.reduction) for one in reached] == [
        (0, 1, 1.0),
        (0, 1, pytest.approx(1.25)),
        (1, 1, 1.0),
        (0, 2, 1.0),
        (0, 2, pytest.approx(1.25)),
    ]
    assert [one.mpp for one in reached] == pytest.approx([0.504, 0.5, 0.5, 0.5, 0.5])
    assert report.ways == (
        "0.5 mpp: averaged by 1.250 on 1 slide",
        "0.5 mpp: decoded at 1/2 on 1 slide",
        "0.5 mpp: decoded at 1/2, averaged by 1.250 on 1 slide",
        "0.5 mpp: pixels of a level as they are on 2 slides",
    )
    native, reduced, second, third, _ = (
        shards.read_rows(tmp_path / "store", slide.slide_id).to_pylist() for slide in slides
    )
    assert native[0]["mpp"] == pytest.approx(0.504)
    assert reduced[0]["mpp"] == 0.5
    assert {row["x"] % 80 for row in reduced} == {0}
    assert {row["x"] % 128 for row in second} == {row["x"] % 128 for row in third} == {0}


def test_processes_give_the_same_store_as_one(write_slide: WriteSlide, tmp_path: Path) -> None:
    for seed in range(3):
        write_slide(f"{seed}.tif", seed=seed)
    tile(_config(tmp_path, out=tmp_path / "one"))
    report = tile(_config(tmp_path, out=tmp_path / "two", workers=2))
    assert report.done == 3
    assert _content(tmp_path / "one") == _content(tmp_path / "two")


def test_bad_slides_are_quarantined_and_the_rest_is_tiled(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    write_slide("good.tif")
    write_slide("no_mpp.tif", mpp=None)
    write_slide("coarse.tif", mpp=1.0)
    write_slide("tiny.tif", size_px=(40, 40), levels=1)
    (tmp_path / "slides" / "text.svs").write_text("not a slide")
    report = tile(_config(tmp_path))
    assert report.exit_code == 3
    reasons = {record.path: record.reason for record in report.quarantined}
    assert set(reasons) == {"no_mpp.tif", "coarse.tif", "tiny.tif", "text.svs"}
    for path, words in {
        "no_mpp.tif": "--slide-mpp",
        "coarse.tif": "larger --mpp",
        "tiny.tif": "smaller than one tile",
        "text.svs": "not a slide",
    }.items():
        assert words in (reasons[path] or "")
    tiles = TileStore(tmp_path / "store")
    assert [slide_id.split("-")[0] for slide_id in tiles.slide_ids] == ["good"]
    assert {slide.path for slide in tiles.slides if slide.reason} == set(reasons)
    assert tiles.verify() == []


def test_a_slide_of_glass_is_quarantined(write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide(size_px=(300, 300))
    (record,) = tile(_config(tmp_path, min_tissue=1.0, tile_px=256)).quarantined
    assert "no tile with 100% tissue" in (record.reason or "")
    assert shards.mask_path(tmp_path / "store", record.slide_id).is_file()


def test_a_quarantined_slide_is_mended_by_its_override(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    write_slide("known.tif", mpp=0.5)
    write_slide("unknown.tif", mpp=None)
    assert tile(_config(tmp_path)).exit_code == 3
    before = len(TileStore(tmp_path / "store"))
    report = tile(_config(tmp_path, slide_mpp=0.25))
    assert (report.done, report.skipped, report.exit_code) == (1, 1, 0)
    tiles = TileStore(tmp_path / "store")
    assert len(tiles) > before
    assert [(s.path, s.mpp_source) for s in tiles.slides] == [
        ("known.tif", "file"),
        ("unknown.tif", "slide_mpp"),
    ]
    assert tiles.slides[0].mpp == pytest.approx(0.5)
    assert tile(_config(tmp_path)).skipped == 2
    with pytest.raises(InputError, match=r"tiled as a slide of 0\.25 mpp, and --slide-mpp now"):
        tile(_config(tmp_path, slide_mpp=0.3))


def test_the_csv_overrides_a_slides_own_mpp(write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide("a.tif", mpp=0.5)
    (tmp_path / "mpp.csv").write_text("slide,mpp\na,0.25\n")
    tile(_config(tmp_path, mpp_csv=tmp_path / "mpp.csv", slide_mpp=2.0))
    (slide,) = TileStore(tmp_path / "store").slides
    assert (slide.mpp, slide.mpp_source, slide.reached[0].level) == (0.25, "mpp_csv", 1)
    (tmp_path / "mpp.csv").write_text("slide,mpp\na,0.5\n")
    with pytest.raises(InputError, match=r"--mpp-csv now says 0\.5"):
        tile(_config(tmp_path, mpp_csv=tmp_path / "mpp.csv"))


def test_finished_slides_are_skipped_and_new_ones_added(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    write_slide("a.tif")
    tile(_config(tmp_path))
    shard = next((tmp_path / "store" / "shards").glob("*.tar"))
    written = shard.stat().st_mtime_ns
    write_slide("b.tif")
    report = tile(_config(tmp_path))
    assert (report.done, report.skipped) == (1, 1)
    assert shard.stat().st_mtime_ns == written
    assert len(TileStore(tmp_path / "store").slide_ids) == 2


def test_a_lost_or_damaged_slide_is_tiled_again(write_slide: WriteSlide, tmp_path: Path) -> None:
    for seed in range(3):
        write_slide(f"{seed}.tif", seed=seed)
    tile(_config(tmp_path))
    expected = _content(tmp_path / "store")
    first, second, third = TileStore(tmp_path / "store").slide_ids
    shards.shard_path(tmp_path / "store", first).unlink()
    shards.rows_path(tmp_path / "store", second).write_bytes(b"PAR1")
    shard = shards.shard_path(tmp_path / "store", third)
    shard.write_bytes(shard.read_bytes()[:3000])
    assert tile(_config(tmp_path)).done == 3
    assert _content(tmp_path / "store") == expected


def test_other_settings_are_refused_on_resume(write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide()
    tile(_config(tmp_path))
    with pytest.raises(InputError, match=r"tile_px was 64 and is now 32; quality was None and is"):
        tile(_config(tmp_path, tile_px=32, quality=80))
    assert tile(_config(tmp_path, workers=2, slide_mpp=0.25, seed=9)).skipped == 1


def test_two_runs_on_one_folder_are_refused(write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide()
    with (
        atomic.locked(tmp_path / "store"),
        pytest.raises(InputError, match="being written by another run"),
    ):
        tile(_config(tmp_path))


def test_a_folder_with_other_things_in_it_is_refused(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    write_slide()
    with pytest.raises(InputError, match="neither empty nor a tile store"):
        tile(_config(tmp_path, out=tmp_path))


def test_at_most_so_many_tiles_are_drawn_by_the_seed(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    write_slide()
    drawn: list[list[tuple[int, int]]] = []
    for name, seed in (("one", 0), ("again", 0), ("two", 1)):
        config = _config(tmp_path, out=tmp_path / name, max_tiles=9, seed=seed)
        assert tile(config).tiles == 9
        (slide_id,) = TileStore(config.out).slide_ids
        rows = shards.read_rows(config.out, slide_id).to_pylist()
        drawn.append([(row["y"], row["x"]) for row in rows])
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(drawn[0])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("slides", ()),
        ("mpp", ()),
        ("mpp", (0.0,)),
        ("mpp", (float("nan"),)),
        ("mpp", (0.5, 0.5)),
        ("overlap_px", 64),
        ("overlap_px", -1),
        ("format", "png"),
        ("format", "webp"),
        ("pixels", "ram"),
        ("verify_pixels", -1),
        ("slide_mpp", -1.0),
        ("tile_px", 8),
        ("min_tissue", 1.5),
        ("quality", 0),
        ("max_tiles", 0),
        ("workers", 0),
        ("tissue", "magic"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, option: str, value: object) -> None:
    with pytest.raises(UsageError):
        tile(_config(tmp_path, **{option: value}))
    assert not (tmp_path / "store").exists()


def test_a_full_disk_stops_the_run_and_leaves_it_resumable(
    write_slide: WriteSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        write_slide(f"{seed}.tif", seed=seed)
    tile(_config(tmp_path, out=tmp_path / "whole"))
    add, left = shards.Shard.add, [60]

    def add_until_full(self: shards.Shard, *values: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        add(self, *values)

    with monkeypatch.context() as patch:
        patch.setattr(shards.Shard, "add", add_until_full)
        with pytest.raises(Interrupted, match=r"No space left on device.*same command resumes"):
            tile(_config(tmp_path))
    with pytest.raises(InputError, match="unfinished"):
        TileStore(tmp_path / "store")
    assert tile(_config(tmp_path)).skipped == 1
    assert _content(tmp_path / "store") == _content(tmp_path / "whole")


def test_ctrl_c_leaves_the_run_resumable(
    write_slide: WriteSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        write_slide(f"{seed}.tif", seed=seed)
    tile_slide = tiling.tile_slide

    def second_is_stopped(job: Job, report: Report) -> SlideRecord:
        if list((tmp_path / "store" / "tiles").glob("[!.]*")):
            raise KeyboardInterrupt
        return tile_slide(job, report)

    with monkeypatch.context() as patch:
        patch.setattr(tiling, "tile_slide", second_is_stopped)
        with pytest.raises(Interrupted, match="after 1 of 2 slides"):
            tile(_config(tmp_path))
    report = tile(_config(tmp_path))
    assert (report.done, report.skipped) == (1, 1)


_RUN = """
import os
import signal
import sys
from pathlib import Path

from eosin.store import records, shards
from eosin.tiling.run import Config, tile

left = int(sys.argv[3])


def dying(call):
    def count_down(*arguments):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    return count_down


if __name__ == "__main__":
    folder, workers = Path(sys.argv[1]), int(sys.argv[2])
    os.replace = dying(os.replace)
    shards.Shard.add = dying(shards.Shard.add)
    tile(Config(slides=(folder / "slides",), out=folder / "store", tile_px=64, workers=workers))
"""


def _start_run(folder: Path, workers: int, dies_at: int) -> "subprocess.Popen[bytes]":
    """Starts a run that kills itself before its n-th tile or renaming; never, if n is 0."""
    (folder / "run.py").write_text(_RUN)
    command = [sys.executable, str(folder / "run.py"), str(folder), str(workers), str(dies_at)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def test_runs_killed_at_any_step_resume_to_the_same_store(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    for seed in range(2):
        write_slide(f"{seed}.tif", seed=seed)
    (tmp_path / "slides" / "text.svs").write_text("not a slide")
    config = _config(tmp_path)
    tile(replace(config, out=tmp_path / "whole"))
    # The largest file comes first.
    slides = TileStore(tmp_path / "whole").slides
    tiles = max(slides, key=lambda slide: slide.file_bytes or 0).tiles
    rows = tmp_path / "store" / "tiles"
    steps = {
        "store.json": (1, 0),
        "the layout": (2, 0),
        "a mask": (2, 0),
        "a tile": (tiles // 2, 0),
        "a shard": (tiles + 3, 0),
        "its rows": (tiles + 4, 0),
        "the next layout": (tiles + 5, 1),
    }
    for step, (dies_at, finished) in steps.items():
        assert _start_run(tmp_path, 1, dies_at).wait() == -signal.SIGKILL, step
        assert len(list(rows.glob("[!.]*.parquet"))) == finished, step
    report = tile(config)
    assert (report.done, report.skipped) == (1, 1)
    assert _content(tmp_path / "store") == _content(tmp_path / "whole")


def test_a_killed_run_takes_its_processes_with_it(write_slide: WriteSlide, tmp_path: Path) -> None:
    for seed in range(4):
        write_slide(f"{seed}.tif", size_px=(900, 700), seed=seed)
    config = _config(tmp_path)
    tile(replace(config, out=tmp_path / "whole"))
    run = _start_run(tmp_path, 2, 0)
    shards_folder, deadline = tmp_path / "store" / "shards", time.monotonic() + 60
    while not list(shards_folder.glob(".writing-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    run.kill()
    run.wait()
    tile(config)
    assert _content(tmp_path / "store") == _content(tmp_path / "whole")
    time.sleep(0.5)
    assert _content(tmp_path / "store") == _content(tmp_path / "whole")


def test_real_slides(shared_data: Path, tmp_path: Path) -> None:
    config = _config(tmp_path, slides=(shared_data / "slides",), tile_px=256)
    report = tile(config)
    assert (report.done, report.tiles, report.exit_code) == (1, 34, 3)
    reasons = {record.path: record.reason or "" for record in report.quarantined}
    assert reasons.keys() == {
        "boxes.tiff",
        "broken.svs",
        "small_dicom.dcm",
        "tcga-cr-7395-01a-01-ts1.svs",
        "unopenable.tiff",
        "unreadable.svs",
    }
    assert "no usable mpp" in reasons["boxes.tiff"]
    assert "no usable mpp" in reasons["tcga-cr-7395-01a-01-ts1.svs"]
    assert "no usable mpp" in reasons["small_dicom.dcm"]
    assert "smaller than one tile" in reasons["unreadable.svs"]
    report = tile(replace(config, slide_mpp=0.25))
    assert (report.done, report.skipped, report.tiles, report.exit_code) == (2, 1, 81, 3)
    assert reasons.keys() - {record.path for record in report.quarantined} == {
        "small_dicom.dcm",
        "tcga-cr-7395-01a-01-ts1.svs",
    }
    tiles = TileStore(config.out)
    assert [slide.back_end for slide in tiles.slides if slide.tiles] == [
        "jpeg_tiff",
        "dicom",
        "openslide",
    ]
    assert tiles.verify() == []
    tcga = next(slide for slide in tiles.slides if slide.path.startswith("tcga"))
    assert (tcga.patient, tcga.mpp, tcga.reached[0].level) == ("TCGA-CR-7395", 0.25, 1)


@pytest.mark.slow
def test_runs_killed_at_random_moments_resume_to_the_same_store(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    for seed in range(6):
        write_slide(f"{seed}.tif", size_px=(1500, 1200), seed=seed)
    config = _config(tmp_path)
    tile(replace(config, out=tmp_path / "whole"))
    generator = np.random.default_rng(0)
    kills, problems = 0, list[str]()
    while kills < 20:
        run = _start_run(tmp_path, 2, 0)
        # From before its first import to the end of the whole run.
        time.sleep(generator.uniform(0.3, 1.6))
        run.kill()
        kills += run.wait() == -signal.SIGKILL
        for path in (tmp_path / "store" / "tiles").glob("[!.]*.parquet"):
            whole = tmp_path / "whole" / "tiles" / path.name
            if path.read_bytes() != whole.read_bytes():
                problems.append(path.name)
        if not (tmp_path / "store" / "slides.parquet").is_file():
            continue
        # It was finished before it was killed: begin again with less.
        for path in list((tmp_path / "store" / "tiles").glob("[!.]*"))[:3]:
            path.unlink()
        (tmp_path / "store" / "slides.parquet").unlink()
    assert problems == []
    assert _start_run(tmp_path, 2, 0).wait() == 0
    assert _content(tmp_path / "store") == _content(tmp_path / "whole")


_LIMITED_RUN = """
import resource
import sys

from eosin.cli import main

# What a full disk does to a write, this limit does to a file that grows beyond it.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_write_that_the_system_refuses_ends_the_run_in_one_line(
    write_slide: WriteSlide, tmp_path: Path, workers: str
) -> None:
    for seed in range(3):
        write_slide(f"{seed}.tif", size_px=(300, 300), seed=seed)
    write_slide("large.tif", size_px=(1200, 1000))
    config = _config(tmp_path)
    tile(replace(config, out=tmp_path / "whole"))
    (tmp_path / "run.py").write_text(_LIMITED_RUN)
    command = [sys.executable, str(tmp_path / "run.py"), "100000", "tile", "--tile-px", "64"]
    command += ["--slides", str(tmp_path / "slides"), "--out", str(config.out)]
    run = subprocess.run([*command, "--workers", workers], capture_output=True, text=True)
    assert run.returncode == 4
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("eosin tile: ") and "File too large" in last
    assert last.endswith("the same command resumes.") and "Traceback" not in run.stderr
    tile(config)
    assert _content(config.out) == _content(tmp_path / "whole")


def test_a_slide_that_kills_its_process_is_quarantined(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    for seed in range(3):
        write_slide(f"{seed}.tif", seed=seed)
    (tmp_path / "deadly.py").write_text(
        "import os, signal\n"
        "import numpy as np\n"
        "def find(rgb, mpp):\n"
        "    if rgb.shape[1] > 60:\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return np.ones(rgb.shape[:2], bool)\n"
    )
    write_slide("deadly.tif", size_px=(1200, 600))
    command = [sys.executable, "-m", "eosin", "tile", "--tile-px", "64", "--workers", "2"]
    command += ["--slides", str(tmp_path / "slides"), "--out", str(tmp_path / "store")]
    run = subprocess.run(
        [*command, "--tissue", "deadly:find"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert run.returncode == 3, run.stderr
    assert "Quarantined: deadly.tif: The process that read" in run.stdout
    assert "was killed twice (exit code -11)" in run.stdout
    assert len(TileStore(tmp_path / "store").slide_ids) == 3


_MEASURED_RUN = """
import json
import resource
import sys
from pathlib import Path

from eosin.tiling.run import Config, tile

if __name__ == "__main__":
    slides = tuple(map(Path, sys.argv[3:]))
    options = {"tile_px": 512, "max_tiles": 40, "workers": 2, "verify_pixels": int(sys.argv[2])}
    tile(Config(slides=slides, out=Path(sys.argv[1]), **options))
    print(json.dumps(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000))
"""


def _write_huge_slide(path: Path, edge_px: int) -> Path:
    """An SVS of `edge_px` squared at 0.25 mpp, all tissue, of few different JPEG tiles."""
    rng = np.random.default_rng(0)
    blocks = rng.normal((225, 150, 190), 20, (8, 1024 // 32, 1024 // 32, 3)).clip(0, 255)
    tiles = [
        simplejpeg.encode_jpeg(cv2.resize(block.astype(np.uint8), (1024, 1024)), 60, "RGB", "420")
        for block in blocks
    ]
    description = "Aperio Image Library v12\r\n0x0 (1024x1024) JPEG/RGB Q=60|AppMag = 40|MPP = 0.25"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for downsample in (1, 16):
            edge = edge_px // downsample
            count = (-(-edge // 1024)) ** 2
            tiff.write(
                (tiles[number % 8] for number in range(count)),
                shape=(edge, edge, 3),
                dtype=np.uint8,
                tile=(1024, 1024),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                description=description,
                metadata=None,
            )
    return path


@pytest.mark.slow
def test_the_memory_of_a_worker_does_not_grow_with_slides(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(_MEASURED_RUN)

    def measure(out: str, slides: list[Path], verify_pixels: int = 1) -> float:
        command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / out)]
        command.append(str(verify_pixels))
        run = subprocess.run([*command, *map(str, slides)], capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return float(run.stdout)

    many = [write_slide(f"{seed}.tif", size_px=(1400, 1200), seed=seed) for seed in range(24)]
    # Without OpenSlide, whose one cache of 32 MB is filled only slowly.
    few_mb, many_mb = measure("few", many[:4], 0), measure("many", many, 0)
    assert many_mb < few_mb + 8
    huge = [_write_huge_slide(tmp_path / f"{name}.svs", 131_072) for name in ("huge", "too")]
    assert measure("huge", huge) < 300, "MB"


def test_a_real_slide_without_a_readable_tile(shared_data: Path, tmp_path: Path) -> None:
    slide = shared_data / "slides" / "unreadable.svs"
    (record,) = tile(_config(tmp_path, slides=(slide,), tile_px=16, slide_mpp=0.5)).quarantined
    assert "1 of 1 tiles are damaged" in (record.reason or "")
