"""The training loop: a module learns from a stream, on the device there is, alone or with other processes.

It is a plain loop of torch rather than Lightning's Trainer, whose checkpoints hold neither random numbers nor the position in a stream, and which
needs a third more time for an epoch of a small network (``benchmarks/training.py``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import nn

from mlaas4hep.errors import TrainingError
from mlaas4hep.training.frameworks.base import Batches, FitSettings, History, Progress
from mlaas4hep.training.frameworks.torch.learning_rate import MakeScheduler, Schedule
from mlaas4hep.training.frameworks.torch.objective import Objective
from mlaas4hep.training.frameworks.torch.ranks import Ranks, joined_ranks
from mlaas4hep.training.frameworks.torch.run import Run
from mlaas4hep.training.frameworks.torch.stepping import Stepper
from mlaas4hep.training.interruption import stop_on_signals
from mlaas4hep.training.seeding import reproducible

__all__ = ["fit"]

MakeOptimiser = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]


def fit(
    module: nn.Module,
    objective: Objective,
    make_optimiser: MakeOptimiser,
    *,
    takes_mask: bool,
    train: Batches,
    validation: Batches | None,
    settings: FitSettings,
    progress: Progress,
    make_scheduler: MakeScheduler | None = None,
) -> History:
    """Train a module in place and leave it with the weights of its best epoch, on the CPU.

    Where ``torchrun`` started several processes, each learns from its share of the events, and all end with the same weights.

    Parameters
    ----------
    module : torch.nn.Module
        Takes the values, and the mask if ``takes_mask``.
    objective : Objective
        Its loss and what its output means.
    make_optimiser : callable
        Makes the optimiser from the parameters.
    takes_mask : bool
        Whether ``forward`` takes the mask.
    train, validation : Batches
        Events; each iteration is one epoch. With ``state_dict`` and ``load_state_dict`` of ``train`` the run can go on in the middle
        of an epoch, otherwise at the beginning of one.
    settings : FitSettings
        Epochs, patience, seed, precision, …, and the folder for ``best.ckpt`` and ``last.ckpt``.
    progress : Progress
        Is told what happens.
    make_scheduler : callable, optional
        Makes the scheduler of the learning rate from the optimiser.

    Raises
    ------
    TrainingError
        If the loss is no longer a number, or a checkpoint cannot be written or gone on from.
    TrainingInterrupted
        After Ctrl-C or SIGTERM; the state is saved.
    """
    with reproducible(settings.seed), _one_core_left(), joined_ranks() as ranks, stop_on_signals() as stop:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        module.to(device or torch.device("cpu")).train()
        optimiser = make_optimiser(module.parameters())
        schedule = Schedule(None if make_scheduler is None else make_scheduler(optimiser))
        if ranks.size > 1:
            train, validation = _share(train, ranks), None if validation is None else _share(validation, ranks)
            torch.manual_seed(settings.seed + ranks.rank)  # the weights come from the first process, dropout need not
        parallel = ranks.parallel(module, next(module.parameters()).device)
        compiled: nn.Module = torch.compile(parallel) if settings.compile else parallel  # type: ignore[assignment]
        stepper = Stepper(
            compiled,
            objective,
            optimiser,
            takes_mask=takes_mask,
            precision=settings.precision,
            clip=settings.clip,
        )
        run = Run(module, stepper, schedule, train, validation, settings, progress, ranks, stop)
        try:
            return run.to_its_end()
        finally:
            module.cpu().eval()


def _share(batches: Batches, ranks: Ranks) -> Batches:
    """Return the share of this process."""
    if not hasattr(batches, "shard"):
        raise TrainingError("only a stream can be shared by several processes; start one")
    shared: Batches = batches.shard(ranks.rank, ranks.size)
    return shared


@contextlib.contextmanager
def _one_core_left() -> Iterator[None]:
    """Leave a core to the threads that read and encode.

    torch's threads wait for each other at every operation, so that one of them without a core holds up all: on two
    busy cores an epoch of the example took 0.7 s with one thread and up to 17 s with two.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(threads, cores - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
