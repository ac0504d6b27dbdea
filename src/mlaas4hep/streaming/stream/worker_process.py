"""What a worker process does: reads runs, prepares and encodes them into shared memory, and says so.

It is given everything that it needs when it starts, and imports nothing of the main program's.
"""

from __future__ import annotations

import signal
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.access.losses import Loss
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.stream.encoded import EncodedEvents, EncodedRun, encode_run
from mlaas4hep.streaming.stream.prepared import EventRules
from mlaas4hep.streaming.stream.reading import LostRun, OpenFiles
from mlaas4hep.streaming.stream.shared_memory import ArrayShape, SharedBlock, layout_bytes
from mlaas4hep.streaming.stream.stream_settings import StreamSettings
from mlaas4hep.streaming.stream.timing import StageClock, count_bytes, stage

__all__ = ["Job", "Outcome", "block_bytes", "open_outcome", "work"]


@dataclass(frozen=True, slots=True)
class Job:
    """A run to encode, and the block that it goes into.

    Parameters
    ----------
    number : int
        Place in the order of the epoch.
    run : Run
    block : int
        Number of the block.
    size : int
        Bytes of the block if this worker does not know it yet, and its descriptor follows; else 0.
    """

    number: int
    run: Run
    block: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Parameters
    ----------
    number : int
        Of the job.
    events : int
        Events that are in the block; 0 where none is in the stream.
    some : bool
        Whether these are only some of the run's events, so that the block also says which.
    cut_counts : int64 array of shape ``[features]``, optional
    loss : Loss, optional
        If the run could not be read.
    error : BaseException, optional
        If the epoch must not go on.
    clock : StageClock
        Where the time went.
    """

    number: int
    clock: StageClock
    events: int = 0
    some: bool = False
    cut_counts: npt.NDArray[np.int64] | None = None
    loss: Loss | None = None
    error: BaseException | None = None


def block_bytes(events: int, rules: EventRules) -> int:
    """Return the bytes that a run of so many events takes at most."""
    return layout_bytes(_layout(events, events, rules))


def open_outcome(outcome: Outcome, run: Run, block: SharedBlock, rules: EventRules) -> EncodedRun:
    """Return what a worker has put into a block."""
    chosen, x, y, weight, identity = block.arrays(_layout(run.events, outcome.events, rules))
    events = EncodedEvents(x, y, weight, identity)
    return EncodedRun(run, chosen if outcome.some else None, events, outcome.cut_counts)


def work(connection: Connection, catalog: Catalog, rules: EventRules, settings: StreamSettings) -> None:
    """Do jobs until the other side hangs up.

    Parameters
    ----------
    connection : Connection
        Gives jobs, and takes outcomes.
    catalog : Catalog
    rules : EventRules
    settings : StreamSettings
    """
    # Ctrl-C goes to all processes of a terminal; the main one decides, and hangs up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    files = OpenFiles(catalog)
    blocks: dict[int, SharedBlock] = {}
    waiting: deque[Job] = deque()
    try:
        while True:
            while not waiting or connection.poll():
                job: Job = connection.recv()
                if job.size:
                    blocks[job.block] = SharedBlock(job.size, recv_handle(connection))
                waiting.append(job)
            job = waiting.popleft()
            for following in waiting:
                files.prefetch(following.run, rules.columns)
            connection.send(_do(job, blocks[job.block], files, rules, settings))
    except (EOFError, ConnectionError):
        return
    finally:
        files.close()


def _do(job: Job, block: SharedBlock, files: OpenFiles, rules: EventRules, settings: StreamSettings) -> Outcome:
    clock = StageClock()
    try:
        with clock:
            with stage("fetch"):
                loaded = files.load(job.run, rules.columns)
                count_bytes("read", 0 if isinstance(loaded, LostRun) else loaded.nbytes)
            if isinstance(loaded, LostRun):
                return Outcome(job.number, clock, loss=loaded.loss)
            with stage("encode"):
                prepared = rules.prepare(loaded, settings.fold, settings.weights)
                if prepared is None:
                    return Outcome(job.number, clock)
                some = prepared.chosen is not None
                events = job.run.events if prepared.chosen is None else int(prepared.chosen.sum())
                chosen, x, y, weight, identity = block.arrays(_layout(job.run.events, events, rules))
                encoded = encode_run(prepared, x)
                chosen[:] = True if prepared.chosen is None else prepared.chosen
                y[:], weight[:], identity[:] = encoded.events.y, encoded.events.weight, encoded.events.id
                return Outcome(job.number, clock, events, some, encoded.cut_counts)
    except Exception as error:  # whatever it is, it belongs to the process that waits
        return Outcome(job.number, clock, error=error)


def _layout(run_events: int, events: int, rules: EventRules) -> list[ArrayShape]:
    """Return what lies in a block: which events are in the stream, then vector, class, weight and identity of those."""
    labels = rules.labels
    return [
        (np.dtype(np.bool_), (run_events,)),
        (np.dtype(np.float32), (events, rules.encoding.width)),
        (labels.dtype, (events, *labels.shape)),
        (np.dtype(np.float32), (events,)),
        (rules.identity.dtype, (events,)),
    ]
