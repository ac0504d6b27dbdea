"""The stream as a PyTorch dataset of whole batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from mlaas4hep.streaming.stream import EventStream

__all__ = ["TorchEventDataset"]

TensorBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class TorchEventDataset(IterableDataset[TensorBatch]):
    """Batches ``(x, mask, y, weight)`` as tensors that share memory with the stream's arrays.

    For a ``DataLoader`` say ``batch_size=None``: the batches are made already, and reading and encoding have threads of their own.

    In a ``DataLoader`` with workers each worker gives its share of the events, in the order of the stream's ``epoch``; set that between epochs, since
    workers have copies of it.

    Parameters
    ----------
    stream : EventStream
    """

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[TensorBatch]:
        worker = get_worker_info()
        stream = self.stream if worker is None else self.stream.shard(worker.id, worker.num_workers)
        for batch in stream:
            yield (
                torch.from_numpy(batch.x),
                torch.from_numpy(batch.mask),
                torch.from_numpy(batch.y),
                torch.from_numpy(batch.weight),
            )
