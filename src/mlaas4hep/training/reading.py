"""What a training reads of a dataset: the streams to learn from, to stop by and to judge on, changed as the task wants it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import LabelError, TrainingError
from mlaas4hep.streaming.targets import Targets
from mlaas4hep.training.changed_batches import ChangedBatches, ChangedDataset
from mlaas4hep.training.frameworks.base import Task
from mlaas4hep.training.parameter_draw import ParameterDraw
from mlaas4hep.training.params import TrainingParams
from mlaas4hep.training.regression import TargetScaling

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.streaming.encoding.encoding import Encoding
    from mlaas4hep.streaming.splitting import Fold

__all__ = ["Reading", "count_events", "task_of"]

ROWS_AT_ONCE = 4096
COMPARED_EVENTS = 10_000  # of framework and bundle


class Reading:
    """The streams of one training.

    Parameters
    ----------
    dataset : Dataset
    params : TrainingParams
    parameter, signal : str
        As :meth:`ParameterDraw.learn` takes them; no parameter where empty.

    Attributes
    ----------
    dataset : Dataset
        The dataset, or what looks like it but for its changed batches.
    targets : TargetScaling or None
        How the targets of a regression are standardised.
    """

    def __init__(self, dataset: Dataset, params: TrainingParams, parameter: str = "", signal: str = "") -> None:
        self._params = params
        self.targets: TargetScaling | None = None
        # To all that follows the dataset looks as if the drawn values stood in its files.
        self.dataset: Any = dataset
        if parameter:
            self.dataset = ChangedDataset(dataset, ParameterDraw.learn(dataset, parameter, signal))
        if isinstance(dataset.labels, Targets):
            self.targets = TargetScaling.learn(self._stream("train", shuffle=False))

    def learning(self) -> Any:
        """Return the stream to learn from."""
        return self._standardised(self.dataset.stream("train", **self._params.of_stream()))

    def validation(self) -> Any:
        """Return the stream that stops the training; weighted as what is learned from."""
        return self._standardised(self._stream("validation", shuffle=False))

    def judged(self, fold: Fold) -> Any:
        """Return a stream to judge on: signed weights, since metrics are of physics, and targets in their own unit."""
        return self._stream(fold, shuffle=False, weights="signed")

    def held_out_values(self, events: Mapping[str, int]) -> npt.NDArray[np.float32]:
        """Return raw values of up to some thousand events, NaN where absent: of the test part, or of what there is."""
        fold: Fold = "test" if events["test"] else "validation" if events["validation"] else "train"
        parts: list[npt.NDArray[np.float32]] = []
        for batch in self._stream(fold, shuffle=True, encoding=self.dataset.encoding.unscaled):
            parts.append(np.where(batch.mask, np.float32(np.nan), batch.x))
            if sum(map(len, parts)) >= COMPARED_EVENTS:
                break
        return np.concatenate(parts)[:COMPARED_EVENTS]

    def _stream(self, fold: Fold, *, shuffle: bool, weights: str = "training", encoding: Encoding | None = None) -> Any:
        reading = self._params.of_reading()
        if encoding is not None:
            reading["cache"] = None  # read once; there it would only take room
        return self.dataset.stream(
            fold, encoding=encoding, batch_size=ROWS_AT_ONCE, shuffle=shuffle, weights=weights, **reading
        )

    def _standardised(self, stream: Any) -> Any:
        return stream if self.targets is None else ChangedBatches(stream, self.targets)


def task_of(dataset: Dataset) -> Task:
    """Return what a model has to learn of a dataset."""
    encoding, labels = dataset.encoding, dataset.labels
    targets = len(labels.columns) if isinstance(labels, Targets) else 0
    return Task(encoding.width, len(dataset.classes), targets, encoding)


def count_events(dataset: Dataset) -> dict[str, int]:
    """Return the number of events of each fold.

    Raises
    ------
    LabelError
        If a class has no training event.
    TrainingError
        If there are fewer than two training events.
    """
    folds: tuple[Fold, ...] = ("train", "validation", "test")
    counts = {fold: dataset.class_counts(fold) for fold in folds}
    empty = [name for name, events in counts["train"].items() if events == 0]
    if empty and dataset.classes:
        raise LabelError(f"class '{empty[0]}' has no training event; a classification needs events of every class")
    if sum(counts["train"].values()) < 2:
        raise TrainingError("there must be at least 2 training events; the files and the split leave fewer")
    return {fold: sum(of_class.values()) for fold, of_class in counts.items()}
