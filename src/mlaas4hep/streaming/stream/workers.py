"""Where an epoch gets its runs from, with worker processes: they read and encode, the runs come in the order in which they are wanted.

The processes come from a fork server that has imported what they need and has neither threads nor open files (XRootD does not survive a fork). What
they encode lies in blocks of shared memory; a block is used again when the run in it is.
"""

from __future__ import annotations

import multiprocessing
import sys
import types
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle

from mlaas4hep.errors import SourceError, WorkerError
from mlaas4hep.streaming.access.losses import Loss, LossReport
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.stream.prepared import EventRules, PreparedRun
from mlaas4hep.streaming.stream.shared_memory import SharedBlock
from mlaas4hep.streaming.stream.stream_settings import StreamSettings
from mlaas4hep.streaming.stream.supply import Following
from mlaas4hep.streaming.stream.timing import EpochReport, stage
from mlaas4hep.streaming.stream.worker_process import Job, Outcome, block_bytes, open_outcome, work

__all__ = ["WorkerProcesses"]

JOBS_EACH = 2
"""Jobs that a worker has at a time: the one it does, and the next, which it may ask the network for."""

_PRELOADED = ["mlaas4hep.streaming.stream.worker_preload"]


class WorkerProcesses:
    """Reads and encodes in worker processes; a :class:`~mlaas4hep.streaming.stream.supply.Supply`.

    The stream is the same to the bit as without them. They start with the first epoch and end with this object, or with an epoch that is left early.

    Parameters
    ----------
    catalog : Catalog
    rules : EventRules
    settings : StreamSettings
    """

    def __init__(self, catalog: Catalog, rules: EventRules, settings: StreamSettings) -> None:
        self._catalog = catalog
        self._rules = rules
        self._settings = settings
        self._idle: _Pool | None = None

    @contextmanager
    def runs(self, runs: Iterable[Run], losses: LossReport, report: EpochReport) -> Iterator[Following]:
        """See :class:`~mlaas4hep.streaming.stream.supply.Supply`."""
        order = list(runs)
        largest = max((run.events for run in order), default=0)
        pool, self._idle = self._idle, None
        if pool is not None and pool.block_events < largest:
            pool.close()
            pool = None
        if pool is None:
            pool = _Pool(self._catalog, self._rules, self._settings, largest)
        try:
            yield _Dispatch(pool, order, self._catalog, losses, report).following
        finally:
            if pool.busy or self._idle is not None:
                pool.close()
            else:
                self._idle = pool


class _Pool:
    """The processes, their connections, and the blocks of memory that are shared with them."""

    def __init__(self, catalog: Catalog, rules: EventRules, settings: StreamSettings, block_events: int) -> None:
        self.rules = rules
        self.block_events = block_events
        self._block_bytes = block_bytes(block_events, rules)
        self._blocks: list[SharedBlock] = []
        self._free: list[int] = []
        self.most_ahead = JOBS_EACH * settings.workers + 1
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.processes: list[BaseProcess] = []
        self.connections: list[Connection] = []
        self._known: list[set[int]] = [set() for _ in range(settings.workers)]
        self.jobs: list[int] = [0] * settings.workers
        for _ in range(settings.workers):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs, catalog, rules, settings), name="mlaas4hep-worker", daemon=True
            )
            with _no_main_module():
                process.start()
            theirs.close()
            self.processes.append(process)
            self.connections.append(ours)
        self.close = weakref.finalize(self, _end, self.processes, self.connections, self._blocks)

    @property
    def busy(self) -> bool:
        """Whether a worker has a job."""
        return any(self.jobs)

    def take_block(self) -> int:
        """Return a block that nobody uses."""
        if self._free:
            return self._free.pop()
        self._blocks.append(SharedBlock(self._block_bytes))
        return len(self._blocks) - 1

    def give_block(self, number: int) -> None:
        """Say that a block is not used any more."""
        self._free.append(number)

    def send(self, worker: int, number: int, run: Run, block: int) -> None:
        """Give a worker a job."""
        new = block not in self._known[worker]
        connection = self.connections[worker]
        try:
            connection.send(Job(number, run, block, self._block_bytes if new else 0))
            if new:
                send_handle(connection, self._blocks[block].descriptor, self.processes[worker].pid)
                self._known[worker].add(block)
        except OSError:
            raise self.died(worker) from None
        self.jobs[worker] += 1

    def receive(self) -> list[Outcome]:
        """Wait for outcomes, and return those that are there."""
        outcomes = []
        for ready in wait(self.connections):
            worker = self.connections.index(ready)  # type: ignore[arg-type] # they are the connections that were given
            try:
                outcomes.append(self.connections[worker].recv())
            except (EOFError, OSError):
                raise self.died(worker) from None
            self.jobs[worker] -= 1
        return outcomes

    def open(self, outcome: Outcome, run: Run, block: int) -> PreparedRun:
        """Return what a worker has encoded; its block is free again when nobody uses that."""
        encoded = open_outcome(outcome, run, self._blocks[block], self.rules)
        weakref.finalize(encoded, self.give_block, block)
        return encoded

    def died(self, worker: int) -> WorkerError:
        """Return the error that a worker has ended by itself."""
        process = self.processes[worker]
        process.join(timeout=5)
        return WorkerError(worker, process.exitcode)


