"""Where the time of an epoch goes: seconds by stage, each second counted in the innermost stage only, and bytes.

A thread that works for a stream has a clock; what it calls (readers, selections, kernels) says which stage it is in, and need not know of the clock.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["STAGES", "EpochReport", "StageClock", "count_bytes", "stage"]

STAGES = {
    "fetch": "reading from disk or network, and decoding",
    "decompress": "decompressing",
    "select": "evaluating cuts and new columns",
    "encode": "folds, classes, weights, encoding",
    "wait_for_reading": "encoding waited for reading",
    "write_cache": "writing the cache",
    "wait_for_consumer": "batches waited for the consumer",
    "wait_for_data": "the consumer waited for batches",
}
"""Name of each stage → what is done in it."""


class StageClock:
    """Seconds and bytes of one thread by stage; in a ``with`` block it is the clock of its thread.

    Examples
    --------
    >>> with StageClock() as clock:
    ...     with stage("fetch"):
    ...         count_bytes("fetched", 1000)
    ...         with stage("decompress"):
    ...             pass
    >>> sorted(clock.seconds), dict(clock.bytes)
    (['decompress', 'fetch'], {'fetched': 1000})
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.bytes: defaultdict[str, int] = defaultdict(int)
        self._stages: list[str] = []
        self._since = 0.0

    def __enter__(self) -> StageClock:
        self._outer: StageClock | None = getattr(_of_thread, "clock", None)
        _of_thread.clock = self
        return self

    def __exit__(self, *_: object) -> None:
        _of_thread.clock = self._outer

    def begin(self, name: str) -> None:
        """Enter a stage; the one around it stands still."""
        self._lap()
        self._stages.append(name)

    def end(self) -> None:
        """Leave the innermost stage."""
        self._lap()
        self._stages.pop()

    def _lap(self) -> None:
        now = time.perf_counter()
        if self._stages:
            self.seconds[self._stages[-1]] += now - self._since
        self._since = now


_of_thread = threading.local()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Count the time of a ``with`` block for a stage of the thread's clock, if it has one."""
    clock: StageClock | None = getattr(_of_thread, "clock", None)
    if clock is None:
        yield
        return
    clock.begin(name)
    try:
        yield
    finally:
        clock.end()


def count_bytes(what: str, number: int) -> None:
    """Count bytes for the thread's clock, if it has one: ``"fetched"`` from a ROOT file, ``"read"`` from any, which is uncompressed."""
    clock: StageClock | None = getattr(_of_thread, "clock", None)
    if clock is not None:
        clock.bytes[what] += number


@dataclass
class EpochReport:
    """Where the time of one epoch went.

    Parameters
    ----------
    seconds : dict of str to float
        Stage → seconds, summed over threads and processes, so that together they can be more than ``wall``.
    bytes : dict of str to int
        ``fetched`` (as the file holds them; ROOT only), ``read`` (as values), ``from_cache``.
    events : int
        Delivered events.
    wall : float
        Seconds from the beginning of the epoch to its last batch, the consumer's own work included.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    events: int = 0
    wall: float = 0.0

    def add(self, clock: StageClock) -> None:
        """Add what a clock shows."""
        for name, seconds in clock.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        for what, number in clock.bytes.items():
            self.bytes[what] = self.bytes.get(what, 0) + number

    def to_dict(self) -> dict[str, object]:
        """Return the report as plain values for JSON."""
        return {
            "events": self.events,
            "wall": self.wall,
            "seconds": {name: self.seconds.get(name, 0.0) for name in STAGES},
            "bytes": dict(self.bytes),
        }

    def __str__(self) -> str:
        rate = self.events / self.wall if self.wall else 0.0
        lines = [f"{self.events} events in {self.wall:.2f} s, {rate:,.0f} events/s"]
        lines += [f"  {STAGES[name]:<34} {self.seconds.get(name, 0.0):8.2f} s" for name in STAGES]
        lines += [f"  {what:<34} {number / 1e6:8.1f} MB" for what, number in self.bytes.items()]
        return "\n".join(lines)
