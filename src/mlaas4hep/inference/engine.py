"""The one path on which every prediction runs, whatever protocol it came by.

Requests wait in a queue for each model. On every turn of the event loop all that has come in for a model goes into one batch, without waiting for
more: under load batches grow by themselves, and a single request is not delayed. One thread executes the batches, so that the loop goes on
answering. The queues are bounded in rows; what does not fit is refused at once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import FeatureError, MLaaS4HEPError, OverloadedError, RequestError
from mlaas4hep.inference.description import Description, describe
from mlaas4hep.inference.model import Model
from mlaas4hep.inference.repository import ModelVersion, Repository

__all__ = ["Engine", "Served", "Statistics"]

logger = logging.getLogger(__name__)

# A batch that is over sooner than this is run by the loop itself: the way to the thread and back takes longer, since both need the interpreter.
INLINE_SECONDS = 0.001

Rows = npt.NDArray[np.float32]
Answer = npt.NDArray[Any]


@dataclass(slots=True)
class Statistics:
    """What a model has done since the server started."""

    requests: int = 0
    rows: int = 0
    failures: int = 0
    batches: int = 0
    cut_values: int = 0
    queue_seconds: float = 0.0
    compute_seconds: float = 0.0


@dataclass(slots=True)
class _Request:
    rows: Rows
    answer: asyncio.Future[Any]
    convert: Callable[[Answer], Any] | None
    since: float


@dataclass(slots=True)
class Served:
    """A loaded model with what waits for it."""

    version: ModelVersion
    model: Model
    statistics: Statistics
    waiting: deque[_Request] = field(default_factory=deque)
    last_batch: tuple[int, float] = (1, inf)

    def expected_seconds(self, rows: int) -> float:
        """Return how long a batch may take, judged by the last one; a small one says too much rather than too little."""
        last_rows, last_seconds = self.last_batch
        return last_seconds * max(1.0, rows / last_rows)


class Engine:
    """Loads models and runs predictions; lives on one event loop.

    Parameters
    ----------
    repository : Repository
        Where the models are.
    cache_limit : int
        Number of models kept loaded; the one unused for longest goes first.
    batch_rows : int
        Rows in one batch; a single request may have more.
    queue_rows : int
        Rows that may wait in all queues together.
    """

    def __init__(
        self, repository: Repository, *, cache_limit: int = 10, batch_rows: int = 1024, queue_rows: int = 65_536
    ) -> None:
        self.repository = repository
        self.statistics: dict[str, Statistics] = {}
        self._cache_limit, self._batch_rows, self._queue_rows = cache_limit, batch_rows, queue_rows
        self._cache: OrderedDict[str, Served] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Served]] = {}
        self._failed: dict[str, tuple[ModelVersion, MLaaS4HEPError]] = {}
        self._descriptions: dict[str, tuple[ModelVersion, Description]] = {}
        self._waiting_rows = 0
        self._turn: deque[Served] = deque()
        self._running = self._scheduled = False
        self._jobs: SimpleQueue[tuple[Served, Sequence[_Request]] | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    async def __aenter__(self) -> Engine:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="predictions", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._running or self._turn:
            await asyncio.sleep(0.005)
        self._jobs.put(None)
        if self._thread:
            await asyncio.to_thread(self._thread.join)

    @property
    def loaded(self) -> Sequence[str]:
        """Names of the models that are loaded, the one used last at the end."""
        return tuple(self._cache)

    def ready(self, name: str | None = None) -> Served | None:
        """Return a model if its live version is loaded; see :meth:`load`."""
        version = self.repository.find(name)
        served = self._cache.get(version.name)
        if served is None or served.version is not version:
            return None
        self._cache.move_to_end(version.name)
        return served

    async def load(self, name: str | None = None) -> Served:
        """Return a model, loading its live version if needed; the default model without a name.

        While a newer version loads, the one before it goes on answering.

        Raises
        ------
        MLaaS4HEPError
            If there is no such model, or it cannot be loaded.
        """
        if ready := self.ready(name):
            return ready
        version = self.repository.find(name)
        served = self._cache.get(version.name)
        task = self._start_loading(version)
        if served and served.version.version < version.version and served.version.folder.exists():
            return served
        return await asyncio.shield(task)

    async def renew(self, name: str) -> None:
        """Wait until the live version of a model is the one that answers."""
        await asyncio.shield(self._start_loading(self.repository.find(name)))

    def _start_loading(self, version: ModelVersion) -> asyncio.Task[Served]:
        task = self._loading.get(version.name)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._load(version))
            self._loading[version.name] = task
            task.add_done_callback(lambda done: self._loaded(version.name, done))
        return task

    def _loaded(self, name: str, task: asyncio.Task[Served]) -> None:
        self._loading.pop(name, None)
        if not task.cancelled() and (error := task.exception()):
            logger.warning("model '%s' cannot be loaded: %s", name, error)

    async def _load(self, version: ModelVersion) -> Served:
        failed = self._failed.get(version.name)
        if failed and failed[0] is version:
            raise failed[1]
        try:
            model = await asyncio.to_thread(Model, version.folder, version.name)
        except MLaaS4HEPError as error:
            self._failed[version.name] = version, error
            raise
        self._failed.pop(version.name, None)
        served = Served(version, model, self.statistics.setdefault(version.name, Statistics()))
        self._cache[version.name] = served
        self._cache.move_to_end(version.name)
        while len(self._cache) > self._cache_limit:
            self._cache.popitem(last=False)
        return served

    async def describe(self, name: str) -> Description:
        """Return what a model takes and answers; a model that is not loaded is looked at without being kept.

        Raises
        ------
        MLaaS4HEPError
            If there is no such model, or it cannot be loaded.
        """
        version = self.repository.find(name)
        known = self._descriptions.get(name)
        if known is None or known[0] is not version:
            served = self._cache.get(name)
            if served and served.version is version:
                model = served.model
            else:
                model = await asyncio.to_thread(Model, version.folder, name)
            known = self._descriptions[name] = version, describe(model)
        return known[1]

    def forget(self, name: str) -> None:
        """Unload a model; what waits for it is still answered."""
        self._cache.pop(name, None)
        self._descriptions.pop(name, None)
        self.statistics.pop(name, None)

    async def predict(self, name: str | None, rows: Rows) -> Answer:
        """Predict rows of raw values with a model of that name; see :meth:`submit`."""
        answer: Answer = await self.submit(await self.load(name), rows)
        return answer

    def submit(
        self, served: Served, rows: Rows, cut: int = 0, convert: Callable[[Answer], Any] | None = None
    ) -> asyncio.Future[Any]:
        """Queue rows for a model.

        Parameters
        ----------
        served : Served
            From :meth:`load`.
        rows : float32 array of shape ``[n, width]``
            Raw values, NaN where absent.
        cut : int
            Number of values that did not fit into the row, for the statistics.
        convert : callable, optional
            Makes of the answers what the future gives.

        Returns
        -------
        future of array of shape ``[n, …]``
            The answers, or what ``convert`` makes of them; raises :class:`FeatureError` where the model cannot be run on these rows.

        Raises
        ------
        OverloadedError
            If too many rows wait already.
        RequestError
            If there are more rows than could ever wait.
        """
        count = len(rows)
        if count > self._queue_rows:
            raise RequestError(f"{count} rows in one request; at most {self._queue_rows} are accepted", status=413)
        if self._waiting_rows + count > self._queue_rows:
            served.statistics.failures += 1
            raise OverloadedError(f"{self._waiting_rows} rows are waiting already; try again later")
        loop = self._loop or asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting_rows += count
        statistics = served.statistics
        statistics.requests += 1
        statistics.rows += count
        statistics.cut_values += cut
        if not served.waiting:
            self._turn.append(served)
        served.waiting.append(_Request(rows, answer, convert, time.perf_counter()))
        if not (self._running or self._scheduled):
            self._scheduled = True
            loop.call_soon(self._drain)
        return answer

    def _drain(self) -> None:
        """Give the next batch to the thread: all that waits for the model whose turn it is, up to the limit."""
        self._scheduled = False
        if self._running or not self._turn:
            return
        served = self._turn.popleft()
        batch, rows = [served.waiting.popleft()], 0
        rows = len(batch[0].rows)
        while served.waiting and rows + len(served.waiting[0].rows) <= self._batch_rows:
            batch.append(served.waiting.popleft())
            rows += len(batch[-1].rows)
        if served.waiting:
            self._turn.append(served)
        self._waiting_rows -= rows
        self._running = True
        if served.expected_seconds(rows) <= INLINE_SECONDS:
            started = time.perf_counter()
            answers = _run(served.model, batch)
            self._finish(served, batch, answers, started, time.perf_counter() - started)
        else:
            self._jobs.put((served, batch))

    def _work(self) -> None:
        assert self._loop is not None  # noqa: S101 - the thread starts after the loop is known
        while job := self._jobs.get():
            served, batch = job
            started = time.perf_counter()
            answers = _run(served.model, batch)
            seconds = time.perf_counter() - started
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._finish, served, batch, answers, started, seconds)

    def _finish(
        self,
        served: Served,
        batch: Sequence[_Request],
        answers: Sequence[Answer | Exception],
        started: float,
        seconds: float,
    ) -> None:
        self._running = False
        if self._turn and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)
        served.last_batch = max(1, sum(len(request.rows) for request in batch)), seconds
        statistics = served.statistics
        statistics.batches += 1
        statistics.compute_seconds += seconds
        for request, answer in zip(batch, answers, strict=True):
            statistics.queue_seconds += started - request.since
            if request.answer.done():  # whoever waited has gone
                continue
            if isinstance(answer, Exception):
                statistics.failures += 1
                logger.warning("model '%s' failed: %s", served.version.name, answer)
                request.answer.set_exception(
                    FeatureError(f"model '{served.version.name}' cannot be run on these values")
                )
                continue
            try:
                request.answer.set_result(request.convert(answer) if request.convert else answer)
            except Exception as error:  # of this answer only; the others must have theirs
                request.answer.set_exception(error)


def _run(model: Model, batch: Sequence[_Request]) -> Sequence[Answer | Exception]:
    """Run a batch; where that fails, each request by itself, so that one cannot spoil the others."""
    if len(batch) > 1:
        try:
            answers = model.predict(np.concatenate([request.rows for request in batch]))
        except Exception as error:  # whatever it is, the requests are tried one by one
            logger.debug("a batch of %d requests failed: %s", len(batch), error)
        else:
            ends = np.cumsum([len(request.rows) for request in batch])
            return [answers[end - len(request.rows) : end] for request, end in zip(batch, ends.tolist(), strict=True)]
    outcome: list[Answer | Exception] = []
    for request in batch:
        try:
            outcome.append(model.predict(request.rows))
        except Exception as error:  # a failure of this request only; the thread must live on
            outcome.append(error)
    return outcome
