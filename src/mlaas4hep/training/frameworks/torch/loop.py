"""The training loop: a module inside Lightning's Trainer, with checkpoints of the best and the last epoch."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch import nn

from mlaas4hep.bundle.graph import Output
from mlaas4hep.errors import TrainingError
from mlaas4hep.training.evaluation import evaluate
from mlaas4hep.training.frameworks.base import Batches, EpochResult, FitSettings, History, Progress
from mlaas4hep.training.frameworks.torch.export import quiet
from mlaas4hep.training.frameworks.torch.objective import Objective
from mlaas4hep.training.seeding import reproducible

__all__ = ["fit"]

TensorBatch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
MakeOptimiser = Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]
WATCHED = "validation_loss"


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
) -> History:
    """Train a module in place and leave it with the weights of its best epoch, on the CPU.

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
        Events; each iteration is one epoch.
    settings : FitSettings
        Epochs, patience, seed, and the folder for ``best.ckpt`` and ``last.ckpt``.
    progress : Progress
        Is told what happens.

    Raises
    ------
    TrainingError
        If the loss is no longer a number.
    """
    task = _Task(module, objective, make_optimiser, takes_mask=takes_mask, progress=progress)
    checkpoint = ModelCheckpoint(
        dirpath=settings.checkpoints,
        filename="best",
        monitor=WATCHED if validation is not None else None,
        save_last=True,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [checkpoint]
    if validation is not None:
        callbacks.append(EarlyStopping(WATCHED, patience=settings.patience, check_finite=False))
    with quiet(), reproducible(settings.seed), _interruptible(), _one_core_left():
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            accelerator="auto",
            devices=1,
            logger=False,
            callbacks=callbacks,
            default_root_dir=settings.checkpoints,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(task, _Tensors(train), None if validation is None else _Tensors(validation))
    module.cpu().eval()
    results = tuple(task.results)
    if validation is None:
        return History(results, len(results))
    saved = torch.load(Path(checkpoint.best_model_path), map_location="cpu", weights_only=True)
    task.load_state_dict(saved["state_dict"])
    return History(results, saved["epoch"] + 1)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C out as KeyboardInterrupt; Lightning would end the process and leave the signal ignored."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as leaving:
        if isinstance(leaving.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from leaving
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)


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


class _Tensors:
    """Batches as tensors that share memory with the stream's arrays."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[TensorBatch]:
        for batch in self.batches:
            yield (
                torch.from_numpy(batch.x),
                torch.from_numpy(batch.mask),
                torch.from_numpy(batch.y),
                torch.from_numpy(batch.weight),
            )


class _Task(lightning.LightningModule):  # type: ignore[misc]  # Lightning is not checked
    """What Lightning runs: loss and validation of one module."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        make_optimiser: MakeOptimiser,
        *,
        takes_mask: bool,
        progress: Progress,
    ) -> None:
        super().__init__()
        self.module = module
        self.objective = objective
        self.results: list[EpochResult] = []
        self._make_optimiser, self._takes_mask, self._progress = make_optimiser, takes_mask, progress
        self._needs_two = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
        self._loss_sum, self._events, self._begun = 0.0, 0, 0.0
        self._validated: list[tuple[torch.Tensor, ...]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self._make_optimiser(self.module.parameters())

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        given: torch.Tensor = self.module(x, mask) if self._takes_mask else self.module(x)
        return given

    def on_train_epoch_start(self) -> None:
        self._loss_sum, self._events, self._begun = 0.0, 0, time.perf_counter()

    def training_step(self, batch: TensorBatch, index: int) -> torch.Tensor | None:
        x, mask = batch[:2]
        if self._needs_two and len(x) == 1:
            return None  # one event has no spread to normalise with; it comes in other company in the next epoch
        loss = self._loss(self(x, mask), batch)
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in epoch {self.current_epoch + 1}, batch {index + 1};"
                " a smaller learning rate or a loss that is finite for every output may help"
            )
        self._loss_sum += value * len(x)
        self._events += len(x)
        self._progress.advance(len(x), value)
        return loss

    def validation_step(self, batch: TensorBatch, index: int) -> None:
        x, mask, y, weight = batch
        given = self(x, mask)
        loss = self._loss(given, batch)
        prediction = self.objective.prediction(given, x, mask)
        self._validated.append((loss.expand(1) * len(x), prediction, y, weight))

    def on_validation_epoch_end(self) -> None:
        losses, predictions, y, weight = (torch.cat(parts).cpu() for parts in zip(*self._validated, strict=True))
        self._validated.clear()
        loss = float(losses.sum()) / len(y)
        if not math.isfinite(loss):
            raise TrainingError(f"the validation loss is {loss} after epoch {self.current_epoch + 1}")
        self.log(WATCHED, loss)
        auc = share = math.nan
        if self.objective.output not in (Output.RECONSTRUCTION, Output.VALUES):
            judged = evaluate(predictions.numpy(), y.numpy(), weight.numpy())
            auc, share = judged.auc, judged.accuracy
        self._finish_epoch(loss, auc, share)

    def on_train_epoch_end(self) -> None:
        if len(self.results) == self.current_epoch:  # there was no validation
            self._finish_epoch(math.nan, math.nan, math.nan)

    def _loss(self, given: torch.Tensor, batch: TensorBatch) -> torch.Tensor:
        x, mask, y, weight = batch
        return self.objective.mean_loss(given, x, mask, y, weight)

    def _finish_epoch(self, loss: float, auc: float, share: float) -> None:
        seconds = time.perf_counter() - self._begun
        mean = self._loss_sum / max(1, self._events)
        result = EpochResult(self.current_epoch + 1, mean, loss, auc, share, seconds)
        self.results.append(result)
        self._progress.epoch(result)
