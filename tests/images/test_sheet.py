"""Sheets of captioned pictures: where everything is, and that text keeps to its room."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from eosin.errors import UsageError
from eosin.images import sheet


def _filled(height: int, width: int, level: int) -> sheet.RGB:
    return np.full((height, width, 3), level, np.uint8)


def test_a_grid_is_as_large_as_its_largest_cells() -> None:
    cells = [_filled(10, 20, 1), _filled(30, 5, 2), _filled(8, 8, 3)]
    made = sheet.grid(cells, 2)
    assert made.shape == (6 + 30 + 6 + 8 + 6, 6 + 20 + 6 + 5 + 6, 3)
    assert (made[6:16, 6:26] == 1).all() and (made[6:36, 32:37] == 2).all()
    assert (made[42:50, 6:14] == 3).all()
    assert (made == 255).sum() == made.size - 3 * (10 * 20 + 30 * 5 + 8 * 8)


def test_a_grid_has_no_more_columns_than_cells() -> None:
    assert sheet.grid([_filled(4, 4, 0)], 5).shape == (16, 16, 3)


def test_a_caption_stands_below_and_is_shortened_to_its_room() -> None:
    picture = _filled(40, 60, 100)
    cell = sheet.captioned(picture, ["a caption that is far too long for it", "µ"])
    assert cell.shape == (40 + 28, 60, 3)
    np.testing.assert_array_equal(cell[:40], picture)
    assert (cell[40:] < 128).any() and (cell[40:, -1] == 255).all()
    wide = sheet.captioned(picture, ["a"], 90)
    assert wide.shape == (40 + 15, 90, 3) and (wide[:40, 60:] == 255).all()
    assert sheet.captioned(sheet.NOTHING, ["head"], 50).shape == (15, 50, 3)


def test_phrases_share_lines_where_they_fit() -> None:
    phrases = ["crop 12%", "flip h", "jitter", "gray"]
    assert sheet.wrapped(phrases, 1000) == ["crop 12%, flip h, jitter, gray"]
    assert sheet.wrapped(phrases, 10) == phrases
    assert sheet.wrapped([], 10) == []


def test_pictures_are_averaged_or_keep_their_pixels() -> None:
    checks = np.array([[0, 200], [200, 0]], np.uint8)[..., None].repeat(3, axis=2)
    np.testing.assert_array_equal(sheet.resized(checks, 1, 1), _filled(1, 1, 100))
    np.testing.assert_array_equal(
        sheet.resized(checks, 4, 4), checks.repeat(2, axis=0).repeat(2, axis=1)
    )
    assert sheet.resized(checks, 2, 2) is checks


def test_a_frame_leaves_the_picture_as_it_is() -> None:
    framed = sheet.framed(_filled(5, 7, 255))
    assert framed.shape == (7, 9, 3)
    assert (framed[1:-1, 1:-1] == 255).all() and (framed[0] < 255).all()


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 13, 42, 1000])
def test_columns_leave_little_empty(count: int) -> None:
    columns = sheet.columns_of(count)
    assert count**0.5 <= columns <= 1.5 * count**0.5 + 1
    assert -count % columns < 4


def test_a_sheet_is_written_whole_as_rgb(tmp_path: Path) -> None:
    picture = _filled(3, 4, 0)
    picture[..., 0] = 200
    sheet.write(tmp_path / "new" / "a.png", picture)
    bgr = cv2.imread(str(tmp_path / "new" / "a.png"))
    assert bgr is not None
    np.testing.assert_array_equal(bgr[..., ::-1], picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_only_png() -> None:
    sheet.require_png(Path("A.PNG"))
    with pytest.raises(UsageError, match=r"--out a.jpg must end in .png"):
        sheet.require_png(Path("a.jpg"))
