"""Nuclei come out of maps as they went in, as by the published algorithm, at any resolution."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import watershed

from eosin.errors import InputError
from eosin.nuclei.metrics import count, stack
from eosin.nuclei.postprocess import PostProcessing, separate
from eosin.results.instance_scores import image_scores
from tests.nuclei.maps import maps_of, same_partition, touching_nuclei


def drop_small(mask):
    labels = ndimage.label(mask)[0]
    return labels * (np.bincount(labels.ravel()) >= 10)[labels]


def stretch(values):
    return cv2.normalize(values, None, alpha=0, beta=1, norm_type=cv2.NORM_MINMAX, dtype=cv2.CV_32F)


def published(foreground, hv):
    """The published algorithm at 0.25 micrometres a pixel, step by step from OpenCV and SciPy."""
    mask = (drop_small(foreground >= 0.5) > 0).astype(np.int32)
    walls = [
        1 - stretch(cv2.Sobel(stretch(each), cv2.CV_64F, *order, ksize=21))
        for each, order in zip(hv, ((1, 0), (0, 1)), strict=True)
    ]
    energy = np.maximum(*walls) - (1 - mask)
    energy[energy < 0] = 0
    levels = -cv2.GaussianBlur((1 - energy) * mask, (3, 3), 0)
    markers = np.maximum(mask - (energy >= 0.4), 0)
    markers = ndimage.binary_fill_holes(markers).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    markers = drop_small(cv2.morphologyEx(markers, cv2.MORPH_OPEN, disc))
    return watershed(levels, markers, mask=mask)


def published_types(instances, scores):
    """Type and share of each nucleus: the most frequent, or the second where it is background."""
    of_pixels = scores.argmax(0)
    for number in range(1, instances.max() + 1):
        found = np.bincount(of_pixels[instances == number], minlength=len(scores))
        order = sorted(range(len(scores)), key=lambda place: -found[place])
        chosen = order[0] or order[1]
        if found[chosen]:
            yield number - 1, chosen - 1, found[chosen] / found.sum()


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    smoothness=st.floats(0.5, 6),
)
def test_noise_gives_what_the_published_algorithm_gives(seed, height, width, smoothness):
    generator = np.random.default_rng(seed)

    def drawn(*shape):
        values = generator.normal(size=(*shape, height, width))
        values = ndimage.gaussian_filter(values, [0] * len(shape) + [smoothness] * 2)
        return (values / max(values.std(), 1e-9)).astype(np.float32)

    foreground, hv, scores = 0.5 + drawn() / 4 + 0.1, drawn(2) / 2, drawn(4)
    found = separate(foreground, hv, scores)
    assert same_partition(found.instances, published(foreground, hv))
    assert len(found) == found.instances.max() == len(np.unique(found.instances)) - 1 or (
        found.instances.all()
    )
    for place, kind, share in published_types(found.instances, scores):
        assert found.types[place] == kind
        assert found.type_probability[place] == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_touching_nuclei_give_what_the_published_algorithm_gives(noise):
    foreground, hv, scores = maps_of(*touching_nuclei(300, seed=1), noise=noise)
    found = separate(foreground, hv, scores)
    assert same_partition(found.instances, published(foreground, hv))
    types = dict((place, kind) for place, kind, _ in published_types(found.instances, scores))
    assert len(types) == len(found) > 100
    assert types == dict(enumerate(found.types.tolist()))


def quality(truth, found):
    counts = count(truth, (found.instances, found.types), 3)
    return float(
        image_scores(stack(("a", "b", "c"), np.array(["x"]), np.array(["x"]), [counts]))["pq"][0]
    )


def test_targets_of_touching_nuclei_give_them_back_with_their_types():
    instances, types = touching_nuclei(300, seed=2)
    touching = (
        (instances[:, 1:] != instances[:, :-1]) & (instances[:, 1:] > 0) & (instances[:, :-1] > 0)
    )
    assert np.count_nonzero(touching) > 200
    found = separate(*maps_of(instances, types))
    overlap = [
        np.bincount(instances[found.instances == number]).argmax()
        for number in range(1, len(found) + 1)
    ]
    assert sorted(overlap) == list(range(1, len(types) + 1))
    assert (found.types == types[np.array(overlap) - 1]).all()
    assert quality((instances, types), found) > 0.97


@pytest.mark.parametrize(("mpp", "factor"), [(0.5, 0.5), (0.125, 2.0)])
def test_it_scales_with_the_resolution(mpp, factor):
    spacing, radius = 26 * factor, 15 * factor  # the latter in pixels of 0.25 micrometres
    instances, types = touching_nuclei(int(260 * factor), seed=3, spacing=spacing, radius=radius)
    maps = maps_of(instances, types, noise=0.1)
    found = separate(*maps, mpp=mpp)
    assert quality((instances, types), found) > 0.9


def test_constants_at_other_resolutions():
    constants = PostProcessing()
    assert constants.at(0.25) == constants
    half = constants.at(0.5)
    assert (half.gradient_px, half.opening_px, half.smoothing_px) == (11, 3, 3)
    assert (half.smallest_px, half.smallest_marker_px) == (3, 3)
    assert (half.foreground, half.energy) == (0.5, 0.4)
    fine = constants.at(0.125)
    assert (fine.gradient_px, fine.smallest_px) == (41, 40)
    for mpp in (0.0, 3.0, float("nan")):
        with pytest.raises(InputError, match="micrometres a pixel"):
            constants.at(mpp)


def one_nucleus():
    instances = np.zeros((60, 60), np.int32)
    cv2.circle(instances, (30, 30), 12, 1, -1)
    foreground, hv, _ = maps_of(instances, np.array([0]))
    return instances, foreground, hv


def test_where_background_wins_the_second_type_is_taken():
    _, foreground, hv = one_nucleus()
    scores = np.zeros((4, 60, 60), np.float32)
    scores[0] = 0.5
    scores[3, 25:35, 25:35] = 0.9  # 100 of 441 pixels
    scores[1, 25:35, 36:38] = 0.9  # 20
    found = separate(foreground, hv, scores)
    assert found.types.tolist() == [2]
    assert found.type_probability[0] == pytest.approx(100 / np.count_nonzero(found.instances))


def test_where_all_is_background_the_highest_scores_decide():
    _, foreground, hv = one_nucleus()
    scores = np.stack([np.full((60, 60), each, np.float32) for each in (0.5, 0.1, 0.3, 0.1)])
    found = separate(foreground, hv, scores)
    assert (found.types.tolist(), found.type_probability.tolist()) == ([1], [0.0])


def test_without_types_all_are_of_the_first():
    _, foreground, hv = one_nucleus()
    found = separate(foreground, hv, None)
    assert (found.types.tolist(), found.type_probability.tolist()) == ([0], [1.0])
    assert found.instances.dtype == np.int32 and found.types.dtype == np.int64


@pytest.mark.parametrize("size", [(40, 40), (1, 1), (3, 200), (0, 7)])
def test_nothing_is_found_in_nothing(size):
    found = separate(np.zeros(size, np.float32), np.zeros((2, *size), np.float32), None)
    assert len(found) == 0 and found.instances.shape == size and not found.instances.any()
    typed = separate(
        np.zeros(size, np.float32),
        np.zeros((2, *size), np.float32),
        np.zeros((3, *size), np.float32),
    )
    assert typed.types.shape == typed.type_probability.shape == (0,)


def test_keeping_some_numbers_them_anew():
    instances, types = touching_nuclei(120, seed=4)
    found = separate(*maps_of(instances, types))
    wanted = np.arange(len(found)) % 3 == 1
    kept = found.keep(wanted)
    assert len(kept) == wanted.sum() == kept.instances.max()
    for new, old in enumerate(np.flatnonzero(wanted)):
        np.testing.assert_array_equal(kept.instances == new + 1, found.instances == old + 1)
        assert kept.types[new] == found.types[old]


def test_maps_that_are_not_finite_are_refused():
    _, foreground, hv = one_nucleus()
    hv[1, 3, 3] = np.nan
    with pytest.raises(InputError, match="not finite"):
        separate(foreground, hv, None)
    with pytest.raises(ValueError, match="not of one size"):
        separate(foreground, hv[:, :50], None)
