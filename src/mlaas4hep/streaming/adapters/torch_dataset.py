"""The stream as a PyTorch dataset of whole batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from mlaas4hep.errors import SettingError
from mlaas4hep.streaming.stream.stream import Batch, EventStream

__all__ = ["TorchEventDataset"]

TensorBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

MAX_WORKERS = 1024
"""Workers of a ``DataLoader`` whose epochs are counted."""


class TorchEventDataset(IterableDataset[TensorBatch]):
    """Batches ``(x, mask, y, weight)`` as tensors that share memory with the stream's arrays.

    For a ``DataLoader`` say ``batch_size=None``: the batches are made already, and reading and encoding have threads of their own.

    In a ``DataLoader`` with workers each worker gives its share of the events. Each iteration is the next epoch, in another order, whether the
    workers live on (``persistent_workers``) or are started anew: their epochs are counted in memory that all processes share.

    ``state_dict`` and ``load_state_dict`` are what torchdata's ``StatefulDataLoader`` asks for, to go on in the middle of an epoch, with workers
    too, as many as there were.

    Parameters
    ----------
    stream : EventStream
        Its own ``workers`` count outside of a ``DataLoader``'s workers only.
    pin_memory : bool
        Whether the tensors are in page-locked memory, from which an accelerator copies without waiting. Where there is no accelerator it does
        nothing; nor does it in a worker, where ``DataLoader(pin_memory=True)`` does it in the main process.
    """

    def __init__(self, stream: EventStream, *, pin_memory: bool = False) -> None:
        self.stream = stream
        self.pin_memory = pin_memory
        self._begun_with = stream.state_dict()
        self._share: EventStream | None = None
        self._state_loaded = False
        # Next epoch of each worker; -1 before the first one.
        self._next_epochs = torch.full((MAX_WORKERS,), -1)
        self._next_epochs.share_memory_()  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[TensorBatch]:
        worker = get_worker_info()
        if worker is not None:
            if worker.num_workers > MAX_WORKERS:
                raise SettingError("num_workers", f"at most {MAX_WORKERS}", worker.num_workers)
            following = int(self._next_epochs[worker.id])
            if not self._state_loaded and following not in (-1, self._own_stream().epoch):
                self._share = None  # a stream goes on in the middle of an epoch that it has begun; a new one begins it
                self._own_stream().epoch = following
            self._next_epochs[worker.id] = self._own_stream().epoch + 1
        self._state_loaded = False
        pinned = self.pin_memory and worker is None and torch.accelerator.is_available()
        return _tensors(iter(self._own_stream()), pinned)

    def set_epoch(self, epoch: int) -> None:
        """Begin the next iteration with this epoch, in this process and in workers.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        self.stream.load_state_dict(self._begun_with)
        self.stream.epoch = epoch
        self._next_epochs.fill_(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position behind the batch that was given last; in a worker, of its share. See :meth:`EventStream.state_dict`."""
        return self._own_stream().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the batch at which :meth:`state_dict` was called.

        Raises
        ------
        SettingError
            If the state is of other files or settings, or of another number of workers.
        """
        self._own_stream().load_state_dict(state)
        self._state_loaded = True

    def _own_stream(self) -> EventStream:
        """Return the stream of this process: all of it, or a worker's share."""
        worker = get_worker_info()
        if worker is None:
            return self.stream
        if self._share is None:
            self._share = self.stream.shard(worker.id, worker.num_workers)
        return self._share

    def __getstate__(self) -> dict[str, Any]:
        # A worker needs what the stream is of, not the blocks that it has filled here.
        return {**self.__dict__, "stream": self.stream.shard(0, 1)}


def _tensors(batches: Iterator[Batch], pinned: bool) -> Iterator[TensorBatch]:
    for batch in batches:
        x, mask, y, weight = (torch.from_numpy(values) for values in (batch.x, batch.mask, batch.y, batch.weight))
        yield (
            (x.pin_memory(), mask.pin_memory(), y.pin_memory(), weight.pin_memory()) if pinned else (x, mask, y, weight)
        )
        del batch, x, mask, y, weight
