"""The endless row of shuffled epochs, and batches that threads make ahead."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eosin.engine.ahead import Row, batches_ahead
from eosin.engine.trainable import Batch


@given(count=st.integers(1, 30), batch=st.integers(1, 12), seed=st.integers(0, 99))
def test_every_epoch_has_each_member_once(count: int, batch: int, seed: int) -> None:
    row = Row(count, seed, 1)
    updates = -(-2 * count // batch)
    shares = [row.share(update, batch) for update in range(updates)]
    places, members = (np.concatenate(each) for each in zip(*shares, strict=True))
    assert places.tolist() == list(range(updates * batch))
    for epoch in (0, 1):
        assert sorted(members[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))
    # Asked out of order, as a resumed run does, a place gives the same.
    again = Row(count, seed, 1).share(updates - 1, batch)
    assert np.array_equal(again[1], shares[-1][1])


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    row = Row(50, 7, 1)
    orders = [row.share(epoch, 50)[1].tolist() for epoch in (0, 1)]
    orders.append(Row(50, 8, 1).share(0, 50)[1].tolist())
    assert len({tuple(order) for order in orders}) == 3


def make(work: Callable[[int], Batch]) -> Callable[[int, ThreadPoolExecutor], Future[Batch]]:
    return lambda update, pool: pool.submit(work, update)


def test_batches_come_in_order_and_closing_ends_the_threads() -> None:
    begun: list[int] = []

    def work(update: int) -> Batch:
        begun.append(update)
        return Batch(micro=[], tiles=lambda: [update])

    given = batches_ahead(make(work), Future[Batch].result, range(2, 40))
    assert [next(given).tiles() for _ in range(4)] == [[2], [3], [4], [5]]
    given.close()
    assert max(begun) <= 8
    assert not [t for t in threading.enumerate() if t.name.startswith("eosin-batches")]


def test_what_a_thread_meets_is_raised() -> None:
    def work(update: int) -> Batch:
        if update == 1:
            raise ValueError("image 1")
        return Batch(micro=[])

    given = batches_ahead(make(work), Future[Batch].result, range(5))
    next(given)
    with pytest.raises(ValueError, match="image 1"):
        next(given)
