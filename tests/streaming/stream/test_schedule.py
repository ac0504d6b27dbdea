from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.streaming.catalog import Run
from mlaas4hep.streaming.stream.schedule import plan_pools


@st.composite
def files_with_runs(draw: st.DrawFn) -> tuple[list[Run], list[int]]:
    runs = []
    groups = []
    for file in range(draw(st.integers(1, 5))):
        groups.append(draw(st.integers(0, 2)))
        start = 0
        for size in draw(st.lists(st.integers(1, 50), max_size=8)):
            runs.append(Run(file, start, start + size))
            start += size
    return runs, groups


@given(files_with_runs(), st.integers(1, 60), st.none() | st.integers(0, 5))
def test_every_event_of_every_run_is_in_exactly_one_piece(
    case: tuple[list[Run], list[int]], pool_events: int, seed: int | None
) -> None:
    runs, groups = case
    pools = plan_pools(runs, groups, pool_events, None if seed is None else np.random.default_rng(seed))
    taken = Counter((piece.run, rank) for pool in pools for piece in pool for rank in range(piece.start, piece.stop))
    assert taken == Counter((index, rank) for index, run in enumerate(runs) for rank in range(run.events))
    flat = [piece for pool in pools for piece in pool]
    for number, piece in enumerate(flat):
        assert piece.last == all(later.run != piece.run for later in flat[number + 1 :])


@given(files_with_runs(), st.integers(1, 60), st.integers(0, 5))
def test_every_pool_takes_its_share_of_each_group(
    case: tuple[list[Run], list[int]], pool_events: int, seed: int
) -> None:
    runs, groups = case
    pools = plan_pools(runs, groups, pool_events, np.random.default_rng(seed))
    for group in set(groups):
        total = sum(run.events for run in runs if groups[run.file] == group)
        for pool in pools:
            share = sum(piece.stop - piece.start for piece in pool if groups[runs[piece.run].file] == group)
            assert abs(share - total / len(pools)) <= 1
    assert max(sum(piece.stop - piece.start for piece in pool) for pool in pools) <= pool_events + len(set(groups))


def test_only_so_many_files_are_read_at_a_time_when_there_are_many() -> None:
    runs = [Run(file, 10 * run, 10 * run + 10) for file in range(400) for run in range(5)]
    pools = plan_pools(runs, [0] * 400, 100, np.random.default_rng(1))
    order = [runs[piece.run].file for pool in pools for piece in pool]
    first = {file: order.index(file) for file in set(order)}
    last = {file: len(order) - 1 - order[::-1].index(file) for file in set(order)}
    busy = [sum(first[file] <= now <= last[file] for file in first) for now in range(0, len(order), 50)]
    assert max(busy) <= 32
