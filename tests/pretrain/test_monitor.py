"""The monitor measures what it says and leaves no trace in the run that it watches."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.encoders import build_encoder
from eosin.images.views import Views, ViewSpec
from eosin.methods._base import Plan
from eosin.methods.barlow_twins import BarlowTwins, Config
from eosin.pretrain.monitor import (
    CollapseMonitor,
    FixedTiles,
    alignment,
    embed_tiles,
    embedding_std,
    fix_tiles,
    rankme,
    uniformity,
)


def draw(seed: int, rows: int, columns: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def random_tiles(count: int, side_px: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, side_px, side_px)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def small_method() -> BarlowTwins:
    encoder = build_encoder("resnet10t", input_px=32, seed=0)
    plan = Plan(batch_size=4, updates=10, updates_per_epoch=5)
    return BarlowTwins(Config(projector=(8, 8)), encoder, plan).train()


def test_rankme_counts_equal_directions() -> None:
    assert rankme(torch.eye(6)) == pytest.approx(6, rel=1e-3)
    assert rankme(torch.ones(6, 6)) == pytest.approx(1, rel=1e-3)


def test_embedding_std_is_one_for_spread_and_zero_for_equal_directions() -> None:
    assert embedding_std(draw(0, 5000, 16)) == pytest.approx(1, rel=0.02)
    assert embedding_std(torch.ones(8, 16)) == pytest.approx(0, abs=1e-6)


def test_alignment_and_uniformity_are_those_of_the_paper() -> None:
    first, second = draw(0, 7, 5).double().numpy(), draw(1, 7, 5).double().numpy()
    x, y = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second))
    expected = np.mean(np.linalg.norm(x - y, axis=1) ** 2)
    assert alignment(torch.tensor(first), torch.tensor(second)) == pytest.approx(expected)
    pairs = [np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(7) for j in range(i)]
    assert uniformity(torch.tensor(first)) == pytest.approx(math.log(np.mean(pairs)))
    # Directions spread evenly in many dimensions have squared distances of 2.
    assert uniformity(draw(0, 200, 2000)) == pytest.approx(-4, abs=0.02)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(2, 12),
    columns=st.integers(1, 12),
    scale=st.floats(1e-3, 1e3),
)
def test_metrics_keep_to_their_bounds_and_do_not_depend_on_scale(
    seed: int, rows: int, columns: int, scale: float
) -> None:
    x, y = draw(seed, rows, columns).double(), draw(seed + 1, rows, columns).double()
    assert 1 - 1e-6 <= rankme(x) <= min(rows, columns) + 1e-3
    assert 0 <= alignment(x, y) <= 4 + 1e-9
    assert alignment(x, x * scale) == pytest.approx(0, abs=1e-9)
    assert -8 - 1e-9 <= uniformity(x) <= 1e-9
    for metric in (rankme, uniformity, embedding_std):
        assert metric(x * scale) == pytest.approx(metric(x), rel=1e-6, abs=1e-9)


def test_tiles_are_embedded_in_parts_as_at_once() -> None:
    encoder = build_encoder("resnet10t", input_px=32, seed=0)
    tiles = random_tiles(70)
    found = embed_tiles(encoder, tiles, "fp32")
    with torch.no_grad():
        whole = encoder.eval().embed(encoder.normalise(tiles))
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=1e-4)
    assert found.dtype == torch.float32 and not found.requires_grad


def test_the_same_tiles_give_the_same_views_whatever_was_drawn_before() -> None:
    views = Views((ViewSpec(size_px=16), ViewSpec(size_px=16, blur_p=0.5), ViewSpec(size_px=8)))
    encoder = build_encoder("resnet10t", input_px=24, seed=0)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side, 40, 3), dtype=np.uint8) for side in (40, 56, 40)]
    fixed = fix_tiles(images, views, encoder)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # pyright: ignore
    again = fix_tiles(images, views, encoder)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # pyright: ignore
    assert torch.equal(torch.get_rng_state(), states[2])
    assert fixed.whole.shape == (3, 3, 24, 24)
    assert fixed.first.shape == fixed.second.shape == (3, 3, 16, 16)
    for name in ("whole", "first", "second"):
        assert torch.equal(getattr(fixed, name), getattr(again, name))
    assert not torch.equal(fixed.first, fixed.second)
    one = fix_tiles(images, Views((ViewSpec(size_px=16),)), encoder)
    assert not torch.equal(one.first, one.second)


def test_it_measures_without_a_trace(capsys: pytest.CaptureFixture[str]) -> None:
    method = small_method()
    encoder = method.export_encoder()
    encoder.model.layer1.eval()  # pyright: ignore[reportCallIssue]
    modes = [module.training for module in method.modules()]
    before, state = encoder.weights_sha256(), torch.get_rng_state()
    tiles = random_tiles(8)
    monitor = CollapseMonitor(method, FixedTiles(whole=tiles, first=tiles, second=tiles), 10)
    found = monitor.measure(1, 3.0)
    assert set(found) == {"rankme", "embedding_std", "alignment", "uniformity"}
    assert found["alignment"] == 0 and found["uniformity"] < 0
    assert 1 <= found["rankme"] <= monitor.directions == 8
    assert [module.training for module in method.modules()] == modes
    assert encoder.weights_sha256() == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in method.parameters())


def test_modes_come_back_when_embedding_fails() -> None:
    method = small_method()
    with pytest.raises(RuntimeError):
        embed_tiles(method.export_encoder(), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)[:, :, :0])
    assert all(module.training for module in method.modules())


def test_the_loss_is_logged_as_a_share_of_a_collapsed_models() -> None:
    method = small_method()
    method.chance_loss = lambda: 8.0  # type: ignore[method-assign]
    tiles = random_tiles(4)
    monitor = CollapseMonitor(method, FixedTiles(whole=tiles, first=tiles, second=tiles), 10)
    assert monitor.measure(1, 6.0)["loss_share"] == 0.75
    with torch.no_grad():
        method.export_encoder().model.conv1[0].weight.fill_(float("nan"))  # pyright: ignore
    assert dict(monitor.measure(1, 6.0)) == {"loss_share": 0.75}


def test_it_warns_once_also_of_a_run_that_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    same = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
    tiles = FixedTiles(whole=same, first=same, second=same)
    earlier = [{"update": update, "loss": 2.0} for update in range(1, 5)]
    monitor = CollapseMonitor(small_method(), tiles, 10, earlier=earlier)
    for update in (1, 5, 6):
        monitor.logged({"update": update, "loss": 2.0, **monitor.measure(update, 2.0)})
        assert capsys.readouterr().err.count("collapsed") == (1 if update == 5 else 0)
