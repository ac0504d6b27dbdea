"""A stream whose batches are changed on their way to the model: targets are standardised, parameters are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mlaas4hep.streaming.stream.batch import Batch
from mlaas4hep.streaming.stream.stream import EventStream

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset

__all__ = ["Change", "ChangedBatches", "ChangedDataset"]

Change = Callable[[Batch], Batch]
"""Returns a batch with other values; must not write into the one that it gets, whose memory others see too."""


class ChangedBatches:
    """A stream, and what becomes of its batches; everything else is the stream's own.

    Parameters
    ----------
    stream : EventStream
    change : callable
    """

    def __init__(self, stream: EventStream, change: Change) -> None:
        self._stream, self._change = stream, change

    @property
    def epoch(self) -> int:
        """Number of the next epoch; can be set."""
        return self._stream.epoch

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._stream.epoch = number

    def __iter__(self) -> Iterator[Batch]:
        return map(self._change, self._stream)

    def shard(self, rank: int, world_size: int) -> ChangedBatches:
        """Return the share of one of several processes, changed likewise."""
        return ChangedBatches(self._stream.shard(rank, world_size), self._change)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._stream, name)


class ChangedDataset:
    """A dataset all of whose streams are changed; everything else is the dataset's own.

    Parameters
    ----------
    dataset : Dataset
    change : callable
    """

    def __init__(self, dataset: Dataset, change: Change) -> None:
        self._dataset, self._change = dataset, change

    def stream(self, *arguments: Any, **settings: Any) -> ChangedBatches:
        """Return a changed stream; parameters as in :meth:`Dataset.stream <mlaas4hep.streaming.dataset.Dataset.stream>`."""
        return ChangedBatches(self._dataset.stream(*arguments, **settings), self._change)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._dataset, name)
