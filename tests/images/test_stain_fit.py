"""What is drawn from a stain, what is fitted to images, and files that are refused."""

import dataclasses
import json

import numpy as np
import pytest

from eosin.errors import InputError, UsageError
from eosin.images.stain import PUBLISHED, Mixture, Stain, fit, load, published

COUNT = 10_000


def two_clouds(count, seed=0):
    """Statistics of images from two laboratories, correlated within each."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(0, 1, (2, 6, 6)) * [[[3.0], [1.0], [1.0], [1.0], [0.5], [0.5]]]
    centres = np.array([[150.0, 150, 115, 35, 8, 6], [190.0, 140, 125, 20, 5, 4]])
    which = (rng.random(count) < 0.3).astype(int)
    rows = centres[which] + np.einsum("nij,nj->ni", roots[which], rng.standard_normal((count, 6)))
    return rows, centres, roots @ roots.transpose(0, 2, 1)


@pytest.fixture(scope="module")
def fitted():
    return fit(two_clouds(3000)[0], "lab", name="two", source="two laboratories")


def drawn(stain, count=COUNT, seed=0):
    rng = np.random.default_rng(seed)
    targets = [stain.draw(rng) for _ in range(count)]
    assert {target.space for target in targets} == {stain.space}
    return np.array([target.means + target.stds for target in targets])


def expected_of(stain):
    return np.array(stain.mean_of_means + stain.mean_of_stds), np.array(
        stain.std_of_means + stain.std_of_stds
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_normal_and_laplace_have_their_moments_and_are_independent(name):
    for distribution, factor, kurtosis in (("normal", 1.0, 3.0), ("laplace", 2**0.5, 6.0)):
        stain = load(name).with_distribution(distribution, std_hyper=-0.3)
        middle, spread = expected_of(stain)
        rows = (drawn(stain) - middle) / (0.7 * spread * factor)
        assert np.abs(rows.mean(0)).max() < 0.04
        assert np.abs(rows.std(0) - 1).max() < 0.05
        assert abs((rows**4).mean() - kurtosis) < 0.1 * kurtosis
        assert np.abs(np.corrcoef(rows.T) - np.eye(6)).max() < 0.04


def test_a_negative_standard_deviation_is_kept_as_published():
    assert (drawn(published("hed"), 1000)[:, 3:] < 0).any()


def test_uniform_fills_three_standard_deviations_whatever_std_hyper_is():
    stain = published("lab").with_distribution("uniform", std_hyper=0.5)
    middle, spread = expected_of(stain)
    rows = (drawn(stain) - middle) / spread
    assert np.abs(rows).max() <= 3
    assert np.abs(rows.min(0) + 3).max() < 0.01 and np.abs(rows.max(0) - 3).max() < 0.01
    assert np.abs(rows.mean(0)).max() < 0.06
    assert np.abs(rows.std(0) - 3**0.5).max() < 0.03


def test_std_hyper_minus_one_gives_the_means_alone():
    stain = published("hsv").with_distribution("normal", std_hyper=-1.0)
    np.testing.assert_array_equal(drawn(stain, 5), np.tile(expected_of(stain)[0], (5, 1)))


def test_a_fit_finds_the_mixture_and_its_size(fitted):
    rows, centres, covariances = two_clouds(3000)
    mixture = fitted.mixture
    assert len(mixture.weights) == 2 == 1 + int(np.argmin(mixture.bic))
    assert (len(mixture.bic), mixture.images) == (8, 3000)
    np.testing.assert_allclose(mixture.weights, [0.7, 0.3], atol=0.03)
    np.testing.assert_allclose(mixture.means, centres, atol=0.6)
    for found, true in zip(np.array(mixture.covariances), covariances, strict=True):
        assert np.linalg.norm(found - true) < 0.12 * np.linalg.norm(true)
    middle, spread = expected_of(fitted)
    np.testing.assert_allclose(middle, rows.mean(0))
    np.testing.assert_allclose(spread, rows.std(0))
    assert fit(rows, "lab", name="two", source="two laboratories") == fitted


def test_the_mixture_keeps_correlations_that_independent_draws_lose(fitted):
    rows = two_clouds(3000)[0]
    wanted = np.corrcoef(rows.T)
    together = drawn(fitted)
    assert np.abs(np.corrcoef(together.T) - wanted).max() < 0.05
    np.testing.assert_allclose(together.mean(0), rows.mean(0), atol=0.4)
    np.testing.assert_allclose(together.std(0), rows.std(0), rtol=0.05)
    apart = drawn(fitted.with_distribution("normal"))
    assert np.abs(np.corrcoef(apart.T) - wanted).max() > 0.4


def test_the_mixture_draws_no_standard_deviation_below_zero():
    near_zero = np.random.default_rng(0).normal(0.5, 1, (400, 6))
    stds = drawn(fit(near_zero, "hed"), 2000)[:, 3:]
    assert stds.min() == 0.0 < stds.max()


def test_a_singular_covariance_is_drawn_from():
    root = np.array([1.0, 2, 0, -1, 0, 3])
    mixture = Mixture(
        weights=(1.0,),
        means=((10.0,) * 6,),
        covariances=(tuple(map(tuple, np.outer(root, root).tolist())),),
        images=1,
        bic=(0.0,),
    )
    rows = np.array([mixture.draw(np.random.default_rng(seed)) for seed in range(300)]) - 10
    np.testing.assert_allclose(rows, np.outer(rows[:, 0], root), atol=1e-6)


def test_equal_images_and_constant_statistics_can_be_fitted():
    rows = np.tile([200.0, 128, 128, 10, 0, 0], (100, 1))
    rows[:50] += np.random.default_rng(0).normal(0, 2, (50, 6)) * [1, 0, 1, 1, 0, 1]
    found = drawn(fit(rows, "lab"), 100)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[:, 1], 128, atol=0.1)


def test_few_images_get_few_components():
    assert len(fit(two_clouds(32)[0], "lab").mixture.bic) == 1
    with pytest.raises(InputError, match="at least 32 images"):
        fit(two_clouds(31)[0], "lab")
    with pytest.raises(InputError, match="finite"):
        fit(np.full((40, 6), np.nan), "lab")


@pytest.mark.parametrize("distribution", ("normal", "laplace", "uniform", "mixture"))
def test_the_same_seed_draws_the_same_also_after_json(fitted, distribution):
    stain = fitted.with_distribution(distribution)
    again = Stain.from_json(json.loads(json.dumps(stain.to_json())))
    assert again == stain and hash(again) == hash(stain)
    np.testing.assert_array_equal(drawn(stain, 50, seed=7), drawn(again, 50, seed=7))
    assert not np.array_equal(drawn(stain, 50, seed=7), drawn(stain, 50, seed=8))


def test_names_and_paths_are_loaded(fitted, tmp_path):
    assert [load(name).space for name in PUBLISHED] == ["lab", "hsv", "hed"]
    path = tmp_path / "stain.json"
    path.write_text(json.dumps({**fitted.to_json(), "provenance": {"anything": 1}}))
    assert load(path) == load(str(path)) == Stain.load(path) == fitted
    with pytest.raises(InputError, match="crc-rgb is none of crc-lab, crc-hsv, crc-hed"):
        load("crc-rgb")


def test_the_mixture_is_refused_where_none_was_fitted():
    with pytest.raises(UsageError, match=r"crc-lab.*eosin stain fit"):
        published("lab").with_distribution("mixture")
    with pytest.raises(InputError, match="std_hyper"):
        dataclasses.replace(published("lab"), std_hyper=-1.5)


def damage(fields, path, value):
    for key in path[:-1]:
        fields = fields[key]
    if value is None:
        del fields[path[-1]]
    else:
        fields[path[-1]] = value


DAMAGES = [
    (("format",), "other", "format"),
    (("version",), 2, "version"),
    (("space",), "rgb", "space"),
    (("space",), 3, "space"),
    (("distribution",), "cauchy", "distribution"),
    (("std_hyper",), "much", "std_hyper"),
    (("std_hyper",), float("nan"), "std_hyper"),
    (("statistics",), [1], "statistics"),
    (("statistics", "mean_of_means"), None, "mean_of_means"),
    (("statistics", "mean_of_means"), [1, 2], "mean_of_means"),
    (("statistics", "std_of_stds"), [1, 2, -3], "std_of_stds"),
    (("statistics", "std_of_stds"), [1, 2, "3"], "std_of_stds"),
    (("mixture",), [], "mixture"),
    (("mixture", "weights"), [0.5, 0.4], "sum to 1"),
    (("mixture", "weights"), [1.5, -0.5], "above 0"),
    (("mixture", "weights"), [], "weights"),
    (("mixture", "weights"), [1.0], "means"),
    (("mixture", "means", 0), [1, 2], "means"),
    (("mixture", "means", 0, 0), float("inf"), "means"),
    (("mixture", "covariances", 0, 0, 1), 1e6, "symmetric"),
    (("mixture", "covariances", 0, 0, 0), -1.0, "positive semi-definite"),
    (("mixture", "images"), 0.5, "images"),
    (("mixture", "bic"), {"2": 1.0}, "bic"),
    (("mixture", "bic", "3"), "low", "bic"),
]


@pytest.mark.parametrize(("path", "value", "named"), DAMAGES, ids=lambda p: str(p)[:40])
def test_a_damaged_file_is_refused_by_name(fitted, tmp_path, path, value, named):
    fields = json.loads(json.dumps(fitted.to_json()))
    damage(fields, path, value)
    file = tmp_path / "stain.json"
    file.write_text(json.dumps(fields))
    with pytest.raises(InputError, match=named) as caught:
        load(file)
    assert str(file) in str(caught.value) and "eosin stain fit" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"[]", b"3", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_foreign_file_is_refused(tmp_path, content):
    file = tmp_path / "stain.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"stain\.json.*eosin stain fit"):
        load(file)
    with pytest.raises(InputError, match="cannot be read"):
        Stain.load(tmp_path)
