import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import openslide
import pytest

from eosin.errors import InputError
from eosin.slides import reader
from eosin.slides.encoding import psnr_db
from eosin.slides.jpeg_layout import JpegLayout
from eosin.slides.reader import open_slide

RGB = npt.NDArray[np.uint8]


def _openslide_rgb(path: Path, x: int, y: int, level: int, size: int) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((x, y), level, (size, size)).convert("RGB"))


def test_a_slide_tells_its_size_levels_and_resolution(write_slide: Callable[..., Path]) -> None:
    with open_slide(write_slide(size_px=(700, 600), mpp=0.25, levels=3)) as slide:
        assert slide.dimensions == (700, 600)
        assert slide.level_dimensions == ((700, 600), (350, 300), (175, 150))
        assert slide.level_downsamples == (1.0, 2.0, 4.0)
        assert slide.mpp == pytest.approx(0.25)
        assert slide.vendor == "generic-tiff"


def test_native_levels_give_openslides_pixels(write_slide: Callable[..., Path]) -> None:
    path = write_slide(mpp=0.5)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(
            slide.read(100, 60, 256, 0.5), _openslide_rgb(path, 100, 60, 0, 256)
        )
        np.testing.assert_array_equal(
            slide.read(100, 60, 128, 1.0), _openslide_rgb(path, 100, 60, 1, 128)
        )


def test_a_level_within_two_percent_is_used_as_it_is(write_slide: Callable[..., Path]) -> None:
    path = write_slide(mpp=0.495)
    with open_slide(path) as slide:
        assert slide.reading(0.5).reduction == 1
        np.testing.assert_array_equal(slide.read(0, 0, 64, 0.5), _openslide_rgb(path, 0, 0, 0, 64))


