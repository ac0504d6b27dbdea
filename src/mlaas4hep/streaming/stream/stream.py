"""The stream: a dataset as shuffled batches of tensors, every event of the fold once an epoch.

One thread reads runs of clusters, another encodes them, and the consumer takes batches; what lies between them is bounded in bytes. The
encoding thread writes the events of a pool straight into their shuffled rows of one block, so that a batch is a view and shuffling costs no
copy. The order follows from seed and epoch alone.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.access.losses import LossReport
from mlaas4hep.streaming.cache.cache import CachedSupply
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.labels import Labels
from mlaas4hep.streaming.stream.batch import Batch, BlockStore
from mlaas4hep.streaming.stream.bounded_queue import BoundedQueue, QueueClosedError
from mlaas4hep.streaming.stream.epoch import EncodedPool, Epoch, Position
from mlaas4hep.streaming.stream.memory import within_memory
from mlaas4hep.streaming.stream.prepared import EventRules
from mlaas4hep.streaming.stream.schedule import plan_pools, share_of_runs
from mlaas4hep.streaming.stream.stream_settings import StreamSettings
from mlaas4hep.streaming.stream.supply import InThisProcess, Supply
from mlaas4hep.streaming.stream.timing import EpochReport, StageClock, stage
from mlaas4hep.streaming.stream.workers import WorkerProcesses

__all__ = ["Batch", "EventStream", "Position", "StreamSettings"]

STATE_VERSION = 2

RUNS_EACH = 4
"""Runs of each group that every one of several processes should get."""

SMALLEST_RUN = 2**16
"""Bytes of a run below which sharing is not made finer."""

NOT_OF_CONTENT = ("workers", "cache", "memory")
"""Settings that the batches do not depend on: what began with one value may go on with another."""


class EventStream:
    """Batches of a dataset; each iteration is one epoch, and the next one has another order.

    Batches are views into blocks that are used again once nothing refers to them any more: keep a batch as long as you like.

    Parameters
    ----------
    catalog : Catalog
    rules : EventRules
        What becomes of each event.
    settings : StreamSettings

    Attributes
    ----------
    epoch : int
        Number of the next epoch.
    cut_counts : int64 array of shape ``[features]``
        Values of each feature that the epochs so far left out because an event held more than there are places.
    losses : LossReport
        Events that the epoch begun last did not deliver, since their file was bad; empty where the rule for bad files is to fail.
    report : EpochReport
        Where the time of the epoch begun last went; complete at its end.
    """

    def __init__(self, catalog: Catalog, rules: EventRules, settings: StreamSettings) -> None:
        self.catalog = catalog
        self.rules = rules
        self.epoch = 0
        self.cut_counts = np.zeros(len(rules.encoding.features), np.int64)
        self.losses = LossReport()
        self.report = EpochReport()
        self._position = Position(0)
        if settings.mixing == "balanced" and len(rules.labels.classes) < 2:
            raise SettingError("mixing", "'proportional' where there are no classes", settings.mixing)
        self._set_up(within_memory(settings, catalog, rules))

    def _set_up(self, settings: StreamSettings) -> None:
        """Plan what does not change from epoch to epoch."""
        catalog, rules = self.catalog, self.rules
        self.settings = settings
        classes = max(1, len(rules.labels.classes))
        by_file = rules.labels.by_file if isinstance(rules.labels, Labels) else ()
        self._groups = by_file or (0,) * len(catalog.files)
        self._runs = share_of_runs(self._all_runs(), self._groups, settings.rank, settings.world_size)
        bytes_per_event = rules.encoding.width * 5 + 12 + rules.identity.dtype.itemsize
        block_events = max(settings.batch_size, settings.pool_bytes // bytes_per_event)
        # Balanced, a pool can become as many times as large as there are classes.
        self._growth = classes if settings.mixing == "balanced" else 1
        self._pool_events = max(1, block_events // self._growth)
        self._block_bytes = block_events * rules.encoding.width * 5
        most = (self._pool_events + len(set(self._groups))) * self._growth
        labels = rules.labels
        self._blocks = BlockStore(
            most + settings.batch_size, rules.encoding.width, labels.dtype, labels.shape, rules.identity.dtype
        )
        self._supply: Supply = (WorkerProcesses if settings.workers else InThisProcess)(catalog, rules, settings)
        if settings.cache is not None:
            self._supply = CachedSupply(self._supply, settings.cache, catalog, rules, settings)

    def _all_runs(self) -> list[Run]:
        """Cut the files into runs; into smaller ones, than clusters too, where there would be too few for every process to get some of each group."""
        settings = self.settings
        run_bytes = settings.run_bytes
        while True:
            split = settings.memory is not None or run_bytes < settings.run_bytes
            runs = self.catalog.runs(run_bytes, self.rules.columns, split=split)
            of_group = Counter(self._groups[run.file] for run in runs)
            enough = min(of_group.values(), default=0) >= RUNS_EACH * settings.world_size
            if settings.world_size == 1 or enough or run_bytes <= SMALLEST_RUN:
                return runs
            run_bytes //= 2

    @property
    def cut_values(self) -> int:
        """Values that the epochs so far left out because an event held more than its feature has places."""
        return int(self.cut_counts.sum())

    @property
    def cut_objects(self) -> dict[str, int]:
        """Objects that the epochs so far left out: collection, or list that belongs to none → number; only where there were any."""
        return self.encoding.cut_report(self.cut_counts)

    @property
    def encoding(self) -> Encoding:
        """The event vector."""
        return self.rules.encoding

    def __iter__(self) -> Iterator[Batch]:
        position = self._position if self._position.epoch == self.epoch else Position(self.epoch)
        self.epoch += 1
        self.losses = LossReport()
        self.report = EpochReport()
        return self._batches(position, self.losses, self.report)

    def shard(self, rank: int, world_size: int) -> EventStream:
        """Return a stream of this one's share for one of several processes; it begins with the same epoch."""
        settings = replace(
            self.settings,
            rank=self.settings.rank + self.settings.world_size * rank,
            world_size=self.settings.world_size * world_size,
            workers=0,
            memory=None,
        )
        stream = EventStream(self.catalog, self.rules, settings)
        stream.epoch = self.epoch
        return stream

    def set_epoch(self, epoch: int) -> None:
        """Begin with an epoch, from its first batch, wherever the stream is now."""
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise SettingError("epoch", "an integer ≥ 0", epoch)
        self.epoch = epoch
        self._position = Position(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the batch that was given last, as plain values: enough to go on in the middle of an epoch.

        Of several iterations at a time it is the position of the one that gave a batch last.
        """
        sizes = {"run_bytes": self.settings.run_bytes, "pool_bytes": self.settings.pool_bytes}
        return {"version": STATE_VERSION, "of": self._fingerprint(), **sizes, **asdict(self._position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batch at which :meth:`state_dict` was called; the rest of the epoch is the same to the bit.

        Raises
        ------
        SettingError
            If the state is of other files, another event vector, or other settings.
        """
        if self.settings.memory is not None and state.get("version") == STATE_VERSION:
            # What is free may be another amount now; the order follows from what was free then.
            self._set_up(replace(self.settings, run_bytes=int(state["run_bytes"]), pool_bytes=int(state["pool_bytes"])))
        if state.get("version") != STATE_VERSION or state.get("of") != self._fingerprint():
            raise SettingError("state", "one of a stream of the same files, features and settings", state.get("of"))
        self._position = Position(**{name: int(state[name]) for name in Position.__dataclass_fields__})
        self.epoch = self._position.epoch

    def _fingerprint(self) -> str:
        """Digest of all that the order and content of the batches follow from."""
        files = [(file.uuid, file.entries) for file in self.catalog.files]
        rules = self.rules
        parts = (
            files,
            self.catalog.view.selection.to_dict(),
            rules.encoding.to_dict(),
            rules.identity.identifiers,
            rules.identity.split.to_dict(),
            None if rules.weights is None else rules.weights.to_dict(),
            {name: value for name, value in asdict(self.settings).items() if name not in NOT_OF_CONTENT},
        )
        return hashlib.sha256(repr((parts, rules.labels)).encode()).hexdigest()

    def _batches(self, begin: Position, losses: LossReport, report: EpochReport) -> Iterator[Batch]:
        started = time.perf_counter()
        seed = np.random.SeedSequence((self.settings.seed, begin.epoch, 0))
        order = np.random.default_rng(seed) if self.settings.shuffle else None
        epoch = Epoch(
            plan_pools(self._runs, self._groups, self._pool_events, order), begin, self.settings, len(self.cut_counts)
        )
        queue: BoundedQueue[EncodedPool] = BoundedQueue(self._block_bytes)

        def encode() -> None:
            runs = (self._runs[index] for index in epoch.runs)
            try:
                with StageClock() as clock, self._supply.runs(runs, losses, report) as following, stage("encode"):
                    for pool in epoch.encoded_pools(following, self._blocks):
                        with stage("wait_for_consumer"):
                            queue.put(pool, pool.block.x.nbytes + pool.block.mask.nbytes)
                queue.finish()
            except QueueClosedError:
                pass
            except BaseException as error:  # whatever it is, it belongs to the thread that waits
                queue.finish(error)
            report.add(clock)

        thread = threading.Thread(target=encode, name="mlaas4hep-encode", daemon=True)
        thread.start()
        try:
            size = self.settings.batch_size
            while (pool := self._next(queue, report)) is not None:
                skipped = begin.row if pool.number == begin.pool else 0
                for start in range(skipped, len(pool.block.x), size):
                    self._position = Position(begin.epoch, pool.number, pool.carried, start + size, pool.carried_from)
                    batch = pool.block.rows(start, start + size)
                    report.events += len(batch.x)
                    yield batch
                    del batch
                del pool
            self._position = Position(begin.epoch + 1)
        finally:
            queue.close()
            thread.join()
            self.cut_counts += epoch.cut_counts
            report.wall = time.perf_counter() - started

    @staticmethod
    def _next(queue: BoundedQueue[EncodedPool], report: EpochReport) -> EncodedPool | None:
        with StageClock() as clock, stage("wait_for_data"):
            pool = queue.get()
        report.add(clock)
        return pool
