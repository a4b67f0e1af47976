"""Images larger than the network's window: maps from abutting windows, and slides in parts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from eosin.errors import UsageError
from eosin.nuclei.postprocess import Segmented

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

_SEAM_PX = 8
_COVERED = 0.5
_Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, eq=False)
class Maps:
    """What the network says of the pixels of one image, or of each image of a batch.

    Attributes:
        foreground: probability that a pixel is of a nucleus, float32 [H, W] or [B, H, W].
        hv: horizontal and vertical distances to the centre, float32 [(B,) 2, H, W].
        type_scores: scores of background and of each class, float32 [(B,) C + 1, H, W]; None where
            there are no types.
    """

    foreground: Floats
    hv: Floats
    type_scores: Floats | None


def predict_image(
    predict: Callable[[Image], Maps], image: Image, *, in_px: int, out_px: int, batch_size: int
) -> Maps:
    """Gives the maps of a whole image.

    Of each window only the middle counts, and the middles abut. Where the network's reach is no
    more than the rest, the maps are those of the whole image at once. Beyond its borders the image
    is mirrored.

    Args:
        predict: gives the maps of windows uint8 [B, in_px, in_px, 3], of `out_px` or more pixels
            about the middle.
        image: uint8 [H, W, 3], of any size.
        in_px: side of a window.
        out_px: side of the middle.
        batch_size: windows at once, at most.

    Raises:
        UsageError: what lies around the middle is not the same on all sides.
    """
    if not 0 < out_px <= in_px or (in_px - out_px) % 2:
        raise UsageError(
            f"Of windows of {in_px} pixels the middle {out_px} cannot be taken; the difference "
            "must be even and not negative."
        )
    height, width = image.shape[:2]
    rest = (in_px - out_px) // 2
    beyond = [(rest, rest + -length % out_px) for length in (height, width)]
    padded = np.pad(image, (*beyond, (0, 0)), mode="reflect")
    places = list(product(range(0, height, out_px), range(0, width, out_px)))
    whole: Maps | None = None
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        windows = np.stack([padded[y : y + in_px, x : x + in_px] for y, x in batch])
        maps = _middle(predict(windows), out_px)
        whole = whole or _empty(maps, height, width)
        for number, (y, x) in enumerate(batch):
            for source, target in _pairs(maps, whole):
                part = target[..., y : y + out_px, x : x + out_px]
                part[...] = source[number, ..., : part.shape[-2], : part.shape[-1]]
    if whole is None:
        raise UsageError(f"An image of {height} x {width} pixels has none to segment.")
    return whole


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a slide, with the nuclei that are given with it.

    Attributes:
        x: left border of `found.instances` in pixels of the whole.
        y: upper border.
        found: the nuclei, each whole; those of other parts are left out.
    """

    x: int
    y: int
    found: Segmented


