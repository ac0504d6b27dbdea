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
from mlaas4hep.streaming.reading import MAX_OPEN_FILES

__all__ = ["Piece", "plan_pools", "share_of_runs"]


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
        for index in sequence:
            start = 0
            while start < runs[index].events:
                while position >= bounds[pool + 1]:
                    pool += 1
                stop = min(runs[index].events, start + bounds[pool + 1] - position)
                pools[pool].append(Piece(index, start, stop, last=stop == runs[index].events))
                position += stop - start
                start = stop
    return pools


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
    """Return the runs of one group in random order, each file's spread evenly over its time.

    A file's time is the whole epoch; with more files than can be kept open it is a window, so that only so many are open at once.
    """
    by_file: dict[int, list[int]] = {}
    for index in indices:
        by_file.setdefault(runs[index].file, []).append(index)
    window = min(1.0, MAX_OPEN_FILES / 2 / len(by_file))
    placed: list[tuple[float, int]] = []
    for own in by_file.values():
        begin = generator.random() * (1 - window)
        events = np.array([runs[index].events for index in own], np.float64)
        order = generator.permutation(len(own))
        behind = np.cumsum(events[order]) - events[order]
        within = (behind + generator.random(len(own)) * events[order]) / max(1.0, float(events.sum()))
        placed.extend((begin + window * float(place), own[rank]) for place, rank in zip(within, order, strict=True))
    return [index for _, index in sorted(placed)]
