"""Batches: equal for any number of threads and after any resume, and threads that end with them."""

import gc
import os
import random
import shutil
import signal
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from eosin.errors import InputError, UsageError
from eosin.images.views import Views, ViewSpec
from eosin.pretrain.data import batches
from eosin.pretrain.order import EpochOrder
from eosin.store.tile_store import TileStore
from eosin.synthetic import write_slides
from eosin.tiling.config import Config as TilingConfig
from eosin.tiling.run import tile

VIEWS = Views(
    (
        ViewSpec(size_px=12, jitter=(0.4, 0.4, 0.2, 0.1), jitter_p=0.8, blur_p=0.5),
        ViewSpec(size_px=12, solarize_p=0.2),
        ViewSpec(size_px=8, scale=(0.05, 0.4)),
    )
)
WORKERS = (0, 1, 3)


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


class Broken(Noise):
    """Has a mistake in its code that shows at tile 30."""

    def read(self, index, /):
        if index == 30:
            raise ZeroDivisionError("a mistake")
        return super().read(index)


class Gate(Noise):
    """Reads nothing until it is opened, and counts what was asked for."""

    def __init__(self, length):
        super().__init__(length)
        self.opened, self.asked = threading.Event(), 0

    def read(self, index, /):
        self.asked += 1
        assert self.opened.wait(60)
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
    assert all(view.is_contiguous() for view in made[0].views)


def maker_threads():
    return [each for each in threading.enumerate() if each.name.startswith("eosin-views")]


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_bytes(workers):
    sources = [Noise(100, unreadable=[7]), Noise(50, seed=1)]
    assert_equal(run(0, 20, sources, workers=workers), run(0, 20, sources))


@pytest.mark.parametrize("workers", WORKERS)
def test_batches_smaller_than_the_threads_are_made_alike(workers):
    expected = run(0, 6, batch_size=1)
    assert_equal(run(0, 6, batch_size=1, workers=workers), expected)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_run_resumed_within_an_epoch_goes_on_as_if_uninterrupted(workers):
    assert_equal(run(0, 12)[5:], run(5, 12, workers=workers))


@pytest.mark.parametrize(("world_size", "workers"), [(2, 0), (4, 3)])
def test_processes_share_each_batch(world_size, workers):
    whole = run()
    shares = [run(rank=rank, world_size=world_size, workers=workers) for rank in range(world_size)]
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


@pytest.mark.parametrize("workers", WORKERS)
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


def test_a_batch_that_the_caller_keeps_is_not_written_to_again():
    made = batches([Noise(40)], None, VIEWS, 8, 0, 0, 30, workers=2)
    kept, before = [], []
    for batch in made:
        kept.append(batch)
        before.append([view.clone() for view in batch.views])
    for batch, views in zip(kept, before, strict=True):
        assert all(map(torch.equal, batch.views, views))


def test_the_batches_made_ahead_are_few():
    source = Gate(1000)
    source.opened.set()
    made = batches([source], None, VIEWS, 8, 0, 0, 100, workers=2)
    next(made)
    made.close()
    assert source.asked <= 4 * 8


def test_nothing_starts_before_the_first_batch_is_asked_for():
    source = Gate(40)
    made = batches([source], None, VIEWS, 8, 0, 0, 1000, workers=2)
    assert not maker_threads()
    made.close()
    assert source.asked == 0


# The end of the threads


@pytest.mark.parametrize("end", ["close", "forget", "exhaust"])
def test_no_thread_outlives_the_batches(end):
    made = batches([Noise(40)], None, VIEWS, 8, 0, 0, 4, workers=2)
    next(made)
    assert 0 < len(maker_threads()) <= 2
    if end == "close":
        made.close()
    elif end == "exhaust":
        list(made)
    del made
    assert not maker_threads()


def test_closing_waits_for_nothing_but_the_tiles_at_hand():
    source = Gate(400)
    source.opened.set()
    made = batches([source], None, VIEWS, 64, 0, 0, 1000, workers=2)
    next(made)
    source.opened.clear()
    asked = source.asked
    threading.Timer(0.2, source.opened.set).start()
    made.close()
    assert source.asked <= asked + 8
    assert not maker_threads()


def test_a_keyboard_interrupt_while_waiting_ends_the_threads():
    source = Gate(40)
    made = batches([source], None, VIEWS, 8, 0, 0, 1000, workers=2)
    handled = threading.Event()

    def handle(*_):
        handled.set()
        raise KeyboardInterrupt

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        # A batch that is finished before the interrupt is noticed would be handed over.
        assert handled.wait(60)
        source.opened.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        interrupter = threading.Timer(0.2, interrupt)
        interrupter.start()
        with pytest.raises(KeyboardInterrupt):
            next(made)
        interrupter.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert not maker_threads()
    with pytest.raises(StopIteration):
        next(made)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_mistake_in_a_thread_is_not_hidden(workers):
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        run(0, 40, [Broken(40)], workers=workers)
    assert not maker_threads()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_threads_of_opencv_are_as_before(workers):
    before = cv2.getNumThreads()
    run(workers=workers)
    assert cv2.getNumThreads() == before