def test_other_resolutions_are_area_averages_of_the_next_finer_level(
    write_slide: Callable[..., Path],
) -> None:
    path = write_slide(mpp=0.5)
    wide = _openslide_rgb(path, 40, 80, 0, 192)
    with open_slide(path) as slide:
        expected = cv2.resize(wide, (128, 128), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(slide.read(40, 80, 128, 0.75), expected)
        assert slide.reading(1.5).level == 1


def test_half_the_resolution_is_decoded_and_not_averaged(
    write_slide: Callable[..., Path],
    tissue_mosaic: Callable[[int, int], RGB],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_slide(image=tissue_mosaic(1000, 1000), mpp=0.2527, levels=1, subsampling="420")
    with open_slide(path) as slide:
        reading, box = slide.source_box(160, 320, 256, 0.5)
        assert (reading.scale, reading.reduction, box) == (2, 1.0, (80, 160, 256))
        expected = cv2.resize(
            _openslide_rgb(path, 160, 320, 0, 512), (256, 256), interpolation=cv2.INTER_AREA
        )
        tile = slide.read(160, 320, 256, 0.5)
        assert psnr_db(tile, expected) > 45
    monkeypatch.setattr(reader, "LAYOUTS", ())
    with open_slide(path) as slide:
        # OpenSlide only decodes whole, so there an average is taken, of the exact target.
        reading, box = slide.source_box(160, 320, 256, 0.5)
        assert (reading.scale, box) == (1, (160, 320, 506))
        assert reading.reduction == pytest.approx(0.5 / 0.2527)


def test_a_third_of_the_resolution_is_decoded_and_then_averaged(
    write_slide: Callable[..., Path], tissue_mosaic: Callable[[int, int], RGB]
) -> None:
    path = write_slide(image=tissue_mosaic(1000, 1000), mpp=0.25, levels=1)
    with open_slide(path) as slide:
        reading, box = slide.source_box(120, 240, 128, 0.75)
        assert (reading.scale, reading.reduction, box) == (2, 1.5, (60, 120, 192))
        expected = cv2.resize(
            _openslide_rgb(path, 120, 240, 0, 384), (128, 128), interpolation=cv2.INTER_AREA
        )
        assert psnr_db(slide.read(120, 240, 128, 0.75), expected) > 36


def test_reading_in_order_gives_the_same_tiles(write_slide: Callable[..., Path]) -> None:
    path = write_slide(size_px=(900, 800), tile_px=240, subsampling="420")
    with open_slide(path) as plain, open_slide(path, in_order=True) as cached:
        for mpp in (0.5, 0.75, 1.0, 1.3, 4.0):
            for y in range(0, 800, 190):
                for x in range(0, 900, 190):
                    tile = cached.read(x, y, 100, mpp)
                    np.testing.assert_array_equal(tile, plain.read(x, y, 100, mpp))


def test_pixels_are_never_enlarged(write_slide: Callable[..., Path]) -> None:
    with (
        open_slide(write_slide(mpp=0.5)) as slide,
        pytest.raises(InputError, match=r"scanned at 0\.5 mpp.*coarser than the 0\.25 mpp"),
    ):
        slide.read(0, 0, 64, 0.25)


def test_outside_the_slide_is_white(write_slide: Callable[..., Path]) -> None:
    with open_slide(write_slide(size_px=(700, 600))) as slide:
        tile = slide.read(650, 550, 100, 0.5)
        assert (tile[50:, :] == 255).all()
        assert (tile[:, 50:] == 255).all()
        assert (tile[:50, :50] < 255).any()


@pytest.mark.parametrize("layouts", [reader.LAYOUTS, ()], ids=["direct", "openslide"])
def test_a_thumbnail_read_in_blocks_is_the_whole_slide(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, layouts: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(reader, "LAYOUTS", layouts)
    path = write_slide(size_px=(704, 608), levels=1)
    with open_slide(path) as slide:
        whole = slide.thumbnail(4.0)
        expected = cv2.resize(
            slide.read(0, 0, 704, 0.5)[:608], (88, 76), interpolation=cv2.INTER_AREA
        )
        assert whole.shape == (76, 88, 3)
        assert psnr_db(whole, expected) > 45
        monkeypatch.setattr(reader, "_BLOCK_PX", 32)
        np.testing.assert_array_equal(slide.thumbnail(4.0), whole)


@pytest.mark.parametrize("mpp", [0.5, 0.7, 1.0, 1.9, 8.0, 50.0])
def test_a_thumbnail_covers_the_slide(write_slide: Callable[..., Path], mpp: float) -> None:
    with open_slide(write_slide(size_px=(701, 333), levels=2)) as slide:
        thumbnail = slide.thumbnail(mpp)
    assert thumbnail.shape[0] == pytest.approx(333 * 0.5 / mpp, abs=1)
    assert thumbnail.shape[1] == pytest.approx(701 * 0.5 / mpp, abs=1)
    # Nothing of what is outside, which is white.
    assert thumbnail[-1].mean() < 245 and thumbnail[:, -1].mean() < 245


@pytest.mark.parametrize("layouts", [reader.LAYOUTS, ()], ids=["direct", "openslide"])
def test_a_thumbnail_leaves_out_what_is_damaged(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, layouts: tuple[Any, ...]
) -> None:
    monkeypatch.setattr(reader, "LAYOUTS", layouts)
    options = {"size_px": (1024, 768), "levels": 1}
    damaged_path = write_slide(
        **options,
        change_tile=lambda _level, number, jpeg: bytes(len(jpeg)) if number == 9 else jpeg,
    )
    whole = open_slide(write_slide("whole.tif", **options)).thumbnail(1.0)
    with open_slide(damaged_path) as slide:
        with pytest.raises(InputError, match=r"a\.tif is damaged"):
            slide.thumbnail(1.0)
        boxes: list[tuple[int, int, int, int]] = []
        thumbnail = slide.thumbnail(1.0, boxes)
    is_lost = np.zeros(whole.shape[:2], bool)
    for left, top, right, bottom in boxes:
        is_lost[top:bottom, left:right] = True
    # The tile of 128 px at x 128, y 128, and no more than a block around it.
    assert is_lost[64:128, 64:128].all()
    assert is_lost.sum() <= (64 + 2 * 32) ** 2
    assert (thumbnail[is_lost] == 255).all()
    np.testing.assert_array_equal(thumbnail[~is_lost], whole[~is_lost])


def test_a_thumbnail_of_nothing_but_damage(write_slide: Callable[..., Path]) -> None:
    path = write_slide(levels=1, change_tile=lambda _level, _number, jpeg: jpeg[:-100])
    with open_slide(path) as slide:
        boxes: list[tuple[int, int, int, int]] = []
        assert (slide.thumbnail(2.0, boxes) == 255).all()
        assert sum((right - left) * (bottom - top) for left, top, right, bottom in boxes) == 26250


def test_a_missing_mpp_names_both_overrides(write_slide: Callable[..., Path]) -> None:
    with open_slide(write_slide(mpp=None)) as slide:
        assert slide.dimensions == (700, 600)
        with pytest.raises(InputError, match=r"--slide-mpp.*--mpp-csv"):
            slide.read(0, 0, 64, 0.5)


def test_an_mpp_of_no_microscope_counts_as_missing(write_slide: Callable[..., Path]) -> None:
    with (
        open_slide(write_slide(mpp=352.8)) as slide,
        pytest.raises(InputError, match="implausible"),
    ):
        _ = slide.mpp


def test_overrides_of_the_mpp(write_slide: Callable[..., Path]) -> None:
    known, unknown = write_slide("known.tif", mpp=0.5), write_slide("unknown.tif", mpp=None)
    assert open_slide(known, mpp=0.25).mpp == 0.25
    assert open_slide(known, mpp_if_missing=0.25).mpp == pytest.approx(0.5)
    assert open_slide(unknown, mpp_if_missing=0.25).mpp == 0.25
    assert open_slide(unknown, mpp=0.3, mpp_if_missing=0.25).mpp == 0.3


def _send_tile(slide: reader.Slide, connection: object) -> None:
    connection.send(slide.read(0, 0, 64, 0.5))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_reads_the_same_pixels(write_slide: Callable[..., Path]) -> None:
    context = multiprocessing.get_context("fork")
    with open_slide(write_slide()) as slide:
        before = slide.read(0, 0, 64, 0.5)
        here, there = context.Pipe()
        child = context.Process(target=_send_tile, args=(slide, there))
        child.start()
        assert here.poll(30)
        np.testing.assert_array_equal(here.recv(), before)
        child.join()
        here.close()
        there.close()


def test_files_that_are_no_slides(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no slide at"):
        open_slide(tmp_path / "absent.svs")
    (tmp_path / "text.svs").write_text("not a slide")
    with pytest.raises(InputError, match="not a slide that OpenSlide knows"):
        open_slide(tmp_path / "text.svs")


def test_a_damaged_tile_is_reported_with_its_place(write_slide: Callable[..., Path]) -> None:
    path = write_slide(levels=1)
    content = bytearray(path.read_bytes())
    start = content.index(b"\xff\xd8\xff") + 2
    content[start : start + 300] = bytes(300)
    path.write_bytes(content)
    with (
        open_slide(path) as slide,
        pytest.raises(InputError, match=r"a\.tif is damaged: no pixels at x 0, y 0 of level 0"),
    ):
        slide.read(0, 0, 128, 0.5)


def test_back_ends_are_asked_in_order_and_openslide_last(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_slide()
    known = open_slide(path).layout
    asked: list[str] = []

    def leaves_it(asked_path: Path) -> None:
        assert asked_path == path
        asked.append("first")

    def takes_it(_: Path) -> JpegLayout | None:
        asked.append("second")
        return known

    monkeypatch.setattr(reader, "LAYOUTS", (leaves_it, takes_it, leaves_it))
    assert open_slide(path).layout is known
    assert asked == ["first", "second"] or asked == ["first", "second", "first"]
    monkeypatch.setattr(reader, "LAYOUTS", (leaves_it,))
    with open_slide(path) as slide:
        assert (slide.back_end, slide.vendor, slide.layout) == ("openslide", "generic-tiff", None)


@pytest.mark.parametrize("layouts", [reader.LAYOUTS, ()], ids=["direct", "openslide"])
@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten", "is replaced", "is gone"])
def test_a_file_that_changes_while_it_is_read(
    write_slide: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    layouts: tuple[Any, ...],
    change: str,
) -> None:
    monkeypatch.setattr(reader, "LAYOUTS", layouts)
    path = write_slide()
    content = path.read_bytes()
    os.utime(path, (1e9, 1e9))
    with open_slide(path) as slide:
        slide.read(0, 0, 64, 0.5)
        slide.check_unchanged()
        assert slide.file_bytes == len(content)
        if change == "grows":
            path.write_bytes(content + b"more")
        elif change == "shrinks":
            path.write_bytes(content[:-1])
        elif change == "is rewritten":
            path.write_bytes(content)
        elif change == "is replaced":
            write_slide("other.tif", seed=1).replace(path)
        else:
            path.unlink()
        with pytest.raises(InputError, match=r"a\.tif (was changed while|cannot be opened)"):
            slide.check_unchanged()


def test_a_file_that_is_still_being_copied(
    write_slide: Callable[..., Path], tmp_path: Path
) -> None:
    """Opened when half of it is there, it is refused; once it is whole, it is read."""
    whole, path = write_slide(kind="svs"), tmp_path / "copy.svs"
    content = whole.read_bytes()
    for part in (0.3, 0.6, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(InputError, match=r"copy\.svs"):
            open_slide(path)
    path.write_bytes(content)
    np.testing.assert_array_equal(open_slide(path).thumbnail(1.0), open_slide(whole).thumbnail(1.0))


def test_damage_of_an_unusual_kind(tmp_path: Path) -> None:
    (tmp_path / "folder.svs").mkdir()
    (tmp_path / "empty.svs").write_bytes(b"")
    (tmp_path / "link.svs").symlink_to(tmp_path / "nowhere.svs")
    os.mkfifo(tmp_path / "pipe.svs")
    for name in ("folder.svs", "empty.svs", "link.svs", "pipe.svs"):
        with pytest.raises(InputError, match=name):
            open_slide(tmp_path / name)


def test_real_slides(shared_data: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(path) as slide:
        assert (slide.vendor, slide.dimensions, slide.mpp) == ("aperio", (2220, 2967), 0.499)
        np.testing.assert_array_equal(
            slide.read(1024, 1280, 256, 0.5), _openslide_rgb(path, 1024, 1280, 0, 256)
        )
    with (
        open_slide(shared_data / "slides" / "tcga-cr-7395-01a-01-ts1.svs") as slide,
        pytest.raises(InputError, match="no usable mpp"),
    ):
        slide.thumbnail(8.0)


@pytest.mark.parametrize("name", ["broken.svs", "unopenable.tiff"])
def test_real_files_that_do_not_open(shared_data: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        open_slide(shared_data / "slides" / name)
