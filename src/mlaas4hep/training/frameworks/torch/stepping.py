"""One step of the training: forward, loss, backward, optimiser, in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from mlaas4hep.errors import SettingError, TrainingError
from mlaas4hep.training.frameworks.torch.objective import Objective

__all__ = ["PRECISIONS", "Stepper", "TensorBatch", "check_loss"]

TensorBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
PRECISIONS = {"32": None, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
"""Name of each precision → the type that matrix products are computed in; None for that of the parameters."""

HUGE = 100.0  # scaled values of training events are of the order of 1


class Stepper:
    """Learns from batches.

    Parameters
    ----------
    module : torch.nn.Module
        On its device, compiled and joined with other processes where that is wanted.
    objective : Objective
    optimiser : torch.optim.Optimizer
    takes_mask : bool
        Whether ``forward`` takes the mask.
    precision : str
        One of ``PRECISIONS``.
    clip : float
        Largest norm of the gradient; 0 for no limit.
    """

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        *,
        takes_mask: bool,
        precision: str = "32",
        clip: float = 0.0,
    ) -> None:
        if precision not in PRECISIONS:
            raise SettingError("precision", f"one of {', '.join(PRECISIONS)}", precision)
        self.module, self.objective, self.optimiser = module, objective, optimiser
        self.takes_mask, self.clip = takes_mask, clip
        self._type = PRECISIONS[precision]
        self._parameters = [p for group in optimiser.param_groups for p in group["params"]]
        self.device = self._parameters[0].device
        # Half precision has so little range that small gradients would become zero without a factor.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self._type is torch.float16)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return what the module gives, float32 at least."""
        if self._type is None:
            given: torch.Tensor = self.module(x, mask) if self.takes_mask else self.module(x)
            return given
        with torch.autocast(self.device.type, self._type):
            given = self.module(x, mask) if self.takes_mask else self.module(x)
        return given.float()

    def step(self, batch: TensorBatch, share: float = 1.0) -> torch.Tensor:
        """Learn from a batch and return its loss, which is not waited for.

        Parameters
        ----------
        batch : tuple of torch.Tensor
            Values, mask, class or targets, weight; on the module's device.
        share : float
            Factor of the gradient; with 0 nothing is learned, but other processes are met.
        """
        x, mask, y, weight = batch
        loss = self.objective.mean_loss(self.forward(x, mask), x, mask, y, weight)
        self.optimiser.zero_grad()
        scaled = loss if share == 1.0 else loss * share
        if self._type is torch.float16:
            scaled = self.scaler.scale(scaled)
        scaled.backward()  # type: ignore[no-untyped-call]
        if self.clip:
            self.scaler.unscale_(self.optimiser)
            nn.utils.clip_grad_norm_(self._parameters, self.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        return loss.detach()

    @property
    def learning_rate(self) -> float:
        """That of the optimiser's first group of parameters."""
        return float(self.optimiser.param_groups[0]["lr"])


def check_loss(
    value: float,
    where: str,
    learning_rate: float,
    x: npt.NDArray[np.float32],
    features: Sequence[str],
    before: npt.NDArray[np.float32] | None = None,
) -> None:
    """Raise TrainingError if a loss is no number, with what may be the reason.

    Parameters
    ----------
    value : float
        The loss.
    where : str
        Epoch and batch.
    learning_rate : float
    x : float32 array of shape ``[n, width]``
        Scaled values of the batch.
    features : sequence of str
        Names of the places; may be empty.
    before : float32 array of shape ``[m, width]``, optional
        Those of the batch before: a huge value can have spoilt the weights while the loss was still a number.

    Examples
    --------
    >>> check_loss(float("nan"), "epoch 2, batch 7", 0.1, np.array([[0.5, -3e9]], np.float32), ["MET_pt", "HT"])
    Traceback (most recent call last):
        ...
    mlaas4hep.errors.TrainingError: the loss is nan in epoch 2, batch 7, ... is -3e+09, of 'HT', which is far out: ...
    """
    if np.isfinite(value):
        return
    which, largest, place = "that batch", *_largest(x)
    if before is not None:
        earlier = _largest(before)
        if not abs(largest) > HUGE and not abs(earlier[0]) <= HUGE:
            which, largest, place = "the batch before", *earlier
    name = f"'{features[place]}'" if place < len(features) else f"feature {place}"
    far_out = not abs(largest) <= HUGE
    advice = (
        ", which is far out: look at that feature, or leave it out"
        if far_out
        else "; a smaller learning rate, clipped gradients or a loss that is finite for every output may help"
    )
    raise TrainingError(
        f"the loss is {value} in {where}, at a learning rate of {learning_rate:g};"
        f" the largest scaled value of {which} is {largest:g}, of {name}{advice}"
    )


def _largest(x: npt.NDArray[np.float32]) -> tuple[float, int]:
    """Return the value that is farthest from 0, NaN before all others, and its place in the vector."""
    if not x.size:
        return 0.0, 0
    sizes = np.abs(x)
    row, place = divmod(int(np.argmax(np.where(np.isnan(sizes), np.inf, sizes))), x.shape[1])
    return float(x[row, place]), place
