"""What a module's output means, the loss that goes with it, and the probabilities that come out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import ModelFileError
from mlaas4hep.training.frameworks.base import Task

__all__ = ["Objective", "choose_objective"]

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

LOSS_TAKES: dict[object, Output] = {
    nn.BCEWithLogitsLoss: Output.LOGITS,
    nn.CrossEntropyLoss: Output.LOGITS,
    nn.BCELoss: Output.PROBABILITIES,
    nn.NLLLoss: Output.LOG_PROBABILITIES,
    functional.binary_cross_entropy_with_logits: Output.LOGITS,
    functional.cross_entropy: Output.LOGITS,
    functional.binary_cross_entropy: Output.PROBABILITIES,
    functional.nll_loss: Output.LOG_PROBABILITIES,
}
ONE_COLUMN_LOSSES = (
    nn.BCEWithLogitsLoss,
    nn.BCELoss,
    functional.binary_cross_entropy_with_logits,
    functional.binary_cross_entropy,
)
OPERATION_GIVES = {
    "sigmoid": Output.PROBABILITIES,
    "softmax": Output.PROBABILITIES,
    "log_softmax": Output.LOG_PROBABILITIES,
}


@dataclass(frozen=True)
class Objective:
    """What the training makes small, and what the prediction is.

    Parameters
    ----------
    output : Output
        What the module gives.
    columns : int
        Width of that: 1, the number of classes or targets, or for a reconstruction that of the features.
    loss : callable
        Of output ``[n, columns]`` and target. The target is the class index as int64 ``[n]``, or as float32 ``[n,
        1]`` where there is one column; for a regression the standardised targets ``[n, targets]``, for a
        reconstruction the scaled values ``[n, width]``. Gives one number, or one an event.
    """

    output: Output
    columns: int
    loss: Loss

    def mean_loss(
        self, given: torch.Tensor, x: torch.Tensor, mask: torch.Tensor, y: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch: the mean over events of weight times loss, where the loss gives one number an event."""
        given = given.reshape(len(x), self.columns)
        if self.output is Output.RECONSTRUCTION:
            given = torch.where(mask, x, given)  # a place without a value cannot be wrong
            target = x
        elif self.output is Output.VALUES:
            target = y.to(given.dtype).reshape(given.shape)
        else:
            target = y.to(given.dtype).unsqueeze(1) if self.columns == 1 else y
        value = self.loss(given, target)
        if value.ndim == 0:
            return value
        return (weight * value.reshape(len(x), -1).mean(dim=1)).mean()

    def prediction(self, given: torch.Tensor, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return float32 ``[n, classes]``: probabilities; ``[n, targets]``: values; or ``[n, 1]``: mean squared error over present places."""
        given = given.reshape(len(x), self.columns).float()
        match self.output:
            case Output.RECONSTRUCTION:
                squared = torch.where(mask, torch.zeros_like(x), (given - x) ** 2)
                return squared.sum(dim=1, keepdim=True) / (~mask).sum(dim=1, keepdim=True).clamp(min=1)
            case Output.VALUES:
                return given
            case Output.LOGITS if self.columns == 1:
                return torch.sigmoid(torch.cat([-given, given], dim=1))
            case Output.LOGITS:
                return torch.softmax(given, dim=1)
            case Output.LOG_PROBABILITIES:
                return torch.exp(given)
        return torch.cat([1 - given, given], dim=1) if self.columns == 1 else given


def choose_objective(last: str | None, shape: tuple[int, ...], loss: object, task: Task, source: str) -> Objective:
    """Join what a module gives with the loss that the user gave, or with the one that fits.

    Parameters
    ----------
    last : str or None
        The module's last operation, if that is ``sigmoid``, ``softmax`` or ``log_softmax``.
    shape : tuple of int
        Shape of the output for some events.
    loss : object
        The user's loss, or None.
    task : Task
        What is to be learned.
    source : str
        Where the module comes from, for messages.

    Raises
    ------
    ModelFileError
        If the output does not fit the task, or the loss not the output.
    """
    if loss is not None and not callable(loss):
        raise ModelFileError(source, f"the loss is {type(loss).__name__}; it must be a function of output and target")
    columns = 1 if len(shape) == 1 else shape[-1]
    if task.kind == "regression":
        if len(shape) > 2 or columns != task.targets:
            raise ModelFileError(
                source,
                f"its output has shape {_shown(shape)}; for {task.targets} targets it must be [events, {task.targets}]",
            )
        return Objective(Output.VALUES, columns, _per_event(loss) or nn.MSELoss(reduction="none"))
    if task.kind == "reconstruction":
        if len(shape) != 2 or columns != task.width:
            raise ModelFileError(
                source,
                f"its output has shape {_shown(shape)}; without labels it must give back its {task.width} features,"
                f" so [events, {task.width}]; a classifier needs labels",
            )
        return Objective(Output.RECONSTRUCTION, columns, _per_event(loss) or nn.MSELoss(reduction="none"))
    allowed = (1, 2) if task.classes == 2 else (task.classes,)
    if len(shape) > 2 or columns not in allowed:
        right = " or ".join(f"[events, {count}]" for count in allowed)
        raise ModelFileError(
            source, f"its output has shape {_shown(shape)}; for {task.classes} classes it must be {right}"
        )
    if last is not None and (last == "sigmoid") != (columns == 1):
        right = "sigmoid, or nothing" if columns == 1 else "softmax, or nothing"
        raise ModelFileError(source, f"its last operation is {last} on {columns} outputs; right is {right}")
    one_column = _kind(loss) in ONE_COLUMN_LOSSES
    if _kind(loss) in LOSS_TAKES and one_column != (columns == 1):
        right = "2 or more outputs, one a class" if columns == 1 else "one output"
        raise ModelFileError(source, f"its output is {columns} wide, but {_name(loss)} needs {right}")
    output = _meaning(last, loss, source)
    return Objective(output, columns, _per_event(loss) or _default_loss(output, columns))


def _meaning(last: str | None, loss: object, source: str) -> Output:
    """Return what the output is, from the last operation and the loss; logits where neither says more."""
    given = OPERATION_GIVES.get(last or "")
    taken = LOSS_TAKES.get(_kind(loss))
    if given and taken and given is not taken:
        raise ModelFileError(
            source,
            f"its last operation, {last}, gives {given.value}, but {_name(loss)} takes {taken.value};"
            " leave out that operation or change the loss",
        )
    return given or taken or Output.LOGITS


def _kind(loss: object) -> object:
    """Return what a loss is looked up by: its class, or itself if it is a function."""
    return type(loss) if isinstance(loss, nn.Module) else loss


def _per_event(loss: object) -> Loss | None:
    """Return the user's loss so that it gives one number an event where it can, or None where there is none."""
    if not callable(loss):
        return None
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        loss = copy.deepcopy(loss)
        setattr(loss, "reduction", "none")  # noqa: B010 - to the type checker every attribute of a module is one
    return loss


def _default_loss(output: Output, columns: int) -> Loss:
    if columns == 1:
        return nn.BCEWithLogitsLoss(reduction="none") if output is Output.LOGITS else nn.BCELoss(reduction="none")
    if output is Output.LOGITS:
        return nn.CrossEntropyLoss(reduction="none")
    if output is Output.LOG_PROBABILITIES:
        return nn.NLLLoss(reduction="none")
    return _probability_loss


def _probability_loss(given: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return -ln p of the true class from probabilities."""
    smallest = torch.finfo(given.dtype).eps
    return functional.nll_loss(torch.log(given.clamp(min=smallest)), y, reduction="none")


def _name(loss: object) -> str:
    return str(getattr(loss, "__name__", type(loss).__name__))


def _shown(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join(("events", *(str(size) for size in shape[1:]))[: len(shape)]) + "]"