def segment_in_parts(
    read: Callable[[int, int, int, int], Image],
    width: int,
    height: int,
    part_px: int,
    margin_px: int,
    segment: Callable[[Image], Segmented],
    *,
    is_wanted: Callable[[int, int, int, int], bool] | None = None,
) -> Iterator[Part]:
    """Segments what is too large for memory, part by part with a margin around each.

    A nucleus is given with the part that its centre lies in, whole, and once. Where what two parts
    see of a nucleus leads to the same outline, as it does if margins hold whole nuclei and the
    reach of the segmentation, the parts give what the whole at once would. Where the outlines
    differ, so that each part could leave a nucleus at the border to the other, or both give it, the
    first part that sees the centre within 8 pixels of its border gives it.

    `separate` stretches the distance maps over all pixels that it is given, so its outlines may
    differ by a few pixels from part to part. A network whose windows lie on one grid sees the same
    in all parts: let `part_px` and `margin_px` be multiples of the `out_px` of `predict_image`.

    Args:
        read: gives the pixels of a box (x, y, width, height), uint8 [height, width, 3].
        width: of the whole, in pixels.
        height: likewise.
        part_px: side of a part.
        margin_px: what is read around it, where the whole does not end.
        segment: finds the nuclei of an image.
        is_wanted: says whether anything of a box (x, y, width, height) is to be segmented; default:
            all is.

    Yields:
        The parts that are wanted, row by row.

    Raises:
        UsageError: a part has no pixels, or the margin is negative.
    """
    if part_px < 1 or margin_px < 0:
        raise UsageError(
            f"Parts of {part_px} pixels with a margin of {margin_px} cannot be cut; a part needs 1 "
            "pixel at least and a margin 0."
        )
    # No more than half of a part, or parts that know nothing of each other would give the same.
    seam = min(_SEAM_PX, margin_px // 4, part_px // 2)
    given: dict[tuple[int, int], tuple[_Box, NDArray[np.uint8]]] = {}
    columns = len(range(0, width, part_px))
    for place, (top, left) in enumerate(
        product(range(0, height, part_px), range(0, width, part_px))
    ):
        core = (left, top, min(left + part_px, width), min(top + part_px, height))
        row, column = divmod(place, columns)
        if is_wanted and not is_wanted(*core[:2], core[2] - left, core[3] - top):
            continue
        box = (
            max(left - margin_px, 0),
            max(top - margin_px, 0),
            min(core[2] + margin_px, width),
            min(core[3] + margin_px, height),
        )
        seen = segment(read(*box[:2], box[2] - box[0], box[3] - box[1]))
        before = [
            given[other]
            for other in ((row - 1, column - 1), (row - 1, column), (row - 1, column + 1))
            if other in given
        ]
        before += [given[row, column - 1]] if (row, column - 1) in given else []
        found = _own(seen, core, box, before, seam)
        given.pop((row - 1, column - 1), None)
        given[row, column] = (box, np.packbits(found.instances > 0))
        yield Part(box[0], box[1], found)


def _own(
    seen: Segmented,
    core: _Box,
    box: _Box,
    given: list[tuple[_Box, NDArray[np.uint8]]],
    seam: int,
) -> Segmented:
    """Leaves out nuclei whose centre is of another part, or that were given before."""
    count = len(seen)
    rows, columns = np.nonzero(seen.instances)
    owners = seen.instances[rows, columns]
    sizes = np.bincount(owners, minlength=count + 1)[1:]
    covered = np.bincount(owners[_given(box, given)[rows, columns]], minlength=count + 1)[1:]

    def within(reach: int) -> NDArray[np.bool_]:
        wanted = np.ones(count, np.bool_)
        for axis, places in enumerate((columns, rows)):
            sums = np.bincount(owners, places, minlength=count + 1)[1:]
            # The same whole number in every part that sees all of the nucleus.
            centres = sums.astype(np.int64) // sizes + box[axis]
            wanted &= (centres >= core[axis] - reach) & (centres < core[axis + 2] + reach)
        return wanted

    near = within(seam) & ~_is_cut(seen, core, box)
    return seen.keep((within(0) | near) & (covered <= _COVERED * sizes))


def _given(box: _Box, given: list[tuple[_Box, NDArray[np.uint8]]]) -> NDArray[np.bool_]:
    """Marks the pixels of a box that are of nuclei that were given before."""
    marked = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    for other, bits in given:
        shape = (other[3] - other[1], other[2] - other[0])
        theirs = np.unpackbits(bits, count=shape[0] * shape[1]).reshape(shape).astype(np.bool_)
        left, top = max(box[0], other[0]), max(box[1], other[1])
        right, bottom = min(box[2], other[2]), min(box[3], other[3])
        if left < right and top < bottom:
            marked[top - box[1] : bottom - box[1], left - box[0] : right - box[0]] |= theirs[
                top - other[1] : bottom - other[1], left - other[0] : right - other[0]
            ]
    return marked


def _is_cut(seen: Segmented, core: _Box, box: _Box) -> NDArray[np.bool_]:
    """Tells nuclei that reach a border of the box where the whole goes on."""
    edges = (seen.instances[:, :1], seen.instances[:1], seen.instances[:, -1:], seen.instances[-1:])
    cut = np.zeros(len(seen) + 1, np.bool_)
    for own, outer, edge in zip(core, box, edges, strict=True):
        if own != outer:
            cut[edge.ravel()] = True
    return cut[1:]


def _middle(maps: Maps, out_px: int) -> Maps:
    side = maps.foreground.shape[-1]
    if side < out_px or (side - out_px) % 2:
        raise UsageError(f"Of maps of {side} pixels the middle {out_px} cannot be taken.")
    start = (side - out_px) // 2
    middle = (..., slice(start, start + out_px), slice(start, start + out_px))
    scores = None if maps.type_scores is None else maps.type_scores[middle]
    return Maps(maps.foreground[middle], maps.hv[middle], scores)


def _empty(maps: Maps, height: int, width: int) -> Maps:
    size = (height, width)
    scores = maps.type_scores
    return Maps(
        foreground=np.empty(size, np.float32),
        hv=np.empty((2, *size), np.float32),
        type_scores=None if scores is None else np.empty((scores.shape[1], *size), np.float32),
    )


def _pairs(source: Maps, target: Maps) -> Iterator[tuple[Floats, Floats]]:
    yield source.foreground, target.foreground
    yield source.hv, target.hv
    if source.type_scores is not None and target.type_scores is not None:
        yield source.type_scores, target.type_scores
