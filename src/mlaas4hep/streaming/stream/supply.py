"""Where an epoch gets its runs from: read and prepared in order, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from mlaas4hep.streaming.access.losses import LossReport
from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.stream.prepared import EventRules, PreparedRun
from mlaas4hep.streaming.stream.reading import LostRun, read_ahead
from mlaas4hep.streaming.stream.stream_settings import StreamSettings
from mlaas4hep.streaming.stream.timing import EpochReport, stage

__all__ = ["Following", "InThisProcess", "Supply"]

Following = Callable[[], PreparedRun | None]
"""Gives the next run; None for one that holds no event of the stream."""


class Supply(Protocol):
    """Gives the runs of an epoch."""

    def runs(self, runs: Iterable[Run], losses: LossReport, report: EpochReport) -> AbstractContextManager[Following]:
        """Give runs in order, for the time of a ``with`` block.

        Parameters
        ----------
        runs : iterable of Run
            In the order in which they are wanted.
        losses : LossReport
            Takes up those that could not be read.
        report : EpochReport
            Takes up where the time went, at the end.

        Raises
        ------
        SourceError
            From the function, if a run cannot be read and the rule for bad files is to fail.
        """
        ...


class InThisProcess:
    """Reads in one thread, and prepares in the one that asks.

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

    @contextmanager
    def runs(self, runs: Iterable[Run], losses: LossReport, report: EpochReport) -> Iterator[Following]:
        """See :class:`Supply`."""
        max_bytes = max(4 * self._settings.run_bytes, 1)
        with read_ahead(self._catalog, runs, self._rules.columns, max_bytes, report) as read:

            def following() -> PreparedRun | None:
                with stage("wait_for_reading"):
                    loaded = read()
                if loaded is None:
                    raise RuntimeError("the reading thread gave fewer runs than were planned")
                if isinstance(loaded, LostRun):
                    losses.add(loaded.loss)
                    return None
                return self._rules.prepare(loaded, self._settings.fold, self._settings.weights)

            yield following
