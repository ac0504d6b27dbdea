"""The stream: a dataset as shuffled batches of tensors, every event of the fold once an epoch.

One thread reads runs of clusters, another encodes them, and the consumer takes batches; what lies between them is bounded in bytes. The
encoding thread writes the events of a pool straight into their shuffled rows of one block, so that a batch is a view and shuffling costs no
copy. The order follows from seed and epoch alone.
"""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.block import EventBlock, KernelPlan, pack
from mlaas4hep.streaming.bounded_queue import BoundedQueue, QueueClosedError
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.encoding import Encoding
from mlaas4hep.streaming.identity import Identity
from mlaas4hep.streaming.labels import Labels
from mlaas4hep.streaming.losses import LossReport
from mlaas4hep.streaming.reading import Loaded, LostRun, read_ahead
from mlaas4hep.streaming.schedule import Piece, plan_pools, share_of_runs
from mlaas4hep.streaming.splitting import FOLDS, Fold

__all__ = ["Batch", "EventStream", "Position", "StreamSettings"]

STATE_VERSION = 1

Floats = npt.NDArray[np.float32]


class Batch(NamedTuple):
    """Some events, encoded.

    Attributes
    ----------
    x : float32 array of shape ``[n, width]``
        Scaled values, 0 where absent.
    mask : bool array of shape ``[n, width]``
        True where absent.
    y : int64 array of shape ``[n]``
        Class index; 0 when there are no labels.
    weight : float32 array of shape ``[n]``
    id : structured array of shape ``[n]``
        ``file``, ``entry`` and the identifiers.
    """

    x: Floats
    mask: npt.NDArray[np.bool_]
    y: npt.NDArray[np.int64]
    weight: Floats
    id: npt.NDArray[np.void]

    def rows(self, start: int, stop: int | None = None) -> Batch:
        """Return the events ``start … stop - 1`` as views."""
        part = slice(start, stop)
        return Batch(self.x[part], self.mask[part], self.y[part], self.weight[part], self.id[part])


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """How a dataset is streamed.

    Parameters
    ----------
    fold : {"train", "validation", "test"} or None
        Which events; None for all.
    batch_size : int
        Events of a batch; the last one of an epoch may be smaller.
    shuffle : bool
        Whether the order is random; else it is the files' order and the entries'.
    seed : int
        What the order follows from.
    drop_last : bool
        Whether a last, smaller batch is left out.
    pool_bytes : int
        Size of the block of encoded events within which events are shuffled. About three such blocks are in memory at a time.
    run_bytes : int
        Uncompressed bytes that are read at a time.
    rank, world_size : int
        Deliver only this share of the runs of clusters: those of all ranks together are the whole, each event once.
    """

    fold: Fold | None = None
    batch_size: int = 512
    shuffle: bool = True
    seed: int = 0
    drop_last: bool = False
    pool_bytes: int = 32 * 2**20
    run_bytes: int = 12 * 2**20
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.fold is not None and self.fold not in FOLDS:
            raise SettingError("fold", f"one of {', '.join(FOLDS)}, or None for all events", self.fold)
        for name in ("batch_size", "pool_bytes", "run_bytes", "world_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingError(name, "an integer ≥ 1", value)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SettingError("seed", "an integer ≥ 0", self.seed)
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or not 0 <= self.rank < self.world_size:
            raise SettingError("rank", f"an integer from 0 to {self.world_size - 1}", self.rank)


class EventStream:
    """Batches of a dataset; each iteration is one epoch, and the next one has another order.

    Batches are views into blocks that are used again once nothing refers to them any more: keep a batch as long as you like.

    Parameters
    ----------
    catalog : Catalog
    encoding : Encoding
    identity : Identity
    labels : Labels
    settings : StreamSettings

    Attributes
    ----------
    epoch : int
        Number of the next epoch.
    cut_values : int
        Values that the epochs so far left out because an event held more than its feature has places.
    losses : LossReport
        Events that the epoch begun last did not deliver, since their file was bad; empty where the rule for bad files is to fail.
    """

    def __init__(
        self, catalog: Catalog, encoding: Encoding, identity: Identity, labels: Labels, settings: StreamSettings
    ) -> None:
        self.catalog = catalog
        self.encoding = encoding
        self.settings = settings
        self.epoch = 0
        self.cut_values = 0
        self.losses = LossReport()
        self._position = Position(0)
        self._identity = identity
        self._labels = labels
        self._plan = KernelPlan(encoding)
        label = () if labels.branch is None or labels.branch in identity.identifiers else (labels.branch,)
        self._columns = (*encoding.branches, *identity.identifiers, *label)
        self._groups = labels.by_file or (0,) * len(catalog.files)
        runs = catalog.runs(settings.run_bytes, self._columns)
        self._runs = share_of_runs(runs, self._groups, settings.rank, settings.world_size)
        bytes_per_event = encoding.width * 5 + 12 + identity.dtype.itemsize
        self._pool_events = max(settings.batch_size, settings.pool_bytes // bytes_per_event)
        groups = len(set(labels.by_file)) or 1
        self._blocks = _BlockStore(self._pool_events + groups + settings.batch_size, encoding.width, identity.dtype)

    def __iter__(self) -> Iterator[Batch]:
        position = self._position if self._position.epoch == self.epoch else Position(self.epoch)
        self.epoch += 1
        self.losses = LossReport()
        return self._epoch(position)

    def shard(self, rank: int, world_size: int) -> EventStream:
        """Return a stream of this one's share for one of several processes; it begins with the same epoch."""
        settings = replace(
            self.settings,
            rank=self.settings.rank + self.settings.world_size * rank,
            world_size=self.settings.world_size * world_size,
        )
        stream = EventStream(self.catalog, self.encoding, self._identity, self._labels, settings)
        stream.epoch = self.epoch
        return stream

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the batch that was given last, as plain values: enough to go on in the middle of an epoch.

        Of several iterations at a time it is the position of the one that gave a batch last.
        """
        return {"version": STATE_VERSION, "of": self._fingerprint(), **asdict(self._position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batch at which :meth:`state_dict` was called; the rest of the epoch is the same to the bit.

        Raises
        ------
        SettingError
            If the state is of other files, another event vector, or other settings.
        """
        if state.get("version") != STATE_VERSION or state.get("of") != self._fingerprint():
            raise SettingError("state", "one of a stream of the same files, features and settings", state.get("of"))
        self._position = Position(**{name: int(state[name]) for name in Position.__dataclass_fields__})
        self.epoch = self._position.epoch

    def _fingerprint(self) -> str:
        """Digest of all that the order and content of the batches follow from."""
        files = [(file.uuid, file.entries) for file in self.catalog.files]
        parts = (
            files,
            self.encoding.to_dict(),
            self._identity.identifiers,
            self._identity.split.to_dict(),
            asdict(self.settings),
        )
        return hashlib.sha256(repr((parts, self._labels)).encode()).hexdigest()

    def _epoch(self, begin: Position) -> Iterator[Batch]:
        epoch = begin.epoch
        pools = plan_pools(self._runs, self._groups, self._pool_events, self._generator(epoch, 0))
        first = _pool_before(pools, begin, self._identity.split.share(self.settings.fold))
        order = list(dict.fromkeys(piece.run for pool in pools[first:] for piece in pool))
        pool_bytes = self._pool_events * (self.encoding.width * 5)
        queue: BoundedQueue[_EncodedPool] = BoundedQueue(pool_bytes)

        def encode() -> None:
            try:
                runs = (self._runs[index] for index in order)
                with read_ahead(self.catalog, runs, self._columns, max(4 * self.settings.run_bytes, 1)) as following:
                    for pool in self._encoded_pools(pools, first, begin, following):
                        queue.put(pool, pool.block.x.nbytes + pool.block.mask.nbytes)
                queue.finish()
            except QueueClosedError:
                pass
            except BaseException as error:  # whatever it is, it belongs to the thread that waits
                queue.finish(error)

        thread = threading.Thread(target=encode, name="mlaas4hep-encode", daemon=True)
        thread.start()
        try:
            size = self.settings.batch_size
            while (pool := queue.get()) is not None:
                skipped = begin.row if pool.number == begin.pool else 0
                for start in range(skipped, len(pool.block.x), size):
                    self._position = Position(epoch, pool.number, pool.carried, start + size)
                    yield pool.block.rows(start, start + size)
                del pool
            self._position = Position(epoch + 1)
        finally:
            queue.close()
            thread.join()

    def _encoded_pools(
        self, pools: list[list[Piece]], first: int, begin: Position, following: Callable[[], Loaded | LostRun | None]
    ) -> Iterator[_EncodedPool]:
        """Give each pool's events from a position on, encoded and in their final order, as many as make whole batches.

        What is left of a pool is carried to the head of the next one. Pools before the position are made again only for that.
        """
        size = self.settings.batch_size
        epoch = begin.epoch
        held: dict[int, _LoadedRun | None] = {}
        kept: Batch | None = None
        for number, pool in enumerate(pools[first:], start=first):
            chosen: list[tuple[_LoadedRun, npt.NDArray[np.int64]]] = []
            for piece in pool:
                if piece.run not in held:
                    loaded = following()
                    if loaded is None:
                        raise RuntimeError("the reading thread gave fewer runs than were planned")
                    held[piece.run] = self._load(loaded)
                run = held.pop(piece.run) if piece.last else held[piece.run]
                if run is not None:
                    chosen.append((run, self._rows(run, piece, epoch)))
            events = sum(len(rows) for _, rows in chosen)
            before = 0 if kept is None else len(kept.x)
            if number == begin.pool and before != begin.carried:
                raise RuntimeError(f"{before} of {begin.carried} events that pool {number} carries were found again")
            block = self._blocks.take(before + events)
            if kept is not None:
                for name in Batch._fields:
                    getattr(block, name)[:before] = getattr(kept, name)
            self._fill(block, chosen, before, self._generator(epoch, 2, number))
            kept = None
            if number < begin.pool:
                kept = block.rows(max(0, len(block.x) - begin.carried)) if begin.carried else None
                continue
            last = number == len(pools) - 1
            whole = len(block.x) if last and not self.settings.drop_last else len(block.x) // size * size
            if whole < len(block.x) and not last:
                kept = block.rows(whole)
            if whole:
                yield _EncodedPool(number, before, block.rows(0, whole))

    def _fill(
        self,
        block: Batch,
        chosen: list[tuple[_LoadedRun, npt.NDArray[np.int64]]],
        before: int,
        generator: np.random.Generator | None,
    ) -> None:
        """Write the chosen rows of some runs into a block from row ``before`` on, shuffled by the generator."""
        events = len(block.x) - before
        destinations = np.arange(events) if generator is None else generator.permutation(events)
        destinations += before
        start = 0
        for run, rows in chosen:
            to = destinations[start : start + len(rows)]
            self.cut_values += run.block.encode(self._plan, rows, to, block.x, block.mask)
            block.y[to] = run.labels[rows]
            block.weight[to] = 1.0
            block.id[to] = run.records[rows]
            start += len(rows)

    def _load(self, loaded: Loaded | LostRun) -> _LoadedRun | None:
        """Prepare a run for encoding; one that is lost is noted, and None."""
        if isinstance(loaded, LostRun):
            self.losses.add(loaded.loss)
            return None
        run, columns = loaded
        chosen = None
        if self.settings.fold is not None:
            chosen = self._identity.folds(run, columns) == FOLDS.index(self.settings.fold)
        return _LoadedRun(
            run,
            pack(columns, self.encoding, run.events),
            self._labels.of_events(run.file, run.events, columns),
            self._identity.records(run, columns),
            chosen,
        )

    def _rows(self, loaded: _LoadedRun, piece: Piece, epoch: int) -> npt.NDArray[np.int64]:
        """Return the events of a piece that belong to the fold, in the entries' order."""
        events = loaded.run.events
        generator = self._generator(epoch, 1, piece.run)
        if generator is None or piece.stop - piece.start == events:
            rows = np.arange(piece.start, piece.stop)
        else:
            rows = np.sort(generator.permutation(events)[piece.start : piece.stop])
        return rows if loaded.chosen is None else rows[loaded.chosen[rows]]

    def _generator(self, epoch: int, *purpose: int) -> np.random.Generator | None:
        if not self.settings.shuffle:
            return None
        return np.random.default_rng(np.random.SeedSequence((self.settings.seed, epoch, *purpose)))


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
    """

    epoch: int
    pool: int = 0
    carried: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class _EncodedPool:
    """The whole batches of a pool, and how many of its events were carried to it."""

    number: int
    carried: int
    block: Batch


def _pool_before(pools: Sequence[Sequence[Piece]], begin: Position, share: float) -> int:
    """Return the pool to begin with so that all events that a position's pool carries are made again.

    How many events of a pool belong to the fold is not known before they are read; from its ``share`` of all events follow enough, with ample margin.
    """
    first = begin.pool
    planned = 0
    while first > 0 and begin.carried and planned * share < 4 * begin.carried + 1000:
        first -= 1
        planned += sum(piece.stop - piece.start for piece in pools[first])
    return first


@dataclass(frozen=True)
class _LoadedRun:
    """A run of clusters in memory, and which of its events belong to the fold (None for all)."""

    run: Run
    block: EventBlock
    labels: npt.NDArray[np.int64]
    records: npt.NDArray[np.void]
    chosen: npt.NDArray[np.bool_] | None


def _references(block: Batch) -> int:
    """Largest number of references to one of the arrays; every view of an array refers to it."""
    return max(sys.getrefcount(array) for array in block)


class _BlockStore:
    """Blocks for encoded events.

    One is used again when no batch refers to it any more, since fresh memory costs more than filling it. Each can hold the largest pool; what a
    smaller one does not touch takes no memory.
    """

    def __init__(self, events: int, width: int, id_dtype: np.dtype[Any]) -> None:
        self._events = events
        self._width = width
        self._id_dtype = id_dtype
        self._blocks: list[Batch] = []
        self._references_at_rest = _references(self._new())

    def take(self, events: int) -> Batch:
        for block in self._blocks:
            if _references(block) <= self._references_at_rest:
                return block.rows(0, events)
        self._blocks.append(self._new())
        return self._blocks[-1].rows(0, events)

    def _new(self) -> Batch:
        events = self._events
        return Batch(
            np.empty((events, self._width), np.float32),
            np.empty((events, self._width), np.bool_),
            np.empty(events, np.int64),
            np.empty(events, np.float32),
            np.empty(events, self._id_dtype),
        )
