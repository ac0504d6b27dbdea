"""Keras' own ``fit`` on the stream, and a callback that judges, shows, stops and keeps the best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, IterableDataset

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import TrainingError
from mlaas4hep.training.frameworks.base import Batches, EpochResult, EventBatch, FitSettings, History, Progress, Task
from mlaas4hep.training.frameworks.judging import finite, judge
from mlaas4hep.training.frameworks.keras.library import keras
from mlaas4hep.training.frameworks.keras.objective import KerasObjective
from mlaas4hep.training.frameworks.prediction import to_prediction
from mlaas4hep.training.frameworks.torch.export import quiet
from mlaas4hep.training.seeding import reproducible

__all__ = ["fit", "inputs_of", "run", "to_numpy"]


def inputs_of(batch: EventBatch, *, masks: bool) -> Any:
    """Return what a model takes of a batch: the values, or the values and the mask by name."""
    return {"x": batch.x, "mask": batch.mask} if masks else batch.x


def run(model: Any, inputs: Any) -> Any:
    """Return a model's output for some events, a tensor of the backend, without what a training would need."""
    with torch.no_grad():
        return model(inputs, training=False)


def to_numpy(tensor: Any) -> npt.NDArray[Any]:
    """Return a tensor of any backend as an array."""
    if isinstance(tensor, torch.Tensor):  # of which Keras' own conversion warns under numpy 2
        return np.asarray(tensor.detach().cpu().numpy())
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def fit(
    model: Any,
    objective: KerasObjective,
    task: Task,
    *,
    masks: bool,
    train: Batches,
    validation: Batches | None,
    settings: FitSettings,
    progress: Progress,
) -> History:
    """Train a compiled model in place and leave it with the weights of its best epoch.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    objective : KerasObjective
        What its output means.
    task : Task
    masks : bool
        Whether its inputs are ``x`` and ``mask``.
    train, validation : Batches
        Events; each iteration is one epoch.
    settings : FitSettings
        Epochs, patience, seed, and the folder for ``best.weights.h5`` and ``last.weights.h5``.
    progress : Progress
        Is told what happens.

    Raises
    ------
    TrainingError
        If the loss is no longer a number, or a checkpoint cannot be written.
    """
    events = _Events(train, objective, masks=masks)
    epochs = _Epochs(events, objective, task, validation, settings, progress, masks=masks)
    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    with quiet(), reproducible(settings.seed):
        _seed_layers(model, settings.seed)
        # Not shuffled once more, and in batches already. Of unknown length: a stream can give events more than once, or lose some.
        model.fit(DataLoader(events, batch_size=None), epochs=settings.epochs, callbacks=[epochs], verbose=0)
    if epochs.best_weights is not None:
        model.set_weights(epochs.best_weights)
    results = tuple(epochs.results)
    return History(results, epochs.best_epoch if validation is not None else len(results))


class _Events(IterableDataset[Any]):
    """Batches as Keras takes them: inputs, target and weight."""

    def __init__(self, batches: Batches, objective: KerasObjective, *, masks: bool) -> None:
        self.batches, self.objective, self.masks = batches, objective, masks
        self.given = 0

    def __iter__(self) -> Iterator[tuple[Any, torch.Tensor, torch.Tensor]]:
        for batch in self.batches:
            self.given += len(batch.weight)
            inputs = inputs_of(batch, masks=self.masks)
            tensors = {n: torch.from_numpy(a) for n, a in inputs.items()} if self.masks else torch.from_numpy(inputs)
            yield tensors, torch.from_numpy(self.objective.target(batch)), torch.from_numpy(batch.weight)


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
    """Judges each epoch on validation events."""

    def __init__(
        self,
        events: _Events,
        objective: KerasObjective,
        task: Task,
        validation: Batches | None,
        settings: FitSettings,
        progress: Progress,
        *,
        masks: bool,
    ) -> None:
        super().__init__()
        self.results: list[EpochResult] = []
        self.best_epoch = 0
        self.best_weights: list[npt.NDArray[Any]] | None = None
        self._best_loss = math.inf
        self._events, self._objective, self._task, self._masks = events, objective, task, masks
        self._validation, self._settings, self._progress = validation, settings, progress
        self._begun, self._told = 0.0, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        loss = finite(float((logs or {})["loss"]), f"in epoch {len(self.results) + 1}, batch {batch + 1}")
        given = self._events.given
        self._progress.advance(given - self._told, loss)
        self._told = given

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        loss, auc, share = math.nan, math.nan, math.nan
        if self._validation is not None:
            loss, auc, share = self._judge(self._validation)
            finite(loss, f"on validation events after epoch {epoch + 1}")
            if logs is not None:
                logs["val_loss"] = loss
        training = float((logs or {}).get("loss", math.nan))
        result = EpochResult(epoch + 1, training, loss, auc, share, time.perf_counter() - self._begun)
        self.results.append(result)
        if loss < self._best_loss:
            self.best_epoch, self._best_loss = epoch + 1, loss
            self.best_weights = self.model.get_weights()
            self._save("best")
        self._save("last")
        self._progress.epoch(result)
        if self._validation is not None and epoch + 1 - self.best_epoch >= self._settings.patience:
            self.model.stop_training = True

    def _judge(self, validation: Batches) -> tuple[float, float, float]:
        """Return the model's own loss, and the area under the ROC curve and the accuracy where there are classes."""
        total, events = 0.0, 0
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        for batch in validation:
            given = run(self.model, inputs_of(batch, masks=self._masks))
            with torch.no_grad():
                target = keras.ops.convert_to_tensor(self._objective.target(batch))
                weight = keras.ops.convert_to_tensor(batch.weight)
                loss = self.model.compute_loss(y=target, y_pred=given, sample_weight=weight, training=False)
            total += float(loss) * len(batch.weight)
            events += len(batch.weight)
            if self._task.kind == "classification":
                prediction = to_prediction(self._objective.output, to_numpy(given), batch.x, batch.mask)
                parts.append((prediction, batch.y.copy(), batch.weight.copy()))
        loss = total / events
        if self._objective.output in (Output.RECONSTRUCTION, Output.VALUES):
            return loss, math.nan, math.nan
        predictions, y, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        judged = judge(self._task, predictions, y, weights)
        return loss, judged.auc, judged.accuracy

    def _save(self, name: str) -> None:
        file = self._settings.checkpoints / f"{name}.weights.h5"
        try:
            self.model.save_weights(file, overwrite=True)
        except OSError as error:
            raise TrainingError(f"the checkpoint {file} cannot be written: {error.strerror or error}") from error


def _seed_layers(model: Any, seed: int) -> None:
    """Let the random numbers of dropout and noise follow from the seed."""
    found = [layer.seed_generator for layer in model._flatten_layers() if getattr(layer, "seed_generator", None)]
    for generator, child in zip(found, np.random.SeedSequence(seed).spawn(len(found)), strict=True):
        generator.state.assign(child.generate_state(2))