# What can be wrong with the tiles


def test_fewer_tiles_than_a_batch_is_refused_at_once():
    with pytest.raises(InputError, match=r"--batch-size 64 is more than the 31 tiles .* or less"):
        batches([Noise(31)], None, VIEWS, 64, 0, 0, 1, workers=0)


def test_a_batch_must_be_shared_evenly():
    with pytest.raises(UsageError, match="--batch-size 8 must be a positive multiple of the 3"):
        batches([Noise(31)], None, VIEWS, 8, 0, 0, 1, workers=0, rank=0, world_size=3)


@pytest.mark.parametrize("workers", WORKERS)
def test_an_unreadable_tile_is_replaced_counted_and_reported_once(workers, caplog):
    sources = [Noise(400), Noise(400, seed=1, unreadable=[3, 4])]
    made = run(0, 300, sources, workers=workers)
    replaced = [message for batch in made for message in batch.unreadable]
    assert set(replaced) == {"noise 3 is damaged.", "noise 4 is damaged."}
    assert len(replaced) == 6  # twice in each of three epochs
    first, last = [record.getMessage() for record in caplog.records]
    assert first.startswith(replaced[0])
    assert last == "6 of 2400 tiles could not be read and were replaced."
    order = EpochOrder([400, 400], None, 5)
    for batch in made:
        expected, tiles = order.slice(int(batch.positions[0]), int(batch.positions[-1]) + 1)
        np.testing.assert_array_equal(batch.sources, expected)
        spoiled = (expected == 1) & np.isin(tiles, [3, 4])
        np.testing.assert_array_equal(batch.tiles != tiles, spoiled)
        assert not np.isin(batch.tiles[batch.sources == 1], [3, 4]).any()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    write_slides(folder / "slides", count=1)
    slides, out = (folder / "slides",), folder / "store"
    tile(TilingConfig(slides=slides, out=out, tile_px=64, mpp=(0.5,)))
    return TileStore(out)


def test_a_corrupt_tile_of_a_store_is_replaced_alike_by_any_number_of_threads(
    store, tmp_path, caplog
):
    shutil.copytree(store.folder, tmp_path / "store")
    row = store.index.row(5)
    (shard,) = (tmp_path / "store" / "shards").iterdir()
    with open(shard, "r+b") as file:
        file.seek(int(row["offset"]) + int(row["length"]) // 2)
        file.write(bytes(16))
    damaged = [TileStore(tmp_path / "store")]
    updates = 2 * len(store) // 8 + 1
    expected = run(0, updates, damaged)
    messages = [message for batch in expected for message in batch.unreadable]
    assert len(messages) >= 2
    assert all(f"{shard.name} at byte {row['offset']}" in message for message in messages)
    for workers in WORKERS:
        caplog.clear()
        assert_equal(run(0, updates, damaged, workers=workers), expected)
        assert [messages[0] in record.getMessage() for record in caplog.records] == [True, False]


@pytest.mark.parametrize("workers", WORKERS)
def test_more_than_one_per_cent_of_unreadable_tiles_stops_the_run(workers):
    with pytest.raises(InputError, match=r"1\d of \d+ tiles cannot be read, more than 1%"):
        run(0, 400, [Noise(400, unreadable=range(16))], workers=workers)
    assert not maker_threads()


@pytest.mark.parametrize("workers", WORKERS)
def test_nothing_but_unreadable_tiles_stops_the_run_at_once(workers):
    with pytest.raises(InputError) as caught:
        run(0, 400, [Noise(400, unreadable=range(400))], workers=workers)
    assert str(caught.value).startswith("10 tiles drawn in a row cannot be read; the last: noise")
    assert "\n" not in str(caught.value)


def test_a_number_of_threads_below_zero_is_refused():
    with pytest.raises(UsageError, match="--workers is -1; it must be 0 or more"):
        run(workers=-1)


# Memory


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_the_resident_size_does_not_grow(store):
    made = batches([store], None, VIEWS, 8, 0, 0, 11_000, workers=2)
    for _ in range(1000):
        next(made)
    gc.collect()
    before = resident_bytes()
    assert sum(1 for _ in made) == 10_000
    gc.collect()
    assert resident_bytes() - before < 20e6