class _Dispatch:
    """Gives the runs of one epoch to workers, and takes them back in order."""

    def __init__(
        self, pool: _Pool, order: list[Run], catalog: Catalog, losses: LossReport, report: EpochReport
    ) -> None:
        self._pool = pool
        self._order = order
        self._catalog = catalog
        self._losses = losses
        self._report = report
        self._sent = 0
        self._position = 0
        self._block_of: dict[int, int] = {}
        self._done: dict[int, Outcome] = {}

    def following(self) -> PreparedRun | None:
        """Return the next run; None for one that holds no event of the stream."""
        if self._position == len(self._order):
            raise RuntimeError("more runs are asked for than were planned")
        self._send()
        while self._position not in self._done:
            with stage("wait_for_reading"):
                outcomes = self._pool.receive()
            for outcome in outcomes:
                self._done[outcome.number] = outcome
                self._report.add(outcome.clock)
            self._send()
        outcome = self._done.pop(self._position)
        block = self._block_of.pop(self._position)
        run = self._order[self._position]
        self._position += 1
        prepared = None
        if outcome.error is not None:
            raise outcome.error
        if not self._lost(outcome, run) and outcome.events:
            prepared = self._pool.open(outcome, run, block)
        else:
            self._pool.give_block(block)
        self._send()
        return prepared

    def _send(self) -> None:
        """Give workers what they can take, so far ahead of the run that is wanted now."""
        while self._sent < min(len(self._order), self._position + self._pool.most_ahead):
            worker = min(range(len(self._pool.jobs)), key=self._pool.jobs.__getitem__)
            if self._pool.jobs[worker] >= JOBS_EACH:
                return
            self._block_of[self._sent] = block = self._pool.take_block()
            self._pool.send(worker, self._sent, self._order[self._sent], block)
            self._sent += 1

    def _lost(self, outcome: Outcome, run: Run) -> bool:
        """Whether a run is lost: by itself, or since one before it put its file into quarantine, whichever worker read that."""
        file, faults = self._catalog.files[run.file].path, self._catalog.faults
        if file in faults.quarantined:
            self._losses.add(Loss(file, run.start, run.stop, f"quarantined: {faults.quarantined[file]}"))
            return True
        if outcome.loss is None:
            return False
        faults.lose(file, SourceError(file, outcome.loss.reason))
        self._losses.add(outcome.loss)
        return True


def _end(processes: list[BaseProcess], connections: list[Connection], blocks: list[SharedBlock]) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.close()
    for process in processes:
        process.terminate()
        process.join()
    for block in blocks:
        block.close()


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep new processes from importing the user's program: it needs no ``if __name__ == "__main__"``, and may be a notebook."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
