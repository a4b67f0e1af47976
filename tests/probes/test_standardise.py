"""Zero mean and unit variance, against NumPy in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.probes._standardise import mean_and_scale, standardised


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(1, 40), st.floats(0, 1e3), st.integers(0, 99))
def test_mean_and_scale_are_those_of_float64(count: int, dim: int, offset: float, seed: int):
    rng = np.random.default_rng(seed)
    features = (rng.standard_normal((count, dim)) + offset).astype(np.float32)
    mean, scale = mean_and_scale(features)
    exact = features.astype(np.float64)
    assert np.allclose(mean, exact.mean(0), rtol=1e-6, atol=1e-6)
    expected = np.where(exact.std(0) > 0, exact.std(0), 1)
    assert np.allclose(scale, expected, rtol=1e-5, atol=1e-7)
    centred = standardised(features, mean, scale)
    assert np.allclose(centred, (exact - mean) / scale, rtol=1e-5, atol=1e-6)
    assert centred.flags.c_contiguous


def test_many_parts_give_what_one_gives():
    features = np.random.default_rng(0).standard_normal((5000, 3000), dtype=np.float32) * 5 + 2
    mean, scale = mean_and_scale(features)
    assert np.allclose(mean, features.mean(0, dtype=np.float64), atol=1e-6)
    assert np.allclose(scale, features.std(0, dtype=np.float64), rtol=1e-6)
    assert np.array_equal(standardised(features, mean, scale), (features - mean) / scale)


def test_what_does_not_vary_keeps_its_scale():
    features = np.full((1000, 2), 1234.567, dtype=np.float32)
    features[:, 1] = np.arange(1000)
    mean, scale = mean_and_scale(features)
    assert mean[0] == np.float32(1234.567)
    assert scale[0] == 1
    assert not standardised(features, mean, scale)[:, 0].any()


@pytest.mark.parametrize("kind", ["half", "strided"])
def test_other_layouts_and_formats(kind: str):
    wide = np.random.default_rng(0).standard_normal((200, 8))
    features = wide.astype(np.float16) if kind == "half" else wide.astype(np.float32)[:, ::2]
    mean, scale = mean_and_scale(features)
    assert np.allclose(mean, features.astype(np.float64).mean(0), atol=1e-6)
    assert np.allclose(scale, features.astype(np.float64).std(0), rtol=1e-5)
    centred = standardised(features, mean, scale)
    assert centred.dtype == np.float32
    assert np.allclose(centred, (features.astype(np.float64) - mean) / scale, atol=1e-5)
