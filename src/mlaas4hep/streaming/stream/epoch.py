"""One epoch: pools of events encoded in their final order, from any position on.

Each pool takes pieces of several runs. The events of a piece that belong to the stream are written straight into their shuffled rows of one block,
and what does not fill a batch is carried to the head of the next pool. All order follows from the seed, the epoch and the number of the pool or run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.stream.batch import Batch, BlockStore
from mlaas4hep.streaming.stream.prepared import PreparedRun
from mlaas4hep.streaming.stream.schedule import Piece
from mlaas4hep.streaming.stream.stream_settings import StreamSettings

__all__ = ["EncodedPool", "Epoch", "Position"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a stream is.

    Parameters
    ----------
    epoch : int
    pool : int
        Number of the pool.
    carried : int
        Events at its head that are left from the pools before.
    row : int
        Row of the pool's block that comes next.
    carried_from : int
        Number of the first pool of which any of these events is.
    """

    epoch: int
    pool: int = 0
    carried: int = 0
    row: int = 0
    carried_from: int = 0


@dataclass(frozen=True, slots=True)
class EncodedPool:
    """The whole batches of a pool, and how many of its events were carried to it, from which pool on."""

    number: int
    carried: int
    carried_from: int
    block: Batch


class Epoch:
    """The pools of one epoch from a position on.

    Parameters
    ----------
    pools : list of list of Piece
        All pools of the epoch.
    begin : Position
    settings : StreamSettings
    features : int
        Number of features of the event vector.
    """

    def __init__(self, pools: list[list[Piece]], begin: Position, settings: StreamSettings, features: int) -> None:
        self._pools = pools
        self._begin = begin
        self._settings = settings
        self._first = begin.carried_from if begin.carried else begin.pool
        self.runs = list(dict.fromkeys(piece.run for pool in pools[self._first :] for piece in pool))
        """Indices of the runs that are needed, in the order in which they are."""
        self._orders: dict[int, npt.NDArray[np.int64]] = {}
        self.cut_counts = np.zeros(features, np.int64)
        """Values of each feature that were left out so far because an event held more than there are places, int64 ``[features]``."""

    def encoded_pools(self, following: Callable[[], PreparedRun | None], blocks: BlockStore) -> Iterator[EncodedPool]:
        """Give each pool's events encoded and in their final order, as many as make whole batches.

        Pools before the position are made again only for what they carry to it.

        Parameters
        ----------
        following : callable
            Gives the runs in the order of ``runs``; None for one that holds no event of the stream.
        blocks : BlockStore
        """
        begin, size = self._begin, self._settings.batch_size
        held: dict[int, PreparedRun | None] = {}
        kept: Batch | None = None
        kept_from = self._first
        for number, pool in enumerate(self._pools[self._first :], start=self._first):
            chosen: list[tuple[PreparedRun, npt.NDArray[np.int64]]] = []
            for piece in pool:
                if piece.run not in held:
                    held[piece.run] = arrived = following()
                    if arrived is not None and arrived.cut_counts is not None:
                        self.cut_counts += arrived.cut_counts
                run = held.pop(piece.run) if piece.last else held[piece.run]
                if run is not None:
                    chosen.append((run, self._rows(run, piece)))
            if self._settings.mixing == "balanced":
                chosen = _balanced(chosen, self._generator(3, number))
            events = sum(len(rows) for _, rows in chosen)
            before = 0 if kept is None else len(kept.x)
            before_from = kept_from
            if number == begin.pool and before != begin.carried:
                raise RuntimeError(f"{before} of {begin.carried} events that pool {number} carries were found again")
            block = blocks.take(before + events)
            if kept is not None:
                for name in Batch._fields:
                    getattr(block, name)[:before] = getattr(kept, name)
            self._fill(block, chosen, before, self._generator(2, number))
            kept = None
            if number < begin.pool:
                kept = block.rows(max(0, len(block.x) - begin.carried)) if begin.carried else None
                continue
            last = number == len(self._pools) - 1
            whole = len(block.x) if last and not self._settings.drop_last else len(block.x) // size * size
            if whole < len(block.x) and not last:
                kept = block.rows(whole)
                kept_from = number if whole >= before else before_from
            if whole:
                yield EncodedPool(number, before, before_from, block.rows(0, whole))

    def _fill(
        self,
        block: Batch,
        chosen: list[tuple[PreparedRun, npt.NDArray[np.int64]]],
        before: int,
        generator: np.random.Generator | None,
    ) -> None:
        """Write the chosen rows of some runs into a block from row ``before`` on, shuffled by the generator."""
        events = len(block.x) - before
        destinations = np.arange(events) if generator is None else generator.permutation(events)
        destinations += before
        start = 0
        for run, rows in chosen:
            run.write(rows, destinations[start : start + len(rows)], block, self.cut_counts)
            start += len(rows)

    def _rows(self, prepared: PreparedRun, piece: Piece) -> npt.NDArray[np.int64]:
        """Return the events of a piece that belong to the stream, in the entries' order."""
        events = prepared.run.events
        generator = None if piece.run in self._orders else self._generator(1, piece.run)
        if not self._settings.shuffle or piece.stop - piece.start == events:
            rows = np.arange(piece.start, piece.stop)
        else:
            if generator is not None:
                self._orders[piece.run] = generator.permutation(events)
            rows = np.sort(self._orders[piece.run][piece.start : piece.stop])
            if piece.last:
                del self._orders[piece.run]
        return rows if prepared.chosen is None else rows[prepared.chosen[rows]]

    def _generator(self, *purpose: int) -> np.random.Generator | None:
        if not self._settings.shuffle:
            return None
        return np.random.default_rng(np.random.SeedSequence((self._settings.seed, self._begin.epoch, *purpose)))


def _balanced(
    chosen: list[tuple[PreparedRun, npt.NDArray[np.int64]]], generator: np.random.Generator | None
) -> list[tuple[PreparedRun, npt.NDArray[np.int64]]]:
    """Repeat events of the smaller classes until each has as many as the largest, each event as often as others of its class or once more."""
    if not chosen:
        return chosen
    classes = np.concatenate([run.classes(rows) for run, rows in chosen])
    counts = np.bincount(classes)
    times = np.ones(len(classes), np.int64)
    for index in np.flatnonzero(counts):
        members = np.flatnonzero(classes == index)
        whole, rest = divmod(int(counts.max()), len(members))
        times[members] = whole
        again = members[:rest] if generator is None else generator.permutation(members)[:rest]
        times[again] += 1
    bounds = np.cumsum([0, *(len(rows) for _, rows in chosen)])
    return [
        (run, np.repeat(rows, times[start:stop]))
        for (run, rows), start, stop in zip(chosen, bounds[:-1], bounds[1:], strict=True)
    ]
