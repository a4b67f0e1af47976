import multiprocessing
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError
from eosin.slides import reader
from eosin.slides.reader import choose_reading, open_slide


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


def test_half_transparent_pixels_are_laid_on_white() -> None:
    rgba = np.array([[[100, 0, 200, 0], [100, 0, 200, 255], [100, 0, 200, 51]]], np.uint8)
    expected = [[[255, 255, 255], [100, 0, 200], [224, 204, 244]]]
    np.testing.assert_array_equal(reader._on_white(rgba), expected)


def test_a_thumbnail_read_in_blocks_is_the_area_average(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_slide(write_slide(size_px=(704, 608), levels=1)) as slide:
        whole = slide.thumbnail(4.0)
        assert whole.shape == (76, 88, 3)
        monkeypatch.setattr(reader, "_THUMBNAIL_BLOCK_PX", 128)
        np.testing.assert_array_equal(slide.thumbnail(4.0), whole)


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


def test_another_back_end_may_take_a_file_or_leave_it(
    write_slide: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def leaves_it(path: Path) -> None:
        asked.append(path)

    path = write_slide()
    monkeypatch.setattr(reader, "BACK_ENDS", (leaves_it, *reader.BACK_ENDS))
    assert open_slide(path).vendor == "generic-tiff"
    assert asked == [path]


@settings(deadline=None)
@given(
    slide_mpp=st.floats(0.1, 2),
    steps=st.lists(st.floats(1.5, 4.5), max_size=4),
    mpp=st.floats(0.05, 40),
)
def test_the_reading_reaches_the_target_from_a_finer_level(
    slide_mpp: float, steps: list[float], mpp: float
) -> None:
    downsamples = np.cumprod([1.0, *steps]).tolist()
    reading = choose_reading(slide_mpp, downsamples, mpp)
    if reading is None:
        assert slide_mpp > mpp
        return
    assert reading.mpp == pytest.approx(mpp, rel=reader.MPP_TOLERANCE + 1e-9)
    assert reading.mpp == pytest.approx(slide_mpp * reading.downsample)
    assert reading.reduction >= 1
    assert reading.reduction * downsamples[reading.level] == pytest.approx(reading.downsample)


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


@pytest.mark.parametrize("name", ["broken.svs", "unopenable.tiff", "small_dicom.dcm"])
def test_real_files_that_do_not_open(shared_data: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        open_slide(shared_data / "slides" / name)
