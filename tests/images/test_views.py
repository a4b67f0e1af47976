"""Views: agreement with torchvision, replay, and what every drawn view must satisfy."""

import dataclasses
import json
import math

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from eosin.errors import InputError, UsageError
from eosin.images import stain
from eosin.images.color import recolor
from eosin.images.resampling import crop_and_resize
from eosin.images.views import ViewParams, Views, ViewSpec, apply

STRONG = ViewSpec(
    size_px=96,
    scale=(0.08, 1.0),
    vflip_p=0.5,
    jitter=(0.8, 0.8, 0.8, 0.2),
    jitter_p=0.8,
    grayscale_p=0.2,
    blur_p=0.5,
    solarize_p=0.2,
)


@pytest.fixture(scope="module")
def tissue():
    """A stained tissue photograph, `uint8[256, 256, 3]`."""
    return np.ascontiguousarray(skimage.data.immunohistochemistry()[128:384, 128:384])


def torchvision_view(image, params):
    """The view that torchvision makes of the same parameters, in float grey levels."""
    left, top, width, height = params.crop_px
    view = torch.from_numpy(image).permute(2, 0, 1).double() / 255
    mode = {"bicubic": v2.InterpolationMode.BICUBIC, "bilinear": v2.InterpolationMode.BILINEAR}
    size = [params.size_px, params.size_px]
    view = functional.resized_crop(
        view, top, left, height, width, size, mode[params.interpolation], antialias=True
    ).clamp(0, 1)
    view = functional.horizontal_flip(view) if params.hflip else view
    view = functional.vertical_flip(view) if params.vflip else view
    for name, factor in params.jitter:
        view = getattr(functional, f"adjust_{name}")(view, factor)
    if params.grayscale:
        view = functional.rgb_to_grayscale(view, num_output_channels=3)
    if params.blur_sigma_px is not None:
        view = functional.gaussian_blur(view, [23, 23], [params.blur_sigma_px] * 2)
    if params.solarize_threshold is not None:
        view = functional.solarize(view, params.solarize_threshold / 255)
    return 255 * view.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(
    "interpolation", ["bicubic", pytest.param("bilinear", marks=pytest.mark.slow)]
)
def test_views_agree_with_torchvision_on_floats(tissue, interpolation):
    spec = dataclasses.replace(STRONG, interpolation=interpolation)
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(100):
        params = spec.sample(rng, 256, 256)
        differences.append(np.abs(apply(tissue, params) - torchvision_view(tissue, params)))
    means = [difference.mean() for difference in differences]
    # Seen: 0.5 in the worst of the views, 0.3 on average, 1.1 at the 99th percentile.
    assert max(means) < 1.5
    assert np.mean(means) < 0.5
    assert np.percentile(np.stack(differences), 99) < 1.5


def test_crops_are_drawn_as_torchvision_draws_them():
    spec = ViewSpec(size_px=8, scale=(0.2, 0.9))
    rng = np.random.default_rng(0)
    ours = np.array([spec.sample(rng, 200, 300).crop_px for _ in range(4000)])
    transform = v2.RandomResizedCrop(8, scale=(0.2, 0.9))
    image = torch.zeros(3, 200, 300)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = [transform.make_params([image]) for _ in range(4000)]
    theirs = np.array([[p[name] for name in ("left", "top", "width", "height")] for p in drawn])
    spread = theirs.std(0)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * spread * math.sqrt(2 / 4000)).all()
    assert np.abs(ours.std(0) / spread - 1).max() < 0.06


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (100, 100, (0, 0, 100, 100)),
        (100, 1000, (433, 0, 133, 100)),
        (1000, 100, (0, 433, 100, 133)),
    ],
)
def test_the_central_crop_is_the_fallback(height, width, expected):
    spec = ViewSpec(size_px=8, scale=(1.0, 1.0), ratio=(0.75, 4 / 3))
    crops = {spec.sample(np.random.default_rng(s), height, width).crop_px for s in range(200)}
    assert expected in crops


def test_jitter_takes_every_order_and_stays_in_its_range():
    spec = ViewSpec(size_px=8, jitter=(0.4, 1.4, 0.2, 0.1), jitter_p=1.0)
    rng = np.random.default_rng(0)
    drawn = [spec.sample(rng, 64, 64).jitter for _ in range(1000)]
    assert len({tuple(name for name, _ in jitter) for jitter in drawn}) == math.factorial(4)
    ranges = {
        "brightness": (0.6, 1.4),
        "contrast": (0.0, 2.4),
        "saturation": (0.8, 1.2),
        "hue": (-0.1, 0.1),
    }
    for name, (low, high) in ranges.items():
        factors = [dict(jitter)[name] for jitter in drawn]
        margin = 0.02 * (high - low)
        assert low <= min(factors) <= low + margin
        assert high - margin <= max(factors) <= high


