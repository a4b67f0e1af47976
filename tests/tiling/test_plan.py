"""The plan of a tiling run, against what the run then gives."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eosin.errors import InputError
from eosin.tiling import plan as planning
from eosin.tiling.plan import plan
from eosin.tiling.run import Config, tile

WriteSlide = Callable[..., Path]


def test_a_plan_of_few_slides_counts_what_the_run_gives(
    write_slide: WriteSlide, tmp_path: Path
) -> None:
    for seed in range(3):
        write_slide(f"{seed}.tif", mpp=0.25, size_px=(1000, 800), seed=seed)
    write_slide("unknown.tif", mpp=None)
    config = Config(
        slides=(tmp_path / "slides",), out=tmp_path / "store", tile_px=64, mpp=(0.5, 0.25)
    )
    planned = plan(config)
    assert not config.out.exists()
    report = tile(config)
    assert sum(planned.tiles.values()) == report.tiles
    assert (planned.slides, planned.looked_at) == (4, 4)
    assert planned.refused.keys() == {"unknown.tif"}
    assert planned.bytes == pytest.approx(report.bytes, rel=0.3)
    assert planned.hours > 0
    text = str(planned)
    assert "at 0.5 mpp and" in text and "Would be quarantined: " in text


def test_a_plan_of_many_slides_looks_at_some_of_all_sizes(
    write_slide: WriteSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "_MOST_SLIDES", 4)
    for seed in range(8):
        edge = 500 + 100 * seed
        write_slide(f"{seed}.tif", size_px=(edge, edge), seed=seed)
    config = Config(slides=(tmp_path / "slides",), out=tmp_path / "store", tile_px=64)
    planned = plan(config)
    assert (planned.slides, planned.looked_at) == (8, 4)
    assert planned.tiles[0.5] == pytest.approx(tile(config).tiles, rel=0.2)
    assert "give about" in str(planned)


def test_a_plan_without_slides(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    with pytest.raises(InputError, match="holds no slides"):
        plan(Config(slides=(tmp_path / "slides",), out=tmp_path / "store"))
