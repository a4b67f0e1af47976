import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eosin.slides import reader
from eosin.slides.jpeg_layout import JpegLayout, JpegLevel
from eosin.slides.jpeg_tiff import read_layout
from eosin.slides.reader import open_slide


def _layout_of(slide: Path) -> JpegLayout:
    layout = read_layout(slide)
    assert layout is not None
    return layout


def _assert_equal(one: JpegLayout, other: JpegLayout) -> None:
    for name in ("back_end", "vendor", "mpp", "level_downsamples"):
        assert getattr(one, name) == getattr(other, name)
    assert len(one.levels) == len(other.levels)
    for mine, theirs in zip(one.levels, other.levels, strict=True):
        for name in JpegLevel.__slots__:
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("kind", ["generic", "svs", "ome", "philips"])
def test_a_layout_comes_back_as_it_was_saved(
    write_slide: Callable[..., Path], tmp_path: Path, kind: str
) -> None:
    missing = {(0, 3)} if kind != "svs" else set()
    slide = write_slide(kind=kind, levels=3, shared_tables=True, missing=missing)
    layout = _layout_of(slide)
    layout.save(tmp_path / "layouts" / "a.npz", slide)
    loaded = JpegLayout.load(tmp_path / "layouts" / "a.npz", slide)
    assert loaded is not None
    _assert_equal(loaded, layout)
    assert loaded.levels[0].lengths.dtype == layout.levels[0].lengths.dtype == np.int64
    assert (loaded.levels[0].lengths.flat[3] > 0) == (kind == "svs")


def test_a_layout_without_an_mpp(write_slide: Callable[..., Path], tmp_path: Path) -> None:
    slide = write_slide(mpp=None)
    _layout_of(slide).save(tmp_path / "a.npz", slide)
    loaded = JpegLayout.load(tmp_path / "a.npz", slide)
    assert loaded is not None and loaded.mpp is None


def test_equal_layouts_are_equal_files(write_slide: Callable[..., Path], tmp_path: Path) -> None:
    slide = write_slide()
    _layout_of(slide).save(tmp_path / "one.npz", slide)
    os.utime(slide, (1, 1))
    _layout_of(slide).save(tmp_path / "other.npz", slide)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_a_slide_is_read_by_its_layout_alone(
    write_slide: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slide = write_slide(shared_tables=True, levels=3)
    with open_slide(slide) as parsed:
        whole, vendor, encoding = parsed.thumbnail(1.0), parsed.vendor, parsed.pixels.encoding(1)
        assert parsed.layout is not None
        parsed.layout.save(tmp_path / "a.npz", slide)
    monkeypatch.setattr(reader, "LAYOUTS", ())
    with open_slide(slide, layout=tmp_path / "a.npz") as known:
        assert known.back_end == "jpeg_tiff"
        assert (known.vendor, known.pixels.encoding(1)) == (vendor, encoding)
        np.testing.assert_array_equal(known.thumbnail(1.0), whole)


def test_the_layout_may_move_and_be_renamed_with_its_slide(
    write_slide: Callable[..., Path], tmp_path: Path
) -> None:
    slide = write_slide("a.tif", levels=1)
    whole = open_slide(slide).thumbnail(0.5)
    _layout_of(slide).save(tmp_path / "a.npz", slide)
    (tmp_path / "elsewhere").mkdir()
    moved = slide.rename(tmp_path / "elsewhere" / "b.tif")
    # Another slide takes its name, in both places.
    write_slide("a.tif", levels=1, seed=1).rename(moved.with_name("a.tif"))
    write_slide("a.tif", levels=1, seed=1)
    assert JpegLayout.load(tmp_path / "a.npz", moved) is not None
    with open_slide(moved, layout=tmp_path / "a.npz") as known:
        np.testing.assert_array_equal(known.thumbnail(0.5), whole)


@pytest.mark.parametrize("change", ["start", "end", "longer", "shorter", "gone"])
def test_the_layout_of_a_slide_that_has_changed_counts_as_none(
    write_slide: Callable[..., Path], tmp_path: Path, change: str
) -> None:
    slide = write_slide(size_px=(1400, 1200))
    _layout_of(slide).save(tmp_path / "a.npz", slide)
    content = bytearray(slide.read_bytes())
    assert len(content) > 2**18
    if change == "start":
        content[200] ^= 1
    elif change == "end":
        content[-200] ^= 1
    elif change == "longer":
        content += b"\0"
    elif change == "shorter":
        del content[-1]
    slide.write_bytes(content)
    if change == "gone":
        slide.unlink()
    assert JpegLayout.load(tmp_path / "a.npz", slide) is None


def test_a_damaged_layout_counts_as_none(write_slide: Callable[..., Path], tmp_path: Path) -> None:
    slide, path = write_slide(size_px=(300, 300)), tmp_path / "a.npz"
    layout = _layout_of(slide)
    layout.save(path, slide)
    content = path.read_bytes()
    assert JpegLayout.load(tmp_path / "absent.npz", slide) is None
    assert JpegLayout.load(tmp_path, slide) is None
    for length in range(0, len(content), 5):
        path.write_bytes(content[:length])
        assert JpegLayout.load(path, slide) is None
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        loaded = JpegLayout.load(path, slide)
        if loaded is not None:
            _assert_equal(loaded, layout)


def test_a_file_of_another_kind_counts_as_none(
    write_slide: Callable[..., Path], tmp_path: Path
) -> None:
    slide, path = write_slide(), tmp_path / "a.npz"
    np.savez(path, facts=np.array("[]"))
    assert JpegLayout.load(path, slide) is None
    np.savez(path, facts=np.array('{"format_version": 1}'))
    assert JpegLayout.load(path, slide) is None
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert JpegLayout.load(tmp_path / "a.npy", slide) is None
    with open_slide(slide, layout=path) as opened:
        assert opened.back_end == "jpeg_tiff"


@pytest.mark.parametrize(
    ("tile", "scales"),
    [
        ((256, 256), (1, 2, 4, 8)),
        ((240, 240), (1, 2, 4, 8)),
        ((100, 64), (1, 2, 4)),
        ((64, 98), (1, 2)),
        ((99, 64), (1,)),
    ],
)
def test_tiles_are_reduced_as_far_as_they_still_fit_together(
    tile: tuple[int, int], scales: tuple[int, ...]
) -> None:
    empty = np.zeros((1, 1), np.int64)
    level = JpegLevel("a.tif", 10, 10, *tile, head=b"", offsets=empty, lengths=empty)
    assert level.scales == scales
