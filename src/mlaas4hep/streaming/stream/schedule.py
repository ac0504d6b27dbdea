"""The order of an epoch: which events of which run of clusters go into which pool.

Events are shuffled within pools of bounded size. So that every pool is a fair sample of the whole, the runs of each file are spread over the
epoch, the files of each group (those with one label) are mixed, and every pool takes from each group exactly its share. All of it follows from
the seed.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from mlaas4hep.streaming.catalog import Run
from mlaas4hep.streaming.stream.reading import MAX_OPEN_FILES

__all__ = ["Piece", "plan_pools", "share_of_runs"]


PARTS = 4
"""Parts in which the events of a run are used when shuffling."""

HELD_POOLS = 2.0
"""Pools over which these parts are spread: so many events stay in memory, not yet encoded, so that each pool takes from twice as many runs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A share of the events of a run: those with the ranks ``start … stop - 1`` in the run's own order.

    Parameters
    ----------
    run : int
        Index of the run in the list that was planned.
    start, stop : int
        Ranks. The run's order is a permutation of its events when shuffling, else the entries' order.
    last : bool
        Whether no later piece takes events of this run.
    """

    run: int
    start: int
    stop: int
    last: bool


def plan_pools(
    runs: Sequence[Run], groups: Sequence[Hashable], pool_events: int, generator: np.random.Generator | None
) -> list[list[Piece]]:
    """Distribute the events of all runs over pools.

    Parameters
    ----------
    runs : sequence of Run
        All runs of all files, each file's in order.
    groups : sequence
        Group of each file.
    pool_events : int
        Events of a pool; the pools are made equal, and none larger than this by more than one event for each group.
    generator : numpy.random.Generator, optional
        Source of the order. Without it runs stay in order and groups do not count.

    Returns
    -------
    list of list of Piece
        For each pool its pieces. Every event is in exactly one piece.
    """
    if generator is None:
        sequences = [list(range(len(runs)))]
    else:
        members: dict[Hashable, list[int]] = {}
        for index, run in enumerate(runs):
            members.setdefault(groups[run.file], []).append(index)
        sequences = [_mixed(runs, indices, generator) for indices in members.values()]
    total = sum(run.events for run in runs)
    count = max(1, -(-total // pool_events))
    pools: list[list[Piece]] = [[] for _ in range(count)]
    for sequence in sequences:
        events = sum(runs[index].events for index in sequence)
        bounds = [events * pool // count for pool in range(count + 1)]
        pool = 0
        position = 0
        delay = 0.0 if generator is None else HELD_POOLS * events / count
        for index, start, end in _parted(runs, sequence, delay):
            while start < end:
                while position >= bounds[pool + 1]:
                    pool += 1
                stop = min(end, start + bounds[pool + 1] - position)
                pools[pool].append(Piece(index, start, stop, last=stop == runs[index].events))
                position += stop - start
                start = stop  # noqa: PLW2901 - the rest of the part goes into the next pool
    return pools


def _parted(runs: Sequence[Run], sequence: Sequence[int], delay: float) -> list[tuple[int, int, int]]:
    """Return parts ``(run, start, stop)`` of some runs in the order in which their events are wanted.

    A run is not used up at once: its parts come one after the other, the last one ``delay`` events behind the first, with others' between them.
    """
    if not delay:
        return [(index, 0, runs[index].events) for index in sequence]
    placed = []
    before = 0
    for place, index in enumerate(sequence):
        events = runs[index].events
        for part in range(PARTS):
            start, stop = events * part // PARTS, events * (part + 1) // PARTS
            if stop > start:
                placed.append((before + delay * part / (PARTS - 1), place, index, start, stop))
        before += events
    return [(index, start, stop) for _, _, index, start, stop in sorted(placed)]


def share_of_runs(runs: Sequence[Run], groups: Sequence[Hashable], rank: int, world_size: int) -> list[Run]:
    """Return one of several processes' share of the runs: of each group every ``world_size``-th one.

    Parameters
    ----------
    runs : sequence of Run
    groups : sequence
        Group of each file.
    rank, world_size : int
        Number of this process, and of all.
    """
    counted: dict[Hashable, int] = {}
    share = []
    for run in runs:
        place = counted.get(groups[run.file], 0)
        counted[groups[run.file]] = place + 1
        if place % world_size == rank:
            share.append(run)
    return share


def _mixed(runs: Sequence[Run], indices: Sequence[int], generator: np.random.Generator) -> list[int]:
    """Return the runs of one group in random order, such that every part of the epoch holds something of every part of each file.

    Events of a file are often ordered by run or time, so a pool that took neighbouring clusters would be no fair sample. A file's time is the whole
    epoch; with more files than can be kept open it is a window, so that only so many are open at once.
    """
    by_file: dict[int, list[int]] = {}
    for index in indices:
        by_file.setdefault(runs[index].file, []).append(index)
    window = min(1.0, MAX_OPEN_FILES / 2 / len(by_file))
    placed: list[tuple[float, int]] = []
    for own in by_file.values():
        begin = generator.random() * (1 - window)
        for part in _parts(runs, own):
            order = generator.permutation(part)
            events = np.array([runs[index].events for index in order], np.float64)
            behind = np.cumsum(events) - events
            within = (behind + generator.random(len(order)) * events) / max(1.0, float(events.sum()))
            placed.extend(
                (begin + window * float(place), int(index)) for place, index in zip(within, order, strict=True)
            )
    return [index for _, index in sorted(placed)]


def _parts(runs: Sequence[Run], own: list[int]) -> list[list[int]]:
    """Divide the runs of a file, in order, into parts of about as many events; as many parts as each then has runs."""
    count = max(1, int(len(own) ** 0.5))
    total = max(1, sum(runs[index].events for index in own))
    parts: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for index in own:
        parts[min(count - 1, before * count // total)].append(index)
        before += runs[index].events
    return [part for part in parts if part]
