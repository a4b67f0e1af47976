"""One slide into a store: which tiles, at which resolutions, and what is said of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from eosin.slides.encoding import read_encoding
from eosin.slides.jpeg_tiles import JpegTilesPixels
from eosin.slides.reader import Slide, open_slide
from eosin.store import records, shards
from eosin.store.records import SlideRecord
from eosin.store.tile_store import TileStore
from eosin.tiling.run import Config, tile

WriteSlide = Callable[..., Path]


def _tile(tmp_path: Path, **options: Any) -> tuple[SlideRecord, list[dict[str, Any]]]:
    """Tiles the only slide and gives its record and rows."""
    defaults: dict[str, Any] = {"slides": (tmp_path / "slides",), "out": tmp_path / "store"}
    config = Config(**(defaults | {"tile_px": 64, "workers": 1} | options))
    tile(config)
    (record,) = records.read_slides(config.out)
    return record, shards.read_rows(config.out, record.slide_id).to_pylist()


def test_several_resolutions_share_a_store(write_slide: WriteSlide, tmp_path: Path) -> None:
    path = write_slide(mpp=0.25, size_px=(1000, 800))
    record, rows = _tile(tmp_path, mpp=(0.5, 0.25))
    counts = {mpp: sum(row["target_mpp"] == mpp for row in rows) for mpp in (0.5, 0.25)}
    assert counts == {one.target_mpp: one.tiles for one in record.reached}
    assert 2.5 < counts[0.25] / counts[0.5] < 5.5
    order = [(-row["target_mpp"], row["y"], row["x"]) for row in rows]
    assert order == sorted(order)
    store = TileStore(tmp_path / "store")
    assert store.mpps == (0.5, 0.25)
    with open_slide(path) as slide:
        for number, row in enumerate(rows):
            pixels = slide.read(row["x"], row["y"], 64, row["target_mpp"])
            assert cv2.PSNR(store.read(number), pixels) > 30


def test_a_slide_gives_the_resolutions_that_it_holds(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    write_slide(mpp=0.5)
    record, rows = _tile(tmp_path, mpp=(0.25, 0.5))
    assert {row["target_mpp"] for row in rows} == {0.5}
    assert "coarser than the 0.25 mpp asked for" in (record.note or "")
    assert record.status == records.DONE


def test_few_tiles_are_shared_by_the_resolutions(write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide(mpp=0.25, size_px=(1000, 800))
    record, rows = _tile(tmp_path, mpp=(0.5, 0.25), max_tiles=9)
    assert [one.tiles for one in record.reached] == [5, 4]
    assert len(rows) == 9


@pytest.mark.parametrize(("overlap_px", "step_px"), [(0, 64), (16, 48), (20, 48), (32, 32)])
def test_neighbours_overlap_and_start_where_jpeg_blocks_start(
    write_slide: WriteSlide, tmp_path: Path, overlap_px: int, step_px: int
) -> None:
    write_slide()
    _, rows = _tile(tmp_path, overlap_px=overlap_px)
    columns = sorted({row["x"] for row in rows})
    assert set(np.diff(columns)) == {step_px}
    assert all(x % 16 == 0 for x in columns)


def test_tiles_keep_the_encoding_and_the_pixels_of_their_slide(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    path = write_slide()
    with open_slide(path) as slide:
        own = slide.encoding(slide.reading(0.5))
    record, _ = _tile(tmp_path)
    store = TileStore(tmp_path / "store")
    assert read_encoding(store.read_bytes(0)) == own
    assert record.encoding == str(own) == "JPEG, quality 90, 4:4:4"
    # The second rounding of colours alone is between the tile and the slide.
    assert record.psnr_db is not None and record.psnr_db > 45
    coarser, _ = _tile(tmp_path, out=tmp_path / "q50", quality=50)
    assert coarser.encoding == "JPEG, quality 50, 4:4:4"
    assert coarser.psnr_db is not None and coarser.psnr_db < record.psnr_db - 5
    assert coarser.bytes < record.bytes


def test_the_psnr_is_that_of_the_tiles(write_slide: WriteSlide, tmp_path: Path) -> None:
    path = write_slide(size_px=(230, 200))
    record, rows = _tile(tmp_path, quality=70)
    assert 4 <= len(rows) <= 8, "all tiles are in the sample"
    store = TileStore(tmp_path / "store")
    with openslide.OpenSlide(path) as slide:
        psnrs = [
            cv2.PSNR(
                store.read(number),
                np.asarray(slide.read_region((row["x"], row["y"]), 0, (64, 64)).convert("RGB")),
            )
            for number, row in enumerate(rows)
        ]
    assert record.psnr_db == pytest.approx(np.mean(psnrs), abs=0.01)


def test_tiles_lie_within_the_regions(write_slide: WriteSlide, tmp_path: Path) -> None:
    write_slide()
    square = [[200, 150], [500, 150], [500, 450], [200, 450], [200, 150]]
    regions = tmp_path / "regions"
    regions.mkdir()
    polygon = {"type": "Polygon", "coordinates": [square]}
    feature = {"type": "Feature", "geometry": polygon, "properties": {}}
    (regions / "a.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature]})
    )
    record, rows = _tile(tmp_path, regions=regions, min_tissue=0.9)
    assert 4 <= len(rows) <= 25
    assert all(190 <= row["x"] <= 446 and 140 <= row["y"] <= 396 for row in rows)
    assert record.regions_sha256 is not None
    (regions / "a.geojson").unlink()
    record, _ = _tile(tmp_path, out=tmp_path / "none", regions=regions)
    assert record.status == records.QUARANTINED
    assert "has no a.geojson" in (record.reason or "")


def _damage(path: Path, tile_number: int) -> None:
    """Overwrites the head and the first pixels of one JPEG tile of level 0."""
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].dataoffsets[tile_number] + 2
    content = bytearray(path.read_bytes())
    content[start : start + 300] = bytes(300)
    path.write_bytes(content)


def test_damaged_tiles_are_left_out_and_counted(write_slide: WriteSlide, tmp_path: Path) -> None:
    whole = write_slide("whole.tif", size_px=(1400, 1200), levels=1)
    _, expected = _tile(tmp_path, out=tmp_path / "whole")
    whole.rename(tmp_path / "slides" / "a.tif")
    _damage(tmp_path / "slides" / "a.tif", 49)  # 128-px tiles, 11 to a row: x 640, y 512.
    config = Config(slides=(tmp_path / "slides",), out=tmp_path / "store", tile_px=64, workers=1)
    report = tile(config)
    assert report.exit_code == 3 and report.quarantined == ()
    (record,) = report.notes
    assert record.damaged == 4
    assert "x 640, y 512 of level 0" in (record.note or "")
    rows = shards.read_rows(config.out, record.slide_id).to_pylist()
    places = {(row["x"], row["y"]) for row in rows}
    lost = {(640, 512), (704, 512), (640, 576), (704, 576)}
    # What is hardly tissue may be judged otherwise on a thumbnail with a hole.
    clear = {(row["x"], row["y"]) for row in expected if row["tissue"] > 0.6}
    assert clear - places == lost
    assert TileStore(config.out).verify() == []


def test_a_slide_that_is_mostly_damaged_is_quarantined(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    path = write_slide(levels=1)
    for number in range(8, 22):
        _damage(path, number)
    record, rows = _tile(tmp_path)
    assert record.status == records.QUARANTINED and rows == []
    assert "are damaged, more than a tenth" in (record.reason or "")
    assert not list((tmp_path / "store" / "shards").glob("*"))


def test_a_truncated_slide_is_quarantined(write_slide: WriteSlide, tmp_path: Path) -> None:
    path = write_slide()
    os.truncate(path, path.stat().st_size - 40)
    record, _ = _tile(tmp_path)
    assert "get a whole copy" in (record.reason or "")


def test_a_slide_that_grows_while_it_is_read_is_quarantined(
    write_slide: WriteSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_slide()
    read = Slide.read

    def read_while_it_grows(self: Slide, *place: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"more")
        return read(self, *place)

    with monkeypatch.context() as patch:
        patch.setattr(Slide, "read", read_while_it_grows)
        record, _ = _tile(tmp_path)
    assert record.status == records.QUARANTINED
    assert "changed while it was read" in (record.reason or "")
    assert not list((tmp_path / "store" / "shards").glob("*"))
    assert _tile(tmp_path)[0].status == records.DONE


def test_pixels_that_are_not_openslides_are_refused(
    write_slide: WriteSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide()
    read_level = JpegTilesPixels.read_level

    def read_beside(self: JpegTilesPixels, level: int, x_px: int, *rest: int) -> Any:
        return read_level(self, level, x_px + 1, *rest)

    monkeypatch.setattr(JpegTilesPixels, "read_level", read_beside)
    record, rows = _tile(tmp_path)
    assert record.status == records.QUARANTINED and rows == []
    assert "is not what OpenSlide reads" in (record.reason or "")
    assert _tile(tmp_path, out=tmp_path / "unchecked", verify_pixels=0)[1] != []


def test_a_store_may_leave_the_pixels_in_the_slides(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    path = write_slide(mpp=0.25)
    kept, rows = _tile(tmp_path, out=tmp_path / "kept")
    record, places = _tile(tmp_path, pixels="slide")
    own = ("offset", "length", "crc32")
    assert [{k: v for k, v in row.items() if k not in own} for row in places] == [
        {k: v for k, v in row.items() if k not in own} for row in rows
    ]
    assert not (tmp_path / "store" / "shards").exists()
    assert (record.bytes, record.psnr_db, record.encoding) == (0, None, None)
    assert record.tiles == kept.tiles
    store = TileStore(tmp_path / "store")
    with open_slide(path) as slide:
        for number, row in enumerate(places):
            np.testing.assert_array_equal(
                store.read(number), slide.read(row["x"], row["y"], 64, 0.5)
            )


def test_an_error_of_ours_quarantines_the_slide_alone(
    write_slide: WriteSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slide()

    def stumble(*_: Any) -> None:
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("eosin.slides.quality.score", stumble)
    record, _ = _tile(tmp_path)
    assert record.status == records.QUARANTINED
    assert "ZeroDivisionError: by nothing" in (record.reason or "")


def test_rgb_coded_slides_stay_rgb_coded(shared_data: Path, tmp_path: Path) -> None:
    record, _ = _tile(
        tmp_path, slides=(shared_data / "slides" / "CMU-1-Small-Region.svs",), tile_px=256
    )
    assert record.encoding == "JPEG, its own tables, RGB"
    assert record.psnr_db is not None and record.psnr_db > 55
    store = TileStore(tmp_path / "store")
    tile_path = tmp_path / "tile.jpg"
    tile_path.write_bytes(store.read_bytes(7))
    # Other decoders see the same picture.
    with Image.open(tile_path) as image:
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), store.read(7))
    opencv = cv2.cvtColor(cv2.imread(str(tile_path)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(opencv, store.read(7))
