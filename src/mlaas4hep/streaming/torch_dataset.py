"""The stream as a PyTorch dataset of whole batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset

from mlaas4hep.streaming.stream import EventStream

__all__ = ["TorchEventDataset"]

TensorBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class TorchEventDataset(IterableDataset[TensorBatch]):
    """Batches ``(x, mask, y, weight)`` as tensors that share memory with the stream's arrays.

    For a ``DataLoader`` say ``batch_size=None``: the batches are made already, and reading and encoding have threads of their own.

    Parameters
    ----------
    stream : EventStream
    """

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[TensorBatch]:
        for batch in self.stream:
            yield (
                torch.from_numpy(batch.x),
                torch.from_numpy(batch.mask),
                torch.from_numpy(batch.y),
                torch.from_numpy(batch.weight),
            )
