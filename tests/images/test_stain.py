"""Stained images against the plain reference: every byte in LAB and HSV, one level in HED."""

import json
import threading

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eosin.errors import InputError
from eosin.images import stain_channels
from eosin.images.stain import PUBLISHED, StainTarget, load, measure, restain
from tests import reference_stain

LEVELS = ("lab", "hsv")


def tissue(seed, side_px=48):
    """Smooth patches of the colours of haematoxylin, eosin and glass, with a little noise."""
    rng = np.random.default_rng(seed)
    amounts = cv2.GaussianBlur(rng.random((side_px, side_px, 2)), (0, 0), side_px / 12)
    amounts = np.maximum(amounts - amounts.min((0, 1)), 0) / np.ptp(amounts, axis=(0, 1))
    density = amounts @ (rng.uniform(0.3, 1.5, (2, 1)) * [[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
    image = 245 * np.exp(-density) + rng.normal(0, 2, (side_px, side_px, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def noise(seed):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*rng.integers(1, 70, 2), 3), dtype=np.uint8)


def with_constant_channels(seed):
    image = noise(seed)
    image[..., : 1 + seed % 3] = np.random.default_rng(seed).integers(256)
    return image


seeds = st.integers(0, 10_000)
sides = st.integers(1, 5)
# Few levels in few pixels have statistics that are whole numbers, where truncation is on a knife's
# edge; so have whole targets.
tiny = arrays(
    np.uint8,
    st.tuples(sides, sides, st.just(3)),
    elements=st.sampled_from([0, 5, 10, 100, 128, 200, 255]) | st.integers(0, 255),
)
images = tiny | st.builds(tissue, seeds) | st.builds(noise, seeds)
images |= st.builds(with_constant_channels, seeds)


def triples(numbers):
    return st.tuples(numbers, numbers, numbers)


means = triples(st.integers(-50, 300).map(float) | st.floats(-100, 400))
stds = triples(st.integers(-20, 90).map(float) | st.floats(-30, 120))
hed_means = triples(st.floats(-0.1, 0.2))
hed_stds = triples(st.floats(-0.03, 0.1))


def difference(ours, theirs):
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.parametrize("space", LEVELS)
@given(images, means, stds)
@settings(max_examples=200, deadline=None)
def test_lab_and_hsv_have_the_bytes_of_the_reference(space, image, means, stds):
    stained = restain(image, StainTarget(space=space, means=means, stds=stds))
    np.testing.assert_array_equal(stained, reference_stain.restain(image, space, means, stds))


@pytest.mark.parametrize("space", LEVELS)
@given(images, images, means, stds)
@settings(max_examples=50, deadline=None)
def test_the_same_with_the_statistics_of_another_image(space, crop, tile, means, stds):
    statistics = measure(tile, space)
    target = StainTarget(space=space, means=means, stds=stds)
    expected = reference_stain.restain(
        crop, space, means, stds, (statistics.means, statistics.stds)
    )
    np.testing.assert_array_equal(restain(crop, target, statistics), expected)


@given(images, hed_means, hed_stds)
@settings(max_examples=200, deadline=None)
def test_hed_is_within_one_level(image, means, stds):
    stained = restain(image, StainTarget(space="hed", means=means, stds=stds))
    expected = reference_stain.restain(image, "hed", means, stds)
    assert difference(stained, image if expected is None else expected) <= 1


@given(images, images, hed_means, hed_stds)
@settings(max_examples=50, deadline=None)
def test_hed_is_within_one_level_with_the_statistics_of_another_image(crop, tile, means, stds):
    statistics = measure(tile, "hed")
    stained = restain(crop, StainTarget(space="hed", means=means, stds=stds), statistics)
    by = (statistics.means, statistics.stds)
    expected = reference_stain.restain(crop, "hed", means, stds, by)
    assert difference(stained, crop if expected is None else expected) <= 1


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_draws_on_tissue_agree_with_the_reference(name):
    stain, rng = load(name), np.random.default_rng(0)
    unequal = []
    for seed in range(20):
        image, target = tissue(seed, 96), stain.draw(rng)
        expected = reference_stain.restain(image, stain.space, target.means, target.stds)
        stained = restain(image, target)
        assert difference(stained, expected) <= (stain.space == "hed")
        unequal.append((stained != expected).mean())
    # The brightest value is 255, or 254 by the reference's rounding; an image clipped to white is
    # all brightest values.
    assert np.median(unequal) < 0.001


@pytest.mark.parametrize("space", ("lab", "hsv", "hed"))
@given(images)
@settings(max_examples=60, deadline=None)
def test_measured_statistics_are_numpys(space, image):
    means, stds = reference_stain.statistics(reference_stain.converted(image, space))
    found = measure(image, space)
    np.testing.assert_allclose(found.means, means, rtol=0, atol=1e-9)
    # Far below 1e-4, where a deviation is clipped, HED's is a rounding.
    np.testing.assert_allclose(found.stds, stds, rtol=0, atol=1e-7 if space == "hed" else 1e-9)


def test_levels_on_a_knifes_edge_are_decided_by_numpys_sums(monkeypatch):
    asked = []
    ours = stain_channels._statistics_as_summed_by_numpy
    monkeypatch.setattr(
        stain_channels,
        "_statistics_as_summed_by_numpy",
        lambda coded: asked.append(1) or ours(coded),
    )
    image = tissue(0)
    restain(image, StainTarget(space="lab", means=(150.3, 130.2, 120.1), stds=(30.1, 9.2, 7.3)))
    assert not asked
    flat = np.full((7, 9, 3), 77, np.uint8)
    restain(flat, StainTarget(space="lab", means=(150.0, 130.0, 120.0), stds=(30.1, 9.2, 7.3)))
    assert asked


@pytest.mark.parametrize("means", [(0.03, 0.02, 0.03), (-1.0, -1.0, -1.0), (0.0, 0.0, 0.0)])
def test_an_image_that_hed_makes_one_grey_stays_what_it_is(means):
    # White, since the stains are far below zero; 0 of each stain is white too.
    target = StainTarget(space="hed", means=means, stds=(0.0, 0.0, 0.0))
    image = tissue(1)
    stained = restain(image, target)
    if means[0] <= 0:
        np.testing.assert_array_equal(stained, image)
        assert not np.shares_memory(stained, image)
    else:
        assert len(np.unique(stained.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("space", ("lab", "hsv", "hed"))
def test_the_input_stays_and_crops_and_threads_change_nothing(space):
    target = load(f"crc-{space}").draw(np.random.default_rng(3))
    pictures = [tissue(seed, 40 + 8 * (seed % 3)) for seed in range(6)]
    before = [picture.copy() for picture in pictures]
    alone = [restain(picture, target) for picture in pictures]
    results = {}

    def work(start):
        for turn in range(20):
            which = (start + turn) % len(pictures)
            results.setdefault(which, []).append(restain(pictures[which], target))

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which, found in results.items():
        assert all(np.array_equal(each, alone[which]) for each in found)
    for picture, same in zip(pictures, before, strict=True):
        np.testing.assert_array_equal(picture, same)
    view = pictures[0][5:25, 3:33]
    np.testing.assert_array_equal(restain(view, target), restain(view.copy(), target))
    mirrored = pictures[0][:, ::-1]
    np.testing.assert_array_equal(restain(mirrored, target), restain(mirrored.copy(), target))


def test_a_crop_stained_by_its_tile_is_a_crop_of_the_stained_tile():
    tile = tissue(2, 96)
    for space in LEVELS:
        target = load(f"crc-{space}").draw(np.random.default_rng(1))
        stained = restain(tile[20:60, 30:80], target, measure(tile, space))
        # OpenCV rounds the ends of rows, where they do not fill a vector, by a level differently.
        assert difference(stained, restain(tile, target)[20:60, 30:80]) <= 1


def test_an_image_stained_to_its_own_statistics_is_itself_to_a_rounding():
    image = tissue(3)
    own = measure(image, "lab")
    stained = restain(image, StainTarget(space="lab", means=own.means, stds=own.stds))
    assert difference(stained, image) <= 8  # LAB of 8 bits, there and back, truncated


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (0, 4, 3)])
def test_what_is_no_rgb_image_is_refused(shape):
    target = load("crc-lab").draw(np.random.default_rng(0))
    with pytest.raises(InputError, match=r"RGB image uint8\[H, W, 3\]"):
        restain(np.zeros(shape, np.uint8), target)
    with pytest.raises(InputError, match="float32"):
        measure(np.zeros((4, 4, 3), np.float32), "lab")


def test_a_target_survives_json_and_refuses_nonsense():
    target = StainTarget(space="hsv", means=(1.5, -2.0, 1 / 3), stds=(0.1, 0.2, -0.3))
    assert StainTarget.from_json(json.loads(json.dumps(target.to_json()))) == target
    for wrong in ({"space": "rgb"}, {"means": [1, 2]}, {"stds": [1, 2, "x"]}, {"means": None}):
        with pytest.raises(InputError):
            StainTarget.from_json({**target.to_json(), **wrong})
    with pytest.raises(InputError, match="finite"):
        StainTarget(space="lab", means=(1, 2, float("nan")), stds=(1, 1, 1))