def test_an_operation_of_no_strength_is_left_out():
    spec = ViewSpec(size_px=8, jitter=(0.4, 0.0, 0.0, 0.1), jitter_p=1.0)
    jitter = spec.sample(np.random.default_rng(0), 64, 64).jitter
    assert {name for name, _ in jitter} == {"brightness", "hue"}


def test_probabilities_are_those_asked_for():
    rng = np.random.default_rng(0)
    drawn = [STRONG.sample(rng, 64, 64) for _ in range(4000)]
    shares = {
        "hflip": (np.mean([p.hflip for p in drawn]), 0.5),
        "vflip": (np.mean([p.vflip for p in drawn]), 0.5),
        "jitter": (np.mean([p.jitter != () for p in drawn]), 0.8),
        "grayscale": (np.mean([p.grayscale for p in drawn]), 0.2),
        "blur": (np.mean([p.blur_sigma_px is not None for p in drawn]), 0.5),
        "solarize": (np.mean([p.solarize_threshold is not None for p in drawn]), 0.2),
    }
    for name, (share, wanted) in shares.items():
        assert share == pytest.approx(wanted, abs=0.035), name


@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple),
)
def test_the_crop_lies_inside_the_image(seed, height, width, scale):
    spec = ViewSpec(size_px=8, scale=scale)
    left, top, crop_width, crop_height = spec.sample(
        np.random.default_rng(seed), height, width
    ).crop_px
    assert left >= 0 and top >= 0 and crop_width >= 1 and crop_height >= 1
    assert left + crop_width <= width and top + crop_height <= height


@given(seed=st.integers(0, 2**32), side_px=st.integers(1, 40))
@settings(max_examples=50, deadline=None)
def test_a_view_is_replayed_from_its_saved_parameters(seed, side_px):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    before = image.copy()
    params = dataclasses.replace(STRONG, size_px=side_px).sample(rng, 37, 53)
    saved = json.loads(json.dumps(params.to_json()))
    assert ViewParams.from_json(saved) == params
    view = apply(image, params)
    assert view.shape == (side_px, side_px, 3) and view.dtype == np.uint8
    assert view.flags.c_contiguous and view.flags.writeable
    np.testing.assert_array_equal(view, apply(image, ViewParams.from_json(saved)))
    np.testing.assert_array_equal(image, before)


@given(seed=st.integers(0, 2**32), space=st.sampled_from(stain.SPACES))
@settings(max_examples=20, deadline=None)
def test_a_stained_view_is_replayed_from_its_saved_parameters(tissue, seed, space):
    spec = dataclasses.replace(STRONG, size_px=24, stain=stain.published(space), stain_p=1.0)
    params = spec.sample(np.random.default_rng(seed), 256, 256)
    assert params.stain is not None and params.stain.space == space
    replayed = ViewParams.from_json(json.loads(json.dumps(params.to_json())))
    assert replayed == params
    np.testing.assert_array_equal(apply(tissue, params), apply(tissue, replayed))


def test_a_view_is_stained_by_the_whole_tile_before_its_colours_change(tissue):
    spec = ViewSpec(size_px=64, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=1.0, vflip_p=1.0, hflip_p=0.0)
    spec = dataclasses.replace(spec, stain=stain.published("lab"), stain_p=1.0)
    params = spec.sample(np.random.default_rng(0), 256, 256)
    cropped = crop_and_resize(tissue, params.crop_px, 64, "bicubic", vflip=True)
    stained = stain.restain(cropped, params.stain, stain.measure(tissue, "lab"))
    expected = recolor(stained, params.jitter).transpose(1, 2, 0)
    np.testing.assert_array_equal(apply(tissue, params), expected)


def test_staining_the_tile_first_gives_nearly_the_same_view(tissue):
    spec = ViewSpec(size_px=64, stain=stain.published("lab"), stain_p=1.0)
    rng = np.random.default_rng(1)
    for _ in range(5):
        params = spec.sample(rng, 256, 256)
        first = stain.restain(tissue, params.stain)
        after = apply(first, dataclasses.replace(params, stain=None))
        assert np.abs(apply(tissue, params).astype(int) - after).mean() < 2.5


