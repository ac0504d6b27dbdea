"""Several processes that train one model: who reads what, and how they stay in step.

Every process reads its share of the runs of clusters. Shares differ in their number of batches, so before each step the
processes tell each other whether they have one. Who has none left repeats an earlier batch with weight zero, and the
others count as much more: each event is learned from once an epoch, none waits for ever, and none is left out.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

__all__ = ["Agreement", "Ranks", "joined_ranks"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What the processes told each other before a step.

    Parameters
    ----------
    with_batch : int
        Processes that have a batch.
    events : int
        Events of all their batches.
    save, stop : bool
        Whether one of them wants to write a checkpoint, or to stop.
    """

    with_batch: int
    events: int
    save: bool
    stop: bool


class Ranks:
    """The processes of one training, seen from one of them.

    Parameters
    ----------
    rank, size : int
        Number of this process, and of all.
    group : object, optional
        Through which plain values are exchanged.

    Examples
    --------
    >>> Ranks().agree(events=64, save=False, stop=False)
    Agreement(with_batch=1, events=64, save=False, stop=False)
    """

    def __init__(self, rank: int = 0, size: int = 1, group: Any = None) -> None:
        self.rank, self.size, self._group = rank, size, group

    def agree(self, *, events: int, save: bool, stop: bool) -> Agreement:
        """Tell the others whether there are events for a step (0: none left) and what is wanted; return what all said."""
        if self.size == 1:
            return Agreement(int(events > 0), events, save, stop)
        said = torch.tensor([int(events > 0), events, int(save), int(stop)], dtype=torch.int64)
        dist.all_reduce(said, group=self._group)
        with_batch, total, saves, stops = said.tolist()
        return Agreement(with_batch, total, saves > 0, stops > 0)

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, in their order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def parallel(self, module: nn.Module, device: torch.device) -> nn.Module:
        """Return the module so that gradients are the mean over all processes."""
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, device_ids=[device] if device.type == "cuda" else None)

    def same_buffers(self, module: nn.Module) -> None:
        """Give all processes the buffers of the first one, as the running means of a normalisation."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the other processes for the time of a ``with`` block, where ``torchrun`` or the user started several.

    Yields
    ------
    Ranks
        Of this process; the only one where there are no others.
    """
    own = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not own and not dist.is_initialized():
        yield Ranks()
        return
    if own:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        # Plain values travel through the CPU, so that nothing waits for an accelerator.
        group = dist.new_group(backend="gloo")
        yield Ranks(dist.get_rank(), dist.get_world_size(), group)
    finally:
        if own:
            dist.destroy_process_group()
