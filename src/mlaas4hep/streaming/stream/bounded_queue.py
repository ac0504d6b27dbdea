"""A queue between two threads that is bounded in bytes, not in items."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

__all__ = ["BoundedQueue", "QueueClosedError"]

Item = TypeVar("Item")


class QueueClosedError(Exception):
    """The other side has gone; there is nothing more to do."""


class BoundedQueue(Generic[Item]):
    """Items on their way from one thread to another.

    An item larger than the bound passes when the queue is empty, so that nothing can wait for ever.

    Parameters
    ----------
    max_bytes : int
        What the waiting items may hold together.

    Examples
    --------
    >>> queue = BoundedQueue[str](max_bytes=10)
    >>> queue.put("run", nbytes=4)
    >>> queue.finish()
    >>> queue.get(), queue.get()
    ('run', None)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._items: deque[tuple[Item, int]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._finished = False
        self._closed = False
        self._error: BaseException | None = None

    def put(self, item: Item, nbytes: int) -> None:
        """Add an item; wait while there is no room.

        Raises
        ------
        QueueClosedError
            If nobody will take it any more.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._items or self._bytes + nbytes <= self._max_bytes)
            if self._closed:
                raise QueueClosedError
            self._items.append((item, nbytes))
            self._bytes += nbytes
            self._changed.notify_all()

    def get(self) -> Item | None:
        """Take the oldest item; wait for one. None says that no more will come.

        Raises
        ------
        Exception
            The one that the giving side failed with, once the items before it are taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._finished or self._closed)
            if self._items:
                item, nbytes = self._items.popleft()
                self._bytes -= nbytes
                self._changed.notify_all()
                return item
            if self._error is not None:
                raise self._error
            return None

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no more will come, and why if it is for an error."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def close(self) -> None:
        """Say that no more is wanted: drops what waits and sends the giving side home."""
        with self._changed:
            self._closed = True
            self._items.clear()
            self._bytes = 0
            self._changed.notify_all()
