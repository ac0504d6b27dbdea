"""What the job needs of a framework: check a model, fit it on streams, predict, export."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from mlaas4hep.bundle.graph import Output

if TYPE_CHECKING:
    from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = [
    "Batches",
    "EpochResult",
    "EventBatch",
    "FitSettings",
    "History",
    "Kind",
    "NoProgress",
    "Progress",
    "Task",
    "Trainer",
]


Kind = Literal["classification", "regression", "reconstruction"]


class EventBatch(Protocol):
    """Some events, as the stream gives them."""

    @property
    def x(self) -> npt.NDArray[np.float32]:
        """Scaled values, ``[n, width]``, 0 where absent."""

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """True where absent, ``[n, width]``."""

    @property
    def y(self) -> npt.NDArray[Any]:
        """Class index, int64 ``[n]``; of a regression the standardised targets, float32 ``[n, targets]``."""

    @property
    def weight(self) -> npt.NDArray[np.float32]:
        """Weight in the loss, ``[n]``."""


class Batches(Protocol):
    """Events to learn from; each iteration is one epoch.

    Attributes
    ----------
    epoch : int
        Number of the next one. To set it back is to have the same events in the same order again.
    """

    epoch: int

    def __iter__(self) -> Iterator[EventBatch]: ...


@dataclass(frozen=True, slots=True)
class Task:
    """What a model has to learn.

    Parameters
    ----------
    width : int
        Number of places of the feature vector.
    classes : int
        Number of classes; 0 where there are no labels.
    targets : int
        Number of values to predict of an event; 0 where it is no regression.
    encoding : Encoding, optional
        Which feature stands at which place, for models that look at objects.

    Examples
    --------
    >>> Task(125, 2).kind, Task(125, 0, targets=1).kind, Task(125, 0).kind
    ('classification', 'regression', 'reconstruction')
    """

    width: int
    classes: int
    targets: int = 0
    encoding: Encoding | None = None

    @property
    def kind(self) -> Kind:
        """What the model does: tell classes apart, predict values, or reconstruct its input."""
        return "classification" if self.classes else "regression" if self.targets else "reconstruction"

    @property
    def outputs(self) -> int:
        """Numbers that a model has to give for an event: one for two classes, else one a class, target or place."""
        return 1 if self.classes == 2 else self.classes or self.targets or self.width

    @property
    def columns(self) -> int:
        """Columns of a prediction: one a class or a target, or the one reconstruction error."""
        return self.classes or self.targets or 1


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How a model is fitted.

    Parameters
    ----------
    epochs : int
        Passes over the training events at most.
    patience : int
        Epochs without a smaller validation loss after which the training stops.
    seed : int
        What all random numbers of the training follow from.
    checkpoints : Path
        Folder for the framework's checkpoints.
    events : int
        Training events of an epoch; 0 where that is not known.
    memory_limit : int
        Bytes that the values of all training events may take where a model can learn only from all of them at once.
    resume : bool
        Whether to go on from the newest checkpoint in that folder, where there is one.
    checkpoint_every : float
        Seconds of learning that are lost at most when the process is killed.
    precision : {"32", "16-mixed", "bf16-mixed"}
        What matrix products are computed in.
    clip : float
        Largest norm of the gradient; 0 for no limit.
    compile : bool
        Whether the model is compiled before the training.
    find_learning_rate : bool
        Whether to search a learning rate first.
    features : tuple of str
        Names of the places of the feature vector, for messages.
    run : mapping
        What else the results follow from, name by name: a checkpoint of another run is refused.
    """

    epochs: int
    patience: int
    seed: int
    checkpoints: Path
    events: int = 0
    memory_limit: int = 2_000_000_000
    resume: bool = False
    checkpoint_every: float = 60.0
    precision: str = "32"
    clip: float = 0.0
    compile: bool = False
    find_learning_rate: bool = False
    features: tuple[str, ...] = ()
    run: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What an epoch gave; validation numbers are NaN where there are no validation events or no labels.

    Parameters
    ----------
    epoch : int
        From 1 on.
    loss : float
        Mean over the epoch's training events, while the model changed.
    validation_loss, auc, accuracy : float
        On validation events, after the epoch.
    seconds : float
        Time that the epoch took.
    waiting : float
        Share of it that was spent waiting for data; NaN where that is not known.
    """

    epoch: int
    loss: float
    validation_loss: float
    auc: float
    accuracy: float
    seconds: float
    waiting: float = math.nan


@dataclass(frozen=True, slots=True)
class History:
    """All epochs, and which of them the model is from.

    Parameters
    ----------
    epochs : tuple of EpochResult
        In order.
    best_epoch : int
        The epoch of the smallest validation loss; the last one where there are no validation events.
    """

    epochs: tuple[EpochResult, ...]
    best_epoch: int


class Progress(Protocol):
    """Is told how a training goes on."""

    def begin(self, epochs: int, events: int) -> None:
        """Take note that a training begins: ``epochs`` at most, of ``events`` events each."""

    def advance(self, events: int, loss: float) -> None:
        """Take note of a batch that was learned from, and its loss."""

    def waiting(self, share: float) -> None:
        """Take note of the share of the epoch's time so far that was spent waiting for data."""

    def resume(self, epoch: int, events: int) -> None:
        """Take note that the training goes on in an epoch, counted from 1, of which so many events are done."""

    def note(self, line: str) -> None:
        """Take note of something that a person should know."""

    def epoch(self, result: EpochResult) -> None:
        """Take note of an epoch that is over."""

    def end(self) -> None:
        """Take note that the training is over, however it ended."""


class NoProgress:
    """Says nothing."""

    def begin(self, epochs: int, events: int) -> None:
        """Do nothing."""

    def advance(self, events: int, loss: float) -> None:
        """Do nothing."""

    def waiting(self, share: float) -> None:
        """Do nothing."""

    def resume(self, epoch: int, events: int) -> None:
        """Do nothing."""

    def note(self, line: str) -> None:
        """Do nothing."""

    def epoch(self, result: EpochResult) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""


class Trainer(Protocol):
    """One model of one framework, and how it is trained.

    Attributes
    ----------
    framework : str
        As the package is called.
    file_name : str
        What the file is called that :meth:`save` writes; its end says the format.
    """

    framework: str
    file_name: str

    def check(self) -> None:
        """Try the model and its export before the training.

        Raises
        ------
        ModelFileError
            If its output does not fit the task, or it cannot be exported.
        """

    def fit(self, train: Batches, validation: Batches | None, settings: FitSettings, progress: Progress) -> History:
        """Train until the epochs are over or the validation loss no longer falls, and keep the best epoch's weights.

        Raises
        ------
        TrainingError
            If the loss is no longer a number.
        """

    def predict(self, x: npt.NDArray[np.float32], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """Return float32 ``[n, classes]``: probabilities; ``[n, targets]``: values; or ``[n, 1]``: the reconstruction error."""

    def to_onnx(self) -> tuple[bytes, Output]:
        """Return the graph on scaled values and what it gives, as the bundle takes them."""

    def save(self, path: Path) -> None:
        """Write the model in the framework's own format."""
