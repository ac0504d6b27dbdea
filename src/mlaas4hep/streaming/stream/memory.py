"""Keep a bound on memory: from what a person allows for all processes together follows how much is read and shuffled at a time."""

from __future__ import annotations

import re
from dataclasses import replace
from math import floor, log2
from pathlib import Path

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.catalog import Catalog
from mlaas4hep.streaming.stream.prepared import EventRules
from mlaas4hep.streaming.stream.quantities import parse_size
from mlaas4hep.streaming.stream.stream_settings import StreamSettings

__all__ = ["within_memory"]

WORKER_BYTES = 150 * 2**20
"""What a worker process, or the fork server, has in memory before it reads: measured on Linux with Python 3.11."""

SMALLEST = 1 / 64
"""Share of the settings' ``run_bytes`` and ``pool_bytes`` below which reading would be too slow to be of use."""


def within_memory(settings: StreamSettings, catalog: Catalog, rules: EventRules) -> StreamSettings:
    """Return the settings with ``run_bytes`` and ``pool_bytes`` small enough for their ``memory``; the settings themselves without it.

    Raises
    ------
    SettingError
        If it is less than what this process and the workers need to work at all.
    """
    if settings.memory is None:
        return settings
    allowed = parse_size(settings.memory, "memory")
    base = _bytes_of_this_process() + (settings.workers and WORKER_BYTES * (settings.workers + 1))
    needed = _needed(settings, catalog, rules)
    share = min(1.0, (allowed - base) / needed)
    if share < SMALLEST:
        least = base + needed * SMALLEST
        raise SettingError(
            "memory",
            f"at least {-(-least // 1e6):.0f}MB: {base / 1e6:.0f} MB are taken before anything is read"
            + (f" with {settings.workers} workers" if settings.workers else ""),
            settings.memory,
        )
    # In powers of two, so that the order of events does not depend on every page that something else takes.
    part = 2.0 ** floor(log2(share))
    return replace(
        settings, run_bytes=max(1, int(settings.run_bytes * part)), pool_bytes=max(1, int(settings.pool_bytes * part))
    )


def _needed(settings: StreamSettings, catalog: Catalog, rules: EventRules) -> float:
    """Return what the buffers of a stream take at most, in bytes."""
    raw = catalog.bytes_per_event(rules.columns)
    encoded = rules.encoding.width * 4 + rules.identity.dtype.itemsize + 12
    block = settings.pool_bytes
    pool_events = block / (rules.encoding.width * 5 + 12 + rules.identity.dtype.itemsize)
    # A run while it is read: compressed, decompressed, and four that wait; pools that are shuffled, wait and are consumed; runs that are held.
    if not settings.workers:
        return 6 * settings.run_bytes + 3 * pool_events * raw + 3.5 * block
    run = settings.run_bytes / raw * encoded
    in_each = 3 * settings.run_bytes + run / 4
    return (2 * settings.workers + 1) * run + 3 * pool_events * encoded + 3.5 * block + settings.workers * in_each


def _bytes_of_this_process() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"RssAnon:\s*(\d+)", status.read_text())[0]) * 1024
    import psutil

    return int(psutil.Process().memory_info().rss)
