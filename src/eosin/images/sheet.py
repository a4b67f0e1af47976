"""Sheets: many pictures with captions on one, to judge by eye what no number says."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from eosin import atomic
from eosin.errors import UsageError

RGB = npt.NDArray[np.uint8]

GAP_PX = 6
LINE_PX = 13
FRAME_PX = 1
NOTHING: RGB = np.empty((0, 0, 3), np.uint8)
_FIRST_FOOT_PX = 11
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.36
_INK = (40, 40, 40)
_PAPER = 255
_FRAME = (190, 190, 190)


def require_png(out: Path) -> None:
    """Checks the file that a sheet is to become.

    Raises:
        UsageError: its name does not end in .png.
    """
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out} must end in .png.")


def crossed(size_px: int) -> RGB:
    """Gives what stands for a picture that cannot be read: a crossed box."""
    box = np.full((size_px, size_px, 3), 235, np.uint8)
    width = max(1, size_px // 60)
    cv2.line(box, (0, 0), (size_px, size_px), (200, 0, 0), width)
    cv2.line(box, (0, size_px), (size_px, 0), (200, 0, 0), width)
    return box


def resized(picture: RGB, width: int, height: int) -> RGB:
    """Shrinks a picture by averaging, or enlarges it with its pixels kept visible."""
    if picture.shape[:2] == (height, width):
        return picture
    shrinks = picture.shape[0] > height or picture.shape[1] > width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def framed(picture: RGB) -> RGB:
    """Puts a thin grey line around a picture, so that a white one is seen on the white sheet."""
    each = FRAME_PX
    made = cv2.copyMakeBorder(picture, each, each, each, each, cv2.BORDER_CONSTANT, value=_FRAME)
    return np.asarray(made, np.uint8)


def captioned(picture: RGB, lines: Sequence[str], width: int = 0) -> RGB:
    """Writes lines of text below a picture, each shortened in its middle if it is too long.

    Args:
        picture: RGB, `uint8[H, W, 3]`.
        lines: the text.
        width: of the cell in pixels, where it is more than the picture's.
    """
    high, wide = picture.shape[:2]
    foot = 2 + LINE_PX * len(lines)
    cell = np.full((high + foot, max(wide, width), 3), _PAPER, np.uint8)
    cell[:high, :wide] = picture
    for number, text in enumerate(lines):
        place = (1, high + _FIRST_FOOT_PX + LINE_PX * number)
        short = _fitted(text, cell.shape[1])
        cv2.putText(cell, short, place, _FONT, _FONT_SCALE, _INK, 1, cv2.LINE_AA)
    return cell


def wrapped(phrases: Sequence[str], width: int) -> list[str]:
    """Puts phrases, with commas between them, on as few lines as a width in pixels lets them."""
    lines: list[str] = []
    for phrase in phrases:
        longer = f"{lines[-1]}, {phrase}" if lines else phrase
        if lines and _text_fits(longer, width):
            lines[-1] = longer
        else:
            lines.append(phrase)
    return lines


def columns_of(count: int) -> int:
    """How many columns lay out equal cells about as wide as high, the last row nearly full."""
    side = count**0.5
    return min(range(int(np.ceil(side)), int(1.5 * side) + 2), key=lambda width: -count % width)


def grid(cells: Sequence[RGB], columns: int) -> RGB:
    """Lays cells out on white, row by row; rows and columns are as large as their largest cell."""
    columns = min(columns, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    widths = [max(cell.shape[1] for cell in cells[column::columns]) for column in range(columns)]
    tops = GAP_PX + np.cumsum([0, *(height + GAP_PX for height in heights)])
    lefts = GAP_PX + np.cumsum([0, *(width + GAP_PX for width in widths)])
    sheet = np.full((tops[-1], lefts[-1], 3), _PAPER, np.uint8)
    for top, row in zip(tops, rows, strict=False):
        for left, cell in zip(lefts, row, strict=False):
            sheet[top : top + cell.shape[0], left : left + cell.shape[1]] = cell
    return sheet


def write(out: Path, sheet: RGB) -> None:
    """Writes a sheet as PNG, atomically."""
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    atomic.write_bytes(out, png.tobytes())


def _fitted(text: str, width: int) -> str:
    """Shortens text in its middle; what OpenCV's font cannot draw becomes a dot."""
    text = "".join(letter if " " <= letter <= "~" else "." for letter in text)
    for kept in range(len(text), 0, -1):
        short = text if kept == len(text) else f"{text[: kept // 2]}..{text[-(kept - kept // 2) :]}"
        if _text_fits(short, width):
            return short
    return ""


def _text_fits(text: str, width: int) -> bool:
    return cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0] <= width - 2
