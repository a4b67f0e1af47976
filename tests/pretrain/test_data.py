"""The order of the tiles and the batches: equal for any number of workers and after any resume."""

import os
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eosin.errors import InputError, UsageError
from eosin.images.views import Views, ViewSpec
from eosin.pretrain.data import EpochOrder, batches

VIEWS = Views(
    (
        ViewSpec(size_px=12, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, blur_p=0.5),
        ViewSpec(size_px=12, solarize_p=0.2),
        ViewSpec(size_px=8, scale=(0.05, 0.4)),
    )
)
some_sizes = st.lists(st.integers(1, 30), min_size=1, max_size=4)
seeds = st.integers(0, 2**40)


class Noise:
    """Tiles of noise, some of which cannot be read."""

    fingerprint = "noise"

    def __init__(self, length, seed=0, unreadable=()):
        self._length, self._seed, self._unreadable = length, seed, set(unreadable)

    def __len__(self):
        return self._length

    def read(self, index, /):
        if index in self._unreadable:
            raise InputError(f"noise {index} is damaged.")
        rng = np.random.default_rng((self._seed, index))
        return rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)


class Killer(Noise):
    """Ends the process that reads tile 30, as the system does when memory runs out."""

    def read(self, index, /):
        if index == 30:
            os._exit(137)
        return super().read(index)


def run(start=0, stop=6, sources=None, batch_size=8, **changes):
    options = {"weights": None, "views": VIEWS, "seed": 5, "workers": 0}
    return list(
        batches(
            sources or [Noise(21), Noise(10, seed=1)],
            batch_size=batch_size,
            start_update=start,
            total_updates=stop,
            **{**options, **changes},
        )
    )


def assert_equal(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        for name in ("positions", "sources", "tiles"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert one.unreadable == other.unreadable
        assert all(map(torch.equal, one.views, other.views))


# Order


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


# Batches


def test_batches_follow_the_order_and_hold_the_views_of_each_tile():
    sources = [Noise(21), Noise(10, seed=1)]
    made = run(2, 5, sources)
    order = EpochOrder([21, 10], None, 5)
    for update, batch in zip(range(2, 5), made, strict=True):
        assert [tuple(view.shape) for view in batch.views] == [
            (8, 3, 12, 12),
            (8, 3, 12, 12),
            (8, 3, 8, 8),
        ]
        assert batch.positions.tolist() == list(range(update * 8, update * 8 + 8))
        for row, position in enumerate(batch.positions.tolist()):
            source, tile = order.at(position)
            assert (batch.sources[row], batch.tiles[row]) == (source, tile)
            rng = np.random.default_rng((5, position))
            expected = VIEWS.make(sources[source].read(tile), rng)
            for view, image in zip(batch.views, expected, strict=True):
                assert view.dtype == torch.uint8
                np.testing.assert_array_equal(view[row].permute(1, 2, 0).numpy(), image)
    assert made[0].views[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(workers):
    sources = [Noise(100, unreadable=[7]), Noise(50, seed=1)]
    assert_equal(run(0, 20, sources, workers=workers), run(0, 20, sources))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumed_within_an_epoch_goes_on_as_if_uninterrupted(workers):
    assert_equal(run(0, 12)[5:], run(5, 12, workers=workers))


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_each_batch(world_size):
    whole = run()
    shares = [run(rank=rank, world_size=world_size) for rank in range(world_size)]
    for update, batch in enumerate(whole):
        parts = [share[update] for share in shares]
        for number, view in enumerate(batch.views):
            assert torch.equal(view, torch.cat([part.views[number] for part in parts]))
        positions = np.concatenate([part.positions for part in parts])
        np.testing.assert_array_equal(positions, batch.positions)


def test_another_seed_gives_other_tiles_and_other_views():
    first, second = run(0, 1)[0], run(0, 1, seed=6)[0]
    assert not np.array_equal(first.tiles, second.tiles)
    assert not torch.equal(first.views[0], second.views[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_no_random_state_outside_is_used_or_changed(workers):
    expected = run()
    random.seed(9)
    np.random.seed(9)
    with torch.random.fork_rng():
        torch.manual_seed(9)
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        assert_equal(run(workers=workers), expected)
        assert random.getstate() == before[0]
        assert all(map(np.array_equal, np.random.get_state(), before[1]))
        assert torch.equal(torch.get_rng_state(), before[2])


def test_stopping_early_ends_the_workers():
    made = batches([Noise(40)], None, VIEWS, 8, 0, 0, 1000, workers=2)
    next(made)
    children = {process.pid for process in torch.multiprocessing.active_children()}
    assert len(children) == 2
    made.close()
    assert not children & {process.pid for process in torch.multiprocessing.active_children()}


# What can be wrong with the tiles


def test_fewer_tiles_than_a_batch_is_refused_at_once():
    with pytest.raises(InputError, match=r"--batch-size 64 is more than the 31 tiles .* or less"):
        batches([Noise(31)], None, VIEWS, 64, 0, 0, 1, workers=0)


def test_a_batch_must_be_shared_evenly():
    with pytest.raises(UsageError, match="--batch-size 8 must be a positive multiple of the 3"):
        batches([Noise(31)], None, VIEWS, 8, 0, 0, 1, workers=0, rank=0, world_size=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_tile_is_replaced_counted_and_reported_once(workers, caplog):
    sources = [Noise(400), Noise(400, seed=1, unreadable=[3, 4])]
    made = run(0, 300, sources, workers=workers)
    replaced = [message for batch in made for message in batch.unreadable]
    assert set(replaced) == {"noise 3 is damaged.", "noise 4 is damaged."}
    assert len(replaced) == 6  # twice in each of three epochs
    assert len(caplog.records) == 1
    assert replaced[0] in caplog.text
    order = EpochOrder([400, 400], None, 5)
    for batch in made:
        expected, tiles = order.slice(int(batch.positions[0]), int(batch.positions[-1]) + 1)
        np.testing.assert_array_equal(batch.sources, expected)
        spoiled = (expected == 1) & np.isin(tiles, [3, 4])
        np.testing.assert_array_equal(batch.tiles != tiles, spoiled)
        assert not np.isin(batch.tiles[batch.sources == 1], [3, 4]).any()


def test_more_than_one_per_cent_of_unreadable_tiles_stops_the_run():
    with pytest.raises(InputError, match=r"1\d of \d+ tiles cannot be read, more than 1%"):
        run(0, 400, [Noise(400, unreadable=range(16))])


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_unreadable_tiles_stops_the_run_at_once(workers):
    with pytest.raises(InputError) as caught:
        run(0, 400, [Noise(400, unreadable=range(400))], workers=workers)
    assert str(caught.value).startswith("10 tiles drawn in a row cannot be read; the last: noise")
    assert "\n" not in str(caught.value)


def test_a_killed_worker_is_one_clear_error():
    with pytest.raises(InputError, match=r"was killed, .*choose fewer --workers and resume"):
        run(0, 40, [Killer(40)], workers=2)