def test_flips_mirror_the_view_and_are_involutions(tissue):
    plain = ViewParams(size_px=64, interpolation="bicubic", crop_px=(10, 20, 100, 90))
    view = apply(tissue, plain)
    mirrored = apply(tissue, dataclasses.replace(plain, hflip=True))
    upside_down = apply(tissue, dataclasses.replace(plain, vflip=True))
    both = apply(tissue, dataclasses.replace(plain, hflip=True, vflip=True))
    np.testing.assert_array_equal(mirrored[:, ::-1], view)
    np.testing.assert_array_equal(upside_down[::-1], view)
    np.testing.assert_array_equal(both[::-1, ::-1], view)


def test_an_untouched_crop_of_the_view_size_is_the_image(tissue):
    params = ViewParams(size_px=64, interpolation="bicubic", crop_px=(5, 7, 64, 64))
    np.testing.assert_array_equal(apply(tissue, params), tissue[7:71, 5:69])


def test_nothing_outside_the_crop_enters_the_view(tissue):
    params = ViewParams(size_px=32, interpolation="bicubic", crop_px=(50, 60, 90, 80))
    changed = np.zeros_like(tissue)
    changed[60:140, 50:140] = tissue[60:140, 50:140]
    np.testing.assert_array_equal(apply(changed, params), apply(tissue, params))


def test_a_crop_outside_the_image_is_refused(tissue):
    params = ViewParams(size_px=32, interpolation="bicubic", crop_px=(200, 0, 100, 80))
    with pytest.raises(InputError, match=r"leaves an image of 256 x 256"):
        apply(tissue, params)


def test_views_keep_their_order_and_are_drawn_apart(tissue):
    small = dataclasses.replace(STRONG, size_px=48, scale=(0.05, 0.4))
    views = Views((STRONG, STRONG, small, small))
    assert views.sizes == (96, 96, 48, 48)
    made = views.make(tissue, np.random.default_rng(3))
    assert [view.shape for view in made] == [(side, side, 3) for side in views.sizes]
    assert not np.array_equal(made[0], made[1])
    drawn = views.sample(np.random.default_rng(3), 256, 256)
    for view, params in zip(made, drawn, strict=True):
        np.testing.assert_array_equal(view, apply(tissue, params))


def test_views_are_written_into_the_rows_of_a_batch_by_size(tissue):
    small = dataclasses.replace(STRONG, size_px=48, scale=(0.05, 0.4))
    views = Views((STRONG, small, STRONG, small, small))
    assert views.groups == ((0, 2), (1, 3, 4))
    into = [np.zeros((2, 3, 3, 96, 96), np.uint8), np.zeros((3, 3, 3, 48, 48), np.uint8)]
    views.make_into(tissue, np.random.default_rng(3), into, 1)
    made = views.make(tissue, np.random.default_rng(3))
    for group, numbers in zip(into, views.groups, strict=True):
        assert not group[:, 0].any() and not group[:, 2].any()
        for place, number in enumerate(numbers):
            np.testing.assert_array_equal(group[place, 1].transpose(1, 2, 0), made[number])


def test_changed_views_differ_in_what_was_asked_for():
    views = Views((STRONG, dataclasses.replace(STRONG, size_px=32))).changed(vflip_p=0.25)
    assert [spec.vflip_p for spec in views.specs] == [0.25, 0.25]
    assert views.sizes == (96, 32)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size_px", 0),
        ("scale", (0.0, 1.0)),
        ("scale", (0.5, 0.2)),
        ("scale", (0.5, 1.2)),
        ("ratio", (-1.0, 2.0)),
        ("interpolation", "nearest"),
        ("hflip_p", 1.5),
        ("solarize_p", -0.1),
        ("jitter", (0.4, 0.4, 0.4, 0.6)),
        ("jitter", (-0.4, 0.4, 0.4, 0.1)),
        ("jitter", (0.4, 0.4, 0.1)),
        ("blur_sigma_px", (0.0, 2.0)),
        ("solarize_threshold", 300),
        ("stain_p", 0.5),
    ],
)
def test_a_senseless_spec_names_the_field_and_the_value(field, value):
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(ViewSpec(size_px=96), **{field: value})
    assert f"ViewSpec.{field} is {value!r}" in str(caught.value)


def test_no_views_at_all_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        Views(())
