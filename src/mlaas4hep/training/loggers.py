"""Keep a training's numbers while it runs: in CSV files, for TensorBoard, in MLflow, in Weights & Biases.

A logger takes numbers with a step; :class:`LoggedProgress` is told how a training goes on, as any progress is, and passes on what is worth
keeping. A new logger is one class with three methods and one line in :data:`LOGGERS`.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mlaas4hep.errors import UnknownSettingError
from mlaas4hep.training.frameworks.base import EpochResult, NoProgress, Progress

__all__ = ["LOGGERS", "CSVLogger", "LoggedProgress", "Logger", "make_logger"]

LOGGERS = {
    "csv": "mlaas4hep.training.loggers:CSVLogger",
    "tensorboard": "mlaas4hep.training.loggers_tensorboard:TensorBoardLogger",
    "mlflow": "mlaas4hep.training.loggers_services:MLflowLogger",
    "wandb": "mlaas4hep.training.loggers_services:WandbLogger",
}
"""Name of a logger → module and class, imported when it is asked for."""

SECONDS_BETWEEN_LOSSES = 1.0


class Logger(Protocol):
    """Keeps numbers."""

    def resume(self, epoch: int) -> None:
        """Go on with what an earlier process kept, but for what it kept of this epoch, counted from 1, and later ones."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep numbers. Those of an epoch have names with ``epoch/`` before, and the epoch is the step; of others, the events learned from are."""

    def close(self) -> None:
        """Complete what was kept, however the training ended."""


def make_logger(name: str, folder: str | Path, **settings: Any) -> Logger:
    """Make a logger by its name.

    Parameters
    ----------
    name : str
        One of :data:`LOGGERS`.
    folder : str or Path
        Where it keeps its files; made if it is not there.
    **settings
        Its own: ``experiment``, ``run``, …

    Raises
    ------
    UnknownSettingError
        If there is no such logger.
    MissingExtraError
        If its package is not installed.
    """
    if name not in LOGGERS:
        raise UnknownSettingError(name, LOGGERS)
    module, _, kind = LOGGERS[name].partition(":")
    logger: Logger = getattr(importlib.import_module(module), kind)(Path(folder), **settings)
    return logger


class LoggedProgress:
    """Passes on how a training goes on to another progress, and its numbers to loggers.

    Parameters
    ----------
    loggers : sequence of Logger
    shown : Progress, optional
        What shows it to a person.
    seconds : float
        Shortest time between two losses of batches that are kept; each is the mean since the one before, so that nothing is left out.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     progress = LoggedProgress([make_logger("csv", folder)])
    ...     progress.begin(1, 100)
    ...     progress.epoch(EpochResult(1, 0.5, 0.4, 0.9, 0.8, 1.0))
    ...     progress.end()
    ...     print((Path(folder) / "epochs.csv").read_text().split()[1])
    1,0.4,0.5,0.9,0.8,1.0
    """

    def __init__(
        self, loggers: Sequence[Logger], shown: Progress | None = None, seconds: float = SECONDS_BETWEEN_LOSSES
    ) -> None:
        self._loggers, self._shown, self._seconds = tuple(loggers), shown or NoProgress(), seconds
        self._per_epoch = self._learned = self._events = 0
        self._loss = 0.0
        self._kept = -math.inf

    def begin(self, epochs: int, events: int) -> None:
        """Take note that a training begins."""
        self._per_epoch, self._learned = events, 0
        self._shown.begin(epochs, events)

    def advance(self, events: int, loss: float) -> None:
        """Keep the mean loss of the batches of the last second."""
        self._shown.advance(events, loss)
        self._learned += events
        self._events += events
        self._loss += events * loss
        if time.monotonic() - self._kept >= self._seconds:
            self._keep_loss()

    def waiting(self, share: float) -> None:
        """Pass it on."""
        self._shown.waiting(share)

    def resume(self, epoch: int, events: int) -> None:
        """Go on where an earlier process was."""
        self._learned = (epoch - 1) * self._per_epoch + events
        for logger in self._loggers:
            logger.resume(epoch)
        self._shown.resume(epoch, events)

    def note(self, line: str) -> None:
        """Pass it on."""
        self._shown.note(line)

    def epoch(self, result: EpochResult) -> None:
        """Keep the epoch's numbers; those that are not known are left out."""
        self._keep_loss()
        numbers = dataclasses.asdict(result)
        step = numbers.pop("epoch")
        self._log(step, {f"epoch/{name}": value for name, value in numbers.items() if math.isfinite(value)})
        self._shown.epoch(result)

    def end(self) -> None:
        """Complete what was kept."""
        self._keep_loss()
        for logger in self._loggers:
            logger.close()
        self._shown.end()

    def _keep_loss(self) -> None:
        if self._events:
            self._log(self._learned, {"loss": self._loss / self._events})
        self._events, self._loss, self._kept = 0, 0.0, time.monotonic()

    def _log(self, step: int, numbers: Mapping[str, float]) -> None:
        for logger in self._loggers:
            logger.log(step, numbers)


class CSVLogger:
    """Keeps ``epochs.csv``, one line an epoch, and ``losses.csv``, one line a second or so.

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._epochs, self._losses = folder / "epochs.csv", folder / "losses.csv"
        self._rows: dict[int, dict[str, Any]] = {}
        self._names: set[str] = set()
        self._file: Any = None

    def resume(self, epoch: int) -> None:
        """Keep the lines of earlier epochs."""
        if self._epochs.is_file():
            with self._epochs.open(newline="", encoding="utf-8") as file:
                rows = {int(row["epoch"]): row for row in csv.DictReader(file)}
            self._rows = {
                number: {name: value for name, value in row.items() if name != "epoch" and value}
                for number, row in rows.items()
                if number < epoch
            }
            self._names = {name for row in self._rows.values() for name in row}
        if self._losses.is_file() and self._file is None:
            self._file = self._losses.open("a", newline="", encoding="utf-8")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a line."""
        of_epoch = {name.removeprefix("epoch/"): value for name, value in numbers.items() if name.startswith("epoch/")}
        if not of_epoch:
            if self._file is None:
                self._file = self._losses.open("w", newline="", encoding="utf-8")
                csv.writer(self._file).writerow(["events", *sorted(numbers)])
            csv.writer(self._file).writerow([step, *(numbers[name] for name in sorted(numbers))])
            self._file.flush()
            return
        self._rows[step] = dict(of_epoch)
        self._names |= set(of_epoch)
        self._write_epochs()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write_epochs(self) -> None:
        """Write all epochs anew, whole or not at all: a name may come that no epoch before had."""
        wanted = ["validation_loss", "loss", "auc", "accuracy", "seconds", "waiting"]
        names = [name for name in wanted if name in self._names] + sorted(self._names - set(wanted))
        partial = self._epochs.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["epoch", *names], restval="")
            writer.writeheader()
            writer.writerows({"epoch": step, **self._rows[step]} for step in sorted(self._rows))
        partial.replace(self._epochs)
