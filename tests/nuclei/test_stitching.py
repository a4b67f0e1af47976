"""Windows give what the whole image at once gives, and parts of a slide likewise."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from eosin.errors import UsageError
from eosin.nuclei.postprocess import Segmented
from eosin.nuclei.stitching import Maps, predict_image, segment_in_parts

KERNELS = np.random.default_rng(0).integers(-9, 9, (6, 7, 7)).astype(float)
REACH = 3


def network(images, valid=False):
    """Convolutions of seven pixels in whole numbers; `valid` gives no maps within their reach."""
    grey = images.astype(float).sum(-1)
    maps = np.stack([[ndimage.correlate(each, kernel) for kernel in KERNELS] for each in grey])
    if valid:
        maps = maps[..., REACH:-REACH, REACH:-REACH]
    maps = maps.astype(np.float32)
    return Maps(maps[:, 0], maps[:, 1:3], maps[:, 3:])


def drawn(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    middle=st.integers(1, 20),
    rest=st.integers(REACH, 9),
    batch_size=st.integers(1, 7),
    valid=st.booleans(),
    seed=st.integers(0, 9),
)
def test_windows_give_the_maps_of_the_whole(height, width, middle, rest, batch_size, valid, seed):
    image = drawn(height, width, seed)
    side = middle + 2 * rest
    sizes = []

    def predict(windows):
        sizes.append(len(windows))
        assert windows.shape[1:] == (side, side, 3) and windows.dtype == np.uint8
        return network(windows, valid)

    found = predict_image(predict, image, in_px=side, out_px=middle, batch_size=batch_size)
    # Whole, mirrored at its borders as the windows are.
    mirrored = np.pad(image, ((REACH, REACH), (REACH, REACH), (0, 0)), mode="reflect")
    whole = network(mirrored[None])
    for ours, theirs in (
        (found.foreground, whole.foreground),
        (found.hv, whole.hv),
        (found.type_scores, whole.type_scores),
    ):
        np.testing.assert_array_equal(ours, theirs[0, ..., REACH:-REACH, REACH:-REACH])
    assert max(sizes) <= batch_size
    assert sum(sizes) == -(-height // middle) * -(-width // middle)


def test_without_types_there_are_none():
    def predict(windows):
        maps = network(windows)
        return Maps(maps.foreground, maps.hv, None)

    found = predict_image(predict, drawn(30, 20), in_px=16, out_px=8, batch_size=4)
    assert found.type_scores is None and found.hv.shape == (2, 30, 20)


@pytest.mark.parametrize(("in_px", "out_px"), [(16, 9), (16, 18), (16, 0)])
def test_windows_without_a_middle_are_refused(in_px, out_px):
    with pytest.raises(UsageError, match="cannot be taken"):
        predict_image(network, drawn(30, 20), in_px=in_px, out_px=out_px, batch_size=4)


def segment(image):
    """Numbers what is bright and hangs together; the type is whether it has many pixels."""
    instances, count = ndimage.label(image[..., 0] > 127)
    sizes = np.bincount(instances.ravel(), minlength=count + 1)[1:]
    shares = (sizes / 1000).astype(np.float32)
    return Segmented(instances.astype(np.int32), (sizes > 40).astype(np.int64), shares)


def blobs(height, width, seed):
    """Bright pieces of up to some 20 pixels across, some of which touch corners of one another."""
    generator = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width]
    for _ in range(height * width // 250):
        middle, axes = generator.uniform(0, (height, width)), generator.uniform(1, 7, 2)
        piece = ((y - middle[0]) / axes[0]) ** 2 + ((x - middle[1]) / axes[1]) ** 2 <= 1
        if not (ndimage.binary_dilation(piece) & (image[..., 0] > 0)).any():
            image[piece] = 255
    return image


def pasted(parts, height, width):
    """All nuclei of all parts on one map, with types and shares; no pixel may be given twice."""
    whole = np.zeros((height, width), np.int32)
    types, shares = [], []
    for part in parts:
        found = part.found
        rows, columns = np.nonzero(found.instances)
        assert not whole[rows + part.y, columns + part.x].any()
        numbers = found.instances[rows, columns] + len(types)
        whole[rows + part.y, columns + part.x] = numbers
        types += found.types.tolist()
        shares += found.type_probability.tolist()
    return whole, np.array(types), np.array(shares)


def read_from(image):
    return lambda x, y, width, height: image[y : y + height, x : x + width]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 999),
    height=st.integers(1, 130),
    width=st.integers(1, 130),
    part=st.integers(15, 70),
    margin=st.integers(26, 40),
)
@example(seed=0, height=64, width=8, part=15, margin=32)  # a centre near a part two rows below
def test_parts_give_what_the_whole_gives(seed, height, width, part, margin):
    image = blobs(height, width, seed)
    expected = segment(image)
    found, types, shares = pasted(
        segment_in_parts(read_from(image), width, height, part, margin, segment), height, width
    )
    assert len(types) == len(expected)
    pairs = np.unique(np.stack([found.ravel(), expected.instances.ravel()]), axis=1)
    pairs = pairs[:, pairs[0] > 0]
    assert pairs.shape[1] == len(types) and ((found > 0) == (expected.instances > 0)).all()
    np.testing.assert_array_equal(types[pairs[0] - 1], expected.types[pairs[1] - 1])
    np.testing.assert_array_equal(shares[pairs[0] - 1], expected.type_probability[pairs[1] - 1])


@pytest.mark.parametrize("shifts", [(-3, 3), (3, -3), (0, 4), (-4, 0)])
def test_a_nucleus_that_parts_see_differently_is_given_once(shifts):
    image = np.zeros((100, 200, 3), np.uint8)
    image[40:60, 90:110] = 255  # its middle lies on the border of two parts of 100 pixels
    moves = iter(shifts)

    def see(pixels):
        return segment(np.roll(pixels, next(moves), axis=1))

    found = list(segment_in_parts(read_from(image), 200, 100, 100, 40, see))
    assert [len(part.found) for part in found] == [1, 0]


def test_parts_nobody_wants_are_not_read():
    image = blobs(100, 100, 0)
    asked, read = [], []

    def is_wanted(*box):
        asked.append(box)
        return box[0] == 0

    def reading(x, y, width, height):
        read.append((x, y, width, height))
        return image[y : y + height, x : x + width]

    parts = list(segment_in_parts(reading, 100, 90, 50, 10, segment, is_wanted=is_wanted))
    assert asked == [(0, 0, 50, 50), (50, 0, 50, 50), (0, 50, 50, 40), (50, 50, 50, 40)]
    assert read == [(0, 0, 60, 60), (0, 40, 60, 50)]
    assert [(part.x, part.y) for part in parts] == [(0, 0), (0, 40)]


@pytest.mark.parametrize(("part", "margin"), [(0, 4), (10, -1)])
def test_parts_without_pixels_are_refused(part, margin):
    with pytest.raises(UsageError, match="cannot be cut"):
        list(segment_in_parts(read_from(blobs(20, 20, 0)), 20, 20, part, margin, segment))
