"""The published views: what their sources say, and what the variants change."""

import pytest

from eosin.errors import UsageError
from eosin.images import presets
from eosin.images.views import Views


@pytest.mark.parametrize("name", presets.names())
def test_every_name_loads_and_large_views_come_first(name):
    views = presets.load(name)
    assert isinstance(views, Views)
    assert views.sizes == tuple(sorted(views.sizes, reverse=True))
    assert views.sizes[:2] == (224, 224)


@pytest.mark.parametrize(
    ("name", "sizes", "scales"),
    [
        ("moco_v2/official", (224,) * 2, {(0.2, 1.0)}),
        ("moco_v2/vissl", (224,) * 2, {(0.08, 1.0)}),
        ("swav/official", (224,) * 2 + (96,) * 6, {(0.14, 1.0), (0.05, 0.14)}),
        ("barlow_twins/official", (224,) * 2, {(0.08, 1.0)}),
        ("dino/official", (224,) * 2 + (96,) * 8, {(0.4, 1.0), (0.05, 0.4)}),
        ("dino_patch8/vissl", (224,) * 2 + (96,) * 6, {(0.25, 1.0), (0.05, 0.25)}),
    ],
)
def test_crops_are_those_of_the_source(name, sizes, scales):
    views = presets.load(name)
    assert views.sizes == sizes
    assert {spec.scale for spec in views.specs} == scales


@pytest.mark.parametrize("method", ["barlow_twins", "dino", "dino_patch8"])
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_the_first_two_views_differ_in_blur_and_solarisation(method, preset):
    first, second, *small = presets.load(f"{method}/{preset}").specs
    assert (first.blur_p, first.solarize_p) == (1.0, 0.0)
    assert (second.blur_p, second.solarize_p) == (0.1, 0.2)
    assert {(spec.blur_p, spec.solarize_p) for spec in small} <= {(0.5, 0.0)}


@pytest.mark.parametrize("method", presets.METHODS)
def test_official_filters_and_jitter(method):
    official, vissl = (presets.load(f"{method}/{preset}") for preset in ("official", "vissl"))
    bicubic = method in ("barlow_twins", "dino", "dino_patch8")
    assert {s.interpolation for s in official.specs} == {"bicubic" if bicubic else "bilinear"}
    assert {s.interpolation for s in vissl.specs} == {"bilinear"}
    saturation = {"moco_v2": 0.4, "swav": 0.8}.get(method, 0.2)
    assert {s.jitter[2] for s in official.specs} == {saturation}
    assert {s.jitter[2] for s in vissl.specs} == {max(saturation, 0.4)}


@pytest.mark.parametrize("method", presets.METHODS)
def test_pathology_adds_flips_a_weaker_jitter_and_a_stain_to_every_view(method):
    for spec, vissl in zip(
        presets.load(f"{method}/pathology").specs,
        presets.load(f"{method}/vissl").specs,
        strict=True,
    ):
        assert spec.vflip_p == 0.5 and spec.stain_p == 0.5 and spec.stain is not None
        assert all(
            ours < theirs for ours, theirs in zip(spec.jitter[:3], vissl.jitter[:3], strict=True)
        )
        assert spec.scale == vissl.scale and vissl.stain is None and vissl.vflip_p == 0


@pytest.mark.parametrize("name", ["dino", "dino/none", "none/official", ""])
def test_an_unknown_name_is_one_line_that_lists_the_known(name):
    with pytest.raises(
        UsageError, match=f"There are no views '{name}'; choose one of: moco_v2/off"
    ):
        presets.load(name)
