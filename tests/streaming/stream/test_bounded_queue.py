from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.streaming.stream.bounded_queue import BoundedQueue, QueueClosedError


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 40))
def test_items_come_in_order_and_what_waits_keeps_the_bound(sizes: list[int], bound: int) -> None:
    queue = BoundedQueue[int](bound)
    most = 0

    def give() -> None:
        for index, size in enumerate(sizes):
            queue.put(index, size)
        queue.finish()

    thread = threading.Thread(target=give)
    thread.start()
    taken = []
    while (item := queue.get()) is not None:
        taken.append(item)
        most = max(most, queue._bytes)
    thread.join()
    assert taken == list(range(len(sizes)))
    assert most <= max([bound, *sizes])


def test_an_error_comes_after_the_items_before_it() -> None:
    queue = BoundedQueue[str](100)
    queue.put("one", 1)
    queue.finish(ValueError("broken"))
    assert queue.get() == "one"
    with pytest.raises(ValueError, match="broken"):
        queue.get()


def test_closing_sends_the_giving_side_home() -> None:
    queue = BoundedQueue[str](1)
    queue.put("one", 1)
    outcome: list[str] = []

    def give() -> None:
        try:
            queue.put("two", 1)
        except QueueClosedError:
            outcome.append("went home")

    thread = threading.Thread(target=give)
    thread.start()
    queue.close()
    thread.join(timeout=10)
    assert outcome == ["went home"]
    assert queue.get() is None
