"""A PyTorch module as the job sees it."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import ModelFileError
from mlaas4hep.training.frameworks.base import Batches, FitSettings, History, Progress, Task
from mlaas4hep.training.frameworks.torch.export import last_operation, to_onnx, trace, wants_mask
from mlaas4hep.training.frameworks.torch.learning_rate import Schedule
from mlaas4hep.training.frameworks.torch.lightning_module import is_lightning, of_lightning
from mlaas4hep.training.frameworks.torch.loop import fit
from mlaas4hep.training.frameworks.torch.objective import Objective, choose_objective

__all__ = ["TorchTrainer", "make_trainer"]

ROWS_AT_ONCE = 8192
LEARNING_RATE = 1e-3


def make_trainer(returned: object, task: Task, source: str) -> TorchTrainer:
    """Make a trainer from ``module``, ``(module, loss)``, ``(module, loss, optimiser)`` or ``(module, loss, optimiser, scheduler)``.

    Parameters
    ----------
    returned : torch.nn.Module or tuple
        ``loss`` is a function of output and target, or None for the one that fits; ``optimiser`` an instance made of
        the module's parameters, or a callable that makes one, as the class ``torch.optim.AdamW``; ``scheduler`` of the learning rate an
        instance, or a callable that makes one of the optimiser. A LightningModule brings all of these itself.
    task : Task
        What is to be learned.
    source : str
        Where it comes from, for messages.

    Raises
    ------
    ModelFileError
        If it is none of these.
    """
    parts = returned if isinstance(returned, tuple) else (returned,)
    if not parts or not isinstance(parts[0], nn.Module) or len(parts) > 4:
        raise ModelFileError(
            source,
            "it must return a torch.nn.Module, (module, loss), (module, loss, optimiser) or (module, loss, optimiser, scheduler)",
        )
    if is_lightning(parts[0]):
        parts = (parts[0], *of_lightning(parts[0], parts[1:], source))
    module, loss, optimiser, scheduler = (*parts, None, None, None)[:4]
    return TorchTrainer(module, loss, optimiser, task, source, scheduler)


class TorchTrainer:
    """Trains one PyTorch module.

    Parameters
    ----------
    module : torch.nn.Module
        ``forward(x)``, or ``forward(x, mask)``: values float32 and mask bool, ``[n, width]``.
    loss : callable or None
        Function of output and target.
    optimiser : torch.optim.Optimizer, callable or None
        AdamW with a learning rate of 0.001 if None.
    task : Task
        What is to be learned.
    source : str
        Where the module comes from, for messages.
    scheduler : LRScheduler, mapping, callable or None
        Of the learning rate: an instance, one with its ``interval`` as Lightning has it, or a callable that makes one of the optimiser.
    """

    framework = "torch"
    file_name = "model.pt"

    def __init__(
        self, module: nn.Module, loss: object, optimiser: object, task: Task, source: str, scheduler: object = None
    ) -> None:
        self.module, self.task, self.source = module.cpu(), task, source
        self._loss, self._optimiser, self._scheduler = loss, optimiser, scheduler

    @cached_property
    def objective(self) -> Objective:
        """What the module's output means and which loss goes with it; found from its trace."""
        program = trace(self.module, self.task.width, self.source)
        output = program.graph_signature.user_outputs[0]
        value = next(node for node in program.graph.nodes if node.name == output).meta["val"]
        return choose_objective(last_operation(program), tuple(value.shape), self._loss, self.task, self.source)

    def check(self) -> None:
        """Find what the output means, make the optimiser, convert to ONNX: all that can fail, before the training."""
        _ = self.objective
        optimiser = self._make_optimiser(self.module.parameters())
        if self._scheduler is not None:
            Schedule(self._make_scheduler(copy.deepcopy(optimiser)))  # most change the rate as they are made
        self.to_onnx()

    def fit(self, train: Batches, validation: Batches | None, settings: FitSettings, progress: Progress) -> History:
        """Train, on a GPU if there is one."""
        return fit(
            self.module,
            self.objective,
            self._make_optimiser,
            takes_mask=self._takes_mask,
            train=train,
            validation=validation,
            settings=settings,
            progress=progress,
            make_scheduler=None if self._scheduler is None else self._make_scheduler,
        )

    def predict(self, x: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return float32 ``[n, classes]``: probabilities; ``[n, targets]``: standardised values; or ``[n, 1]``: the reconstruction error."""
        self.module.eval()
        result = np.empty((len(x), self.task.columns), np.float32)
        with torch.no_grad():
            for start in range(0, len(x), ROWS_AT_ONCE):
                rows = slice(start, start + ROWS_AT_ONCE)
                values, absent = torch.from_numpy(x[rows]), torch.from_numpy(mask[rows])
                given = self.module(values, absent) if self._takes_mask else self.module(values)
                result[rows] = self.objective.prediction(given, values, absent).numpy()
        return result

    def to_onnx(self) -> tuple[bytes, Output]:
        """Return the module as ONNX on scaled values, and what it gives."""
        program = trace(self.module, self.task.width, self.source)
        return to_onnx(program, self.source), self.objective.output

    def save(self, path: Path) -> None:
        """Write the module's weights; ``torch.load(path, weights_only=True)`` reads them."""
        torch.save(self.module.state_dict(), path)

    @cached_property
    def _takes_mask(self) -> bool:
        return wants_mask(self.module, self.source)

    def _make_optimiser(self, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
        mine = list(parameters)
        made = self._optimiser
        if not any(parameter.requires_grad for parameter in mine):
            raise ModelFileError(self.source, "the module has no parameters to train")
        if made is None:
            return torch.optim.AdamW(mine, lr=LEARNING_RATE)
        if callable(made) and not isinstance(made, torch.optim.Optimizer):
            try:
                made = made(mine)
            except Exception as error:  # whatever the user's code raises
                raise ModelFileError(self.source, f"the optimiser cannot be made: {error}") from error
        if not isinstance(made, torch.optim.Optimizer):
            raise ModelFileError(
                self.source,
                f"the optimiser is {_kind(made)}; it must be a torch.optim.Optimizer, or a function of the parameters"
                " that makes one",
            )
        held = {id(parameter) for group in made.param_groups for parameter in group["params"]}
        if not held & {id(parameter) for parameter in mine}:
            raise ModelFileError(self.source, "the optimiser holds none of the module's parameters")
        return made

    def _make_scheduler(self, optimiser: torch.optim.Optimizer) -> object:
        made = self._scheduler
        if isinstance(made, (Mapping, LRScheduler)) or not callable(made):
            return made
        try:
            return made(optimiser)
        except Exception as error:  # whatever the user's code raises
            raise ModelFileError(self.source, f"the scheduler cannot be made: {error}") from error


def _kind(value: object) -> str:
    return value.__name__ if inspect.isclass(value) else type(value).__name__
