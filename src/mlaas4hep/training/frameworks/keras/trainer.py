"""A Keras model as the job sees it."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import ModelFileError
from mlaas4hep.streaming.stream.batch import Batch
from mlaas4hep.training.frameworks.base import Batches, FitSettings, History, Progress, Task
from mlaas4hep.training.frameworks.judging import refuse_what_is_torchs
from mlaas4hep.training.frameworks.keras.export import to_onnx
from mlaas4hep.training.frameworks.keras.library import keras
from mlaas4hep.training.frameworks.keras.loop import fit, inputs_of, run, to_numpy
from mlaas4hep.training.frameworks.keras.objective import KerasObjective, choose_objective
from mlaas4hep.training.frameworks.prediction import to_prediction
from mlaas4hep.training.frameworks.torch.export import quiet

__all__ = ["KerasTrainer", "make_trainer"]

ROWS_AT_ONCE = 8192
TRIED_EVENTS = 4
NAMES = {"x", "mask"}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # Keras writes its errors for terminals

Floats = npt.NDArray[np.float32]


def make_trainer(returned: object, task: Task, source: str) -> KerasTrainer:
    """Make a trainer from a ``keras.Model``, compiled or not.

    Raises
    ------
    ModelFileError
        If it is something else.
    """
    if not isinstance(returned, keras.Model):
        raise ModelFileError(source, "it must return a keras.Model; its loss and optimiser go into model.compile")
    return KerasTrainer(returned, task, source)


class KerasTrainer:
    """Trains one Keras model.

    Parameters
    ----------
    model : keras.Model
        Of one input, the values, or of two with the names ``x`` and ``mask``. Compiled with any loss and optimiser; if it is not, the loss is
        the cross entropy that fits its output, and the optimiser Adam.
    task : Task
        What is to be learned.
    source : str
        Where the model comes from, for messages.
    """

    framework = "keras"
    file_name = "model.keras"

    def __init__(self, model: Any, task: Task, source: str) -> None:
        self.model, self.task, self.source = model, task, source

    @cached_property
    def objective(self) -> KerasObjective:
        """What the output means; the model is built, tried, and compiled where it is not."""
        given = self._try(self._some_events())
        shape = tuple(given.shape)
        if len(shape) > 2 or shape[0] != TRIED_EVENTS:
            raise ModelFileError(
                self.source, f"{TRIED_EVENTS} events give an output of shape {list(shape)}; right is one row an event"
            )
        objective = choose_objective(self.model, 1 if len(shape) == 1 else shape[1], self.task, self.source)
        if objective.loss is not None:
            optimiser = self.model.optimizer if self.model.compiled else "adam"
            self.model.compile(optimizer=optimiser, loss=objective.loss)
        return objective

    def check(self) -> None:
        """Try the model, its loss and its metrics on a few events, and convert it to ONNX: all that can fail, before the training."""
        events = self._some_events()
        target = self.objective.target(events)
        try:
            self.model.test_on_batch(inputs_of(events, masks=self._masks), target, sample_weight=events.weight)
        except Exception as error:  # whatever the user's loss and metrics raise
            raise ModelFileError(self.source, f"its loss or a metric fails: {_line(error)}") from error
        if not self.model.trainable_variables:
            raise ModelFileError(self.source, "the model has no weights to train")
        self.to_onnx()

    def fit(self, train: Batches, validation: Batches | None, settings: FitSettings, progress: Progress) -> History:
        """Train with Keras' ``fit``."""
        refuse_what_is_torchs("Keras", settings)
        # Otherwise Keras takes a first batch to learn the shapes, and throws the rest of that epoch away.
        events = self._some_events()
        self.model.test_on_batch(inputs_of(events, masks=self._masks), self.objective.target(events), events.weight)
        return fit(
            self.model,
            self.objective,
            self.task,
            masks=self._masks,
            train=train,
            validation=validation,
            settings=settings,
            progress=progress,
        )

    def predict(self, x: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
        """Return float32 ``[n, classes]``: probabilities; ``[n, targets]``: standardised values; or ``[n, 1]``: the reconstruction error."""
        result = np.empty((len(x), self.task.columns), np.float32)
        for start in range(0, len(x), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            inputs = {"x": x[rows], "mask": mask[rows]} if self._masks else x[rows]
            given = to_numpy(run(self.model, inputs))
            result[rows] = to_prediction(self.objective.output, given, x[rows], mask[rows])
        return result

    def to_onnx(self) -> tuple[bytes, Output]:
        """Return the model as ONNX on scaled values, and what it gives."""
        output = self.objective.output
        return to_onnx(self.model, self.task.width, masks=self._masks, source=self.source), output

    def save(self, path: Path) -> None:
        """Write the model; ``keras.models.load_model(path)`` reads it."""
        with quiet():  # Keras and numpy 2 about each other
            self.model.save(path)

    @cached_property
    def _masks(self) -> bool:
        """Whether the model takes the mask beside the values."""
        inputs = getattr(self.model, "inputs", None) or []
        names = {tensor.name for tensor in inputs}
        if len(inputs) == 2 and names == NAMES:
            return True
        if len(inputs) > 1:
            shown = ", ".join(f"'{name}'" for name in sorted(names))
            raise ModelFileError(
                self.source, f"its inputs are {shown}; right is one, or two with the names 'x' and 'mask'"
            )
        return False

    def _some_events(self) -> Batch:
        """Return a few events without meaning, for trying."""
        n, width = TRIED_EVENTS, self.task.width
        y: npt.NDArray[Any] = np.arange(n) % max(1, self.task.classes)
        if self.task.kind == "regression":
            y = np.zeros((n, self.task.targets), np.float32)
        x = np.linspace(0, 1, n * width, dtype=np.float32).reshape(n, width)
        return Batch(x, np.zeros((n, width), np.bool_), y, np.ones(n, np.float32), np.empty(n, np.void))

    def _try(self, events: Batch) -> Any:
        try:
            given = run(self.model, inputs_of(events, masks=self._masks))
        except Exception as error:  # whatever Keras or the user's code raises
            raise ModelFileError(self.source, f"it fails on {self.task.width} features: {_line(error)}") from error
        if not keras.ops.is_tensor(given):
            raise ModelFileError(self.source, f"it gives {type(given).__name__}; it must give one tensor")
        return given


def _line(error: BaseException) -> str:
    """Return the first line of an error that says something; Keras begins with whom it was called by."""
    lines = [line.strip() for line in COLOURS.sub("", str(error)).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return f"{type(error).__name__}: {(said or lines or [''])[0]}"
