import json
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

from eosin import atomic
from eosin.errors import InputError, Interrupted, UsageError
from eosin.slides import shards, tiling
from eosin.slides.reader import open_slide
from eosin.slides.store import TileStore
from eosin.slides.tiling import Config, tile

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
    report = tile(_config(tmp_path, quality=100))
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
    tile(_config(tmp_path))
    slides = TileStore(tmp_path / "store").slides
    assert [(slide.level, slide.reduction) for slide in slides] == [
        (0, 1.0),
        (0, pytest.approx(1.25)),
        (1, 1.0),
    ]
    native, reduced, second = (
        shards.read_rows(tmp_path / "store", slide.slide_id).to_pylist() for slide in slides
    )
    assert native[0]["mpp"] == pytest.approx(0.504)
    assert reduced[0]["mpp"] == 0.5
    assert {row["x"] % 80 for row in reduced} == {0}
    assert {row["x"] % 128 for row in second} == {0}


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
    damaged = write_slide("damaged.tif", levels=1)
    content = bytearray(damaged.read_bytes())
    start = content.rindex(b"\xff\xd8\xff") + 2
    content[start : start + 300] = bytes(300)
    damaged.write_bytes(content)
    report = tile(_config(tmp_path))
    assert report.exit_code == 3
    reasons = {record.path: record.reason for record in report.quarantined}
    assert set(reasons) == {"no_mpp.tif", "coarse.tif", "tiny.tif", "text.svs", "damaged.tif"}
    for path, words in {
        "no_mpp.tif": "--slide-mpp",
        "coarse.tif": "larger --mpp",
        "tiny.tif": "smaller than one tile",
        "text.svs": "not a slide",
        "damaged.tif": "is damaged",
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
    assert (slide.mpp, slide.mpp_source, slide.level) == (0.25, "mpp_csv", 1)
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
    with pytest.raises(InputError, match=r"tile_px was 64 and is now 32; quality was 90 and is"):
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
        ("mpp", 0.0),
        ("mpp", float("nan")),
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

    def second_is_stopped(job: tiling.Job) -> shards.SlideRecord:
        if job.source.path.stem == "1":
            raise KeyboardInterrupt
        return tile_slide(job)

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

from eosin.slides import shards
from eosin.slides.tiling import Config, tile

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
    tiles = TileStore(tmp_path / "whole").slides[0].tiles
    rows = tmp_path / "store" / "tiles"
    steps = {
        "store.json": (1, 0),
        "a mask": (2, 0),
        "a tile": (tiles // 2, 0),
        "a shard": (tiles + 2, 0),
        "its rows": (tiles + 3, 0),
        "the next mask": (tiles + 4, 1),
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
    assert (report.done, report.tiles, report.exit_code) == (1, 35, 3)
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
    assert "damaged" in reasons["unreadable.svs"]
    report = tile(replace(config, slide_mpp=0.25))
    assert (report.done, report.skipped, report.tiles, report.exit_code) == (1, 1, 70, 3)
    assert "tcga-cr-7395-01a-01-ts1.svs" not in {record.path for record in report.quarantined}
    tiles = TileStore(config.out)
    assert tiles.verify() == []
    tcga = next(slide for slide in tiles.slides if slide.path.startswith("tcga"))
    assert (tcga.patient, tcga.mpp, tcga.level) == ("TCGA-CR-7395", 0.25, 1)
