"""Show a training as it goes on: a bar on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, TextIO

from mlaas4hep.training.frameworks.base import EpochResult, NoProgress, Progress
from mlaas4hep.training.processes import is_first_process

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["BarProgress", "LineProgress", "describe_epoch", "progress_for"]


def progress_for(output: TextIO | None = None) -> Progress:
    """Return a bar if the output is a terminal, and lines otherwise; standard output if none is given.

    Of several processes that train together only the first one says something.
    """
    if not is_first_process():
        return NoProgress()
    output = output or sys.stdout
    return BarProgress(output) if output.isatty() else LineProgress(output)


def describe_epoch(result: EpochResult, epochs: int) -> str:
    """Return an epoch's numbers in one line.

    Examples
    --------
    >>> describe_epoch(EpochResult(3, 0.45, 0.44, 0.881, 0.8, 1.2), 20)
    'epoch  3/20  loss 0.4500  validation loss 0.4400  AUC 0.8810  accuracy 0.8000  1.2 s'
    """
    numbers = [("loss", result.loss), ("validation loss", result.validation_loss)]
    numbers += [("AUC", result.auc), ("accuracy", result.accuracy)]
    shown = "".join(f"  {name} {value:.4f}" for name, value in numbers if not math.isnan(value))
    return f"epoch {result.epoch:{len(str(epochs))}}/{epochs}{shown}  {result.seconds:.1f} s"


class LineProgress:
    """Writes one line an epoch.

    Parameters
    ----------
    output : text file
        Where to.
    """

    def __init__(self, output: TextIO) -> None:
        self._output, self._epochs = output, 0

    def begin(self, epochs: int, events: int) -> None:
        """Take note of the number of epochs."""
        self._epochs = epochs

    def advance(self, events: int, loss: float) -> None:
        """Say nothing."""

    def waiting(self, share: float) -> None:
        """Say nothing."""

    def note(self, line: str) -> None:
        """Write the line."""
        self._output.write(line + "\n")
        self._output.flush()

    def epoch(self, result: EpochResult) -> None:
        """Write the epoch's line."""
        self._output.write(describe_epoch(result, self._epochs) + "\n")
        self._output.flush()

    def end(self) -> None:
        """Say nothing."""


class BarProgress:
    """Shows the current epoch as a bar, with the epochs' lines above it.

    Parameters
    ----------
    output : text file
        A terminal.
    """

    def __init__(self, output: TextIO) -> None:
        self._output, self._epochs = output, 0
        self._bars: Bars | None = None
        self._bar: TaskID | None = None

    def begin(self, epochs: int, events: int) -> None:
        """Show an empty bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._epochs = epochs
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("events  loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=Console(file=self._output),
            transient=True,
        )
        self._bar = self._bars.add_task(f"epoch 1/{epochs}", total=events, loss="…")
        self._bars.start()

    def advance(self, events: int, loss: float) -> None:
        """Move the bar."""
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, advance=events, loss=f"{loss:.3f}")

    def waiting(self, share: float) -> None:
        """Show it beside the bar."""

    def note(self, line: str) -> None:
        """Write the line above the bar."""
        if self._bars is not None:
            self._bars.console.print(line, highlight=False)
        else:
            self._output.write(line + "\n")

    def epoch(self, result: EpochResult) -> None:
        """Write the epoch's line above the bar, and begin the next one."""
        if self._bars is not None and self._bar is not None:
            self._bars.console.print(describe_epoch(result, self._epochs), highlight=False)
            following = min(result.epoch + 1, self._epochs)
            self._bars.reset(self._bar, description=f"epoch {following}/{self._epochs}", loss="…")

    def end(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
