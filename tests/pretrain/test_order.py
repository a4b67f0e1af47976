"""The order of the tiles: every tile once in an epoch, whatever the sizes, seeds and weights."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import UsageError
from eosin.pretrain.order import EpochOrder

some_sizes = st.lists(st.integers(1, 30), min_size=1, max_size=4)
seeds = st.integers(0, 2**40)


@given(some_sizes, seeds, st.integers(0, 5))
def test_each_epoch_has_every_tile_once(sizes, seed, epoch):
    order = EpochOrder(sizes, None, seed)
    length = sum(sizes)
    assert len(order) == length
    sources, tiles = order.slice(epoch * length, (epoch + 1) * length)
    every = {(source, tile) for source, size in enumerate(sizes) for tile in range(size)}
    assert set(zip(sources.tolist(), tiles.tolist(), strict=True)) == every


@given(some_sizes, seeds, st.data())
def test_the_order_is_a_function_of_seed_and_position(sizes, seed, data):
    start = data.draw(st.integers(0, 100))
    stop = start + data.draw(st.integers(1, 60))
    weights = data.draw(st.none() | st.just([1.0 + k for k in range(len(sizes))]))
    try:
        order = EpochOrder(sizes, weights, seed)
    except UsageError:
        return  # so few tiles that a source gets none of them
    sources, tiles = order.slice(start, stop)
    fresh = EpochOrder(sizes, weights, seed)
    for offset in reversed(range(stop - start)):
        assert fresh.at(start + offset) == (sources[offset], tiles[offset])


@given(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.1, 10)), min_size=1, max_size=4),
    seeds,
)
@settings(max_examples=60)
def test_weights_are_honoured_and_each_stream_has_no_early_repeat(pairs, seed):
    sizes, weights = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    length, epochs = sum(sizes), 4
    try:
        order = EpochOrder(sizes, weights, seed)
    except UsageError:
        assert min(weights) * length / sum(weights) < 1
        return
    sources, tiles = order.slice(0, epochs * length)
    for source, size in enumerate(sizes):
        exact = weights[source] * length / sum(weights)
        drawn = tiles[sources == source]
        assert abs(len(drawn) / epochs - exact) < 1
        times = Counter(drawn.tolist())
        assert set(times) <= set(range(size))
        assert max(times.values()) - min(times.get(tile, 0) for tile in range(size)) <= 1


def test_epochs_and_seeds_differ_and_are_well_mixed():
    order = EpochOrder([2000, 2000], None, 0)
    sources, tiles = order.slice(0, 8000)
    assert (tiles[:4000] != tiles[4000:]).mean() > 0.99
    assert (EpochOrder([2000, 2000], None, 1).slice(0, 4000)[1] != tiles[:4000]).mean() > 0.99
    assert abs(sources[:500].mean() - 0.5) < 0.1
    place = np.argsort(sources[:4000] * 2000 + tiles[:4000])
    assert abs(np.corrcoef(place, np.arange(4000))[0, 1]) < 0.08


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], "--data-weights has 1 values, --data 2"),
        ([1.0, 0.0], "--data-weights 1.0 0.0: each must be above 0"),
        ([1.0, float("nan")], "each must be above 0"),
        ([1.0, 1e-6], "--data-weights 1e-06 for source 2 .* less than one of the 30 tiles"),
    ],
)
def test_senseless_weights_are_refused(weights, message):
    with pytest.raises(UsageError, match=message):
        EpochOrder([10, 20], weights, 0)


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="--seed is -1"):
        EpochOrder([10, 20], None, -1)
