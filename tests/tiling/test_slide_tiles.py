import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eosin.errors import InputError
from eosin.slides.reader import open_slide
from eosin.tiling import slide_tiles
from eosin.tiling.config import Config
from eosin.tiling.slide_tiles import SlideTiles, lay_out, why_no_tiles


def _config(**options: Any) -> Config:
    return Config(
        **{
            "slides": (Path("slides"),),
            "out": Path("out"),
            "tile_px": 64,
            "tissue": "optical_density",
            **options,
        }
    )


def _lay_out(path: Path, slide_id: str = "a", **options: Any) -> SlideTiles:
    with open_slide(path) as slide:
        return lay_out(slide, _config(**options), slide_id)


def _places(tiles: SlideTiles, part: int = 0) -> list[tuple[int, int]]:
    one = tiles.parts[part]
    return list(
        zip(one.grid.x_px[one.drawn].tolist(), one.grid.y_px[one.drawn].tolist(), strict=True)
    )


def test_tiles_lie_on_tissue(write_slide: Callable[..., Path]) -> None:
    tiles = _lay_out(write_slide(size_px=(1400, 1200)), min_tissue=0.9)
    places = _places(tiles)
    assert 100 < len(tiles) == len(places) < 21 * 18
    # The tissue is an ellipse in the middle.
    assert (0, 0) not in places and (704, 640) in places
    assert all(x % 64 == 0 and y % 64 == 0 for x, y in places)
    assert (tiles.parts[0].grid.tissue >= 0.9).all()
    assert tiles.note is None and tiles.regions_sha256 is None


def test_each_resolution_gets_its_own_grid(write_slide: Callable[..., Path]) -> None:
    path = write_slide(size_px=(1400, 1200), levels=2)
    tiles = _lay_out(path, mpp=(0.5, 1.0, 2.0), min_tissue=0.9)
    assert [part.target_mpp for part in tiles.parts] == [0.5, 1.0, 2.0]
    assert [part.reading.level for part in tiles.parts] == [0, 1, 1]
    for part, edge in zip(tiles.parts, (64, 128, 256), strict=True):
        assert set((part.grid.x_px % edge).tolist()) == {0}
    assert len(tiles) == sum(len(part.grid) for part in tiles.parts)


def test_resolutions_that_a_slide_does_not_hold_are_noted(
    write_slide: Callable[..., Path],
) -> None:
    path = write_slide(mpp=0.5)
    tiles = _lay_out(path, mpp=(0.25, 0.5))
    assert [part.target_mpp for part in tiles.parts] == [0.5]
    assert tiles.note is not None and "coarser than the 0.25 mpp" in tiles.note
    with pytest.raises(InputError, match=r"coarser than the 0\.25 mpp"):
        _lay_out(path, mpp=(0.25,))
    with pytest.raises(InputError, match=r"no usable mpp"):
        _lay_out(write_slide("b.tif", mpp=None))


def test_overlapping_tiles(write_slide: Callable[..., Path]) -> None:
    tiles = _lay_out(write_slide(size_px=(1400, 1200)), overlap_px=20, min_tissue=0.9)
    assert len(tiles.parts[0].grid) > 0
    assert set((tiles.parts[0].grid.x_px % 48).tolist()) == {0}


def test_a_draw_depends_on_seed_slide_and_resolution_alone(
    write_slide: Callable[..., Path],
) -> None:
    path = write_slide(size_px=(1400, 1200))
    every = _places(_lay_out(path))
    drawn = _places(_lay_out(path, max_tiles=20))
    assert len(drawn) == 20 and set(drawn) < set(every)
    assert drawn == sorted(drawn, key=every.index)
    assert _places(_lay_out(path, max_tiles=20)) == drawn
    assert _places(_lay_out(path, max_tiles=20, seed=1)) != drawn
    assert _places(_lay_out(path, "b", max_tiles=20)) != drawn
    both = _lay_out(path, mpp=(0.5, 1.0), max_tiles=40)
    assert _places(both) == drawn
    assert _places(_lay_out(path, max_tiles=10**6)) == every


def test_a_number_of_tiles_is_shared_by_the_resolutions(write_slide: Callable[..., Path]) -> None:
    path = write_slide(size_px=(1400, 1200))
    tiles = _lay_out(path, mpp=(0.5, 0.75, 1.0), max_tiles=11)
    assert [len(part.drawn) for part in tiles.parts] == [4, 4, 3]


def test_tiles_lie_within_regions(write_slide: Callable[..., Path], tmp_path: Path) -> None:
    path = write_slide(size_px=(1400, 1200))
    square = [[490, 490], [915, 490], [915, 915], [490, 915]]
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [square]}))
    tiles = _lay_out(path, regions=tmp_path, min_tissue=0.99)
    expected = itertools.product(range(512, 896, 64), range(512, 896, 64))
    assert sorted(_places(tiles)) == sorted(expected)
    assert tiles.regions_sha256 is not None and len(tiles.regions_sha256) == 64
    with pytest.raises(InputError, match=r"no b\.geojson"):
        _lay_out(write_slide("b.tif"), regions=tmp_path)


def test_what_cannot_be_seen_may_be_tissue(write_slide: Callable[..., Path]) -> None:
    """Its tiles are tried later, where their failure is counted."""
    corner = 10
    path = write_slide(
        size_px=(1400, 1200),
        levels=1,
        change_tile=lambda _level, number, jpeg: b"\0" * 20 if number == corner else jpeg,
    )
    places = _places(_lay_out(path))
    assert (1280, 0) in places and (1344, 0) not in places


def test_the_largest_slides_are_looked_at_coarser(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_slide(size_px=(1400, 1200))
    fine = _lay_out(path)
    assert fine.mask.shape == (75, 88)
    monkeypatch.setattr(slide_tiles, "_MOST_MASK_PX", 1000)
    coarse = _lay_out(path)
    assert coarse.mask.size == pytest.approx(1000, rel=0.1)
    assert len(coarse) == pytest.approx(len(fine), rel=0.25)


def test_a_slide_coarser_than_the_mask(write_slide: Callable[..., Path]) -> None:
    tiles = _lay_out(write_slide(mpp=10.0, levels=1), mpp=(10.0,), min_tissue=0.0)
    assert tiles.mask.shape == (600, 700)
    assert len(tiles) == 9 * 10


def test_why_there_are_no_tiles(write_slide: Callable[..., Path], tmp_path: Path) -> None:
    def why(path: Path, **options: Any) -> str:
        with open_slide(path) as slide:
            config = _config(**options)
            tiles = lay_out(slide, config, "a")
            assert len(tiles) == 0
            return why_no_tiles(slide, config, tiles)

    small = write_slide("small.tif", size_px=(100, 60))
    assert "100 x 60 px, smaller than one tile, which covers 128 px" in why(small, mpp=(1.0,))
    glass = write_slide("glass.tif", image=np.full((600, 700, 3), 242, np.uint8))
    assert "no tile with 50% tissue; look at its mask" in why(glass)
    corner = [[0, 0], [9, 0], [9, 9]]
    (tmp_path / "all.json").write_text(json.dumps({"type": "Polygon", "coordinates": [corner]}))
    assert "within its regions" in why(write_slide(), regions=tmp_path / "all.json")


def test_parts_are_plain_values(write_slide: Callable[..., Path]) -> None:
    part = _lay_out(write_slide()).parts[0]
    assert dataclasses.is_dataclass(part) and part.reading.is_native
