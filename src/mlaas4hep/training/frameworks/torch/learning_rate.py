"""How large a step is: schedules over steps or epochs, and a search for a rate to begin with."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mlaas4hep.errors import ModelFileError, TrainingError
from mlaas4hep.training.frameworks.torch.stepping import Stepper, TensorBatch

__all__ = ["MakeScheduler", "Schedule", "find_learning_rate"]

MakeScheduler = Callable[[Optimizer], object]
LOWEST, HIGHEST = 1e-7, 1.0
SMOOTHING = 0.9
DIVERGED = 4.0  # times the smallest loss


class Schedule:
    """A scheduler of the learning rate, and when it goes on.

    Parameters
    ----------
    scheduler : object
        Of torch; a mapping with ``scheduler`` and ``interval`` (``"step"`` or ``"epoch"``), as Lightning has it; or None.

    Raises
    ------
    ModelFileError
        If it is none of these.

    Examples
    --------
    >>> import torch
    >>> optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = Schedule(torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5))
    >>> optimiser.step()
    >>> schedule.after_step(), schedule.after_epoch(0.3), optimiser.param_groups[0]["lr"]
    (None, None, 0.5)
    """

    def __init__(self, scheduler: object) -> None:
        interval: object = "epoch"
        if isinstance(scheduler, Mapping):
            described: Mapping[str, object] = scheduler
            scheduler, interval = described.get("scheduler"), described.get("interval", "epoch")
        if scheduler is not None and not isinstance(scheduler, (LRScheduler, ReduceLROnPlateau)):
            raise ModelFileError(
                "scheduler", f"it is {type(scheduler).__name__}; it must be one of torch.optim.lr_scheduler"
            )
        if interval not in ("step", "epoch"):
            raise ModelFileError("scheduler", f"its interval is {interval!r}; it must be 'step' or 'epoch'")
        self._scheduler: Any = scheduler
        self._each_step = interval == "step"

    def after_step(self) -> None:
        """Go on if it is one over steps."""
        if self._scheduler is not None and self._each_step:
            self._go_on()

    def after_epoch(self, loss: float) -> None:
        """Go on if it is one over epochs; one that looks at the loss is given the validation loss."""
        if self._scheduler is None or self._each_step:
            return
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._go_on(loss)
        else:
            self._go_on()

    def _go_on(self, *loss: float) -> None:
        with warnings.catch_warnings():
            # An optimiser that was resumed, or whose first step half precision left out, seems not to have begun.
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
            self._scheduler.step(*loss)

    def state_dict(self) -> dict[str, Any]:
        """Return its state; empty where there is none."""
        return {} if self._scheduler is None else dict(self._scheduler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        if self._scheduler is not None:
            self._scheduler.load_state_dict(dict(state))


def find_learning_rate(stepper: Stepper, batches: Iterator[TensorBatch], steps: int = 100) -> float:
    """Return the rate at which the loss falls fastest as the rate grows from batch to batch.

    The model learns meanwhile; the caller puts its weights and random numbers back.

    Parameters
    ----------
    stepper : Stepper
        Its optimiser is as it was afterwards.
    batches : iterator of tuples of tensors
    steps : int
        Batches to look at, at most.

    Returns
    -------
    float

    Raises
    ------
    TrainingError
        If there are fewer than ten batches, or the loss falls at no rate.

    References
    ----------
    L. N. Smith, Cyclical learning rates for training neural networks, WACV 2017.
    """
    optimiser = stepper.optimiser
    before = copy.deepcopy(optimiser.state_dict())
    rates: list[float] = []
    losses: list[float] = []
    average = 0.0
    try:
        for index, batch in enumerate(itertools.islice(batches, steps)):
            rate = LOWEST * (HIGHEST / LOWEST) ** (index / max(1, steps - 1))
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = float(stepper.step(batch))
            if not math.isfinite(loss):
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * loss
            smooth = average / (1 - SMOOTHING ** (index + 1))
            if losses and smooth > DIVERGED * min(losses):
                break
            rates.append(rate)
            losses.append(smooth)
    finally:
        optimiser.load_state_dict(before)
    if len(losses) < 10:
        raise TrainingError(f"a learning rate is searched over at least 10 batches; there were {len(losses)}")
    slopes = [after - now for now, after in itertools.pairwise(losses)]
    steepest = min(range(len(slopes)), key=slopes.__getitem__)
    if slopes[steepest] >= 0:
        raise TrainingError("the loss falls at no learning rate; the model or its loss may be wrong")
    return rates[steepest]
