"""Show a training as it goes on: a bar on a terminal, one plain line an epoch elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, TextIO

from mlaas4hep.training.frameworks.base import EpochResult, NoProgress, Progress
from mlaas4hep.training.processes import is_first_process

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["BarProgress", "LineProgress", "describe_epoch", "progress_for"]

SHOWN_EVERY = 0.1  # seconds


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
    >>> describe_epoch(EpochResult(3, 0.45, math.nan, math.nan, math.nan, 1.2, 0.25), 20)
    'epoch  3/20  loss 0.4500  1.2 s, 25 % of it waiting for data'
    """
    numbers = [("loss", result.loss), ("validation loss", result.validation_loss)]
    numbers += [("AUC", result.auc), ("accuracy", result.accuracy)]
    shown = "".join(f"  {name} {value:.4f}" for name, value in numbers if not math.isnan(value))
    waiting = "" if math.isnan(result.waiting) else f", {100 * result.waiting:.0f} % of it waiting for data"
    return f"epoch {result.epoch:{len(str(epochs))}}/{epochs}{shown}  {result.seconds:.1f} s{waiting}"


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

    def resume(self, epoch: int, events: int) -> None:
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

    The bar tells the loss of the last batch, the AUC of the last epoch, events/s, the time left in the epoch, and the share of the epoch's
    time that was spent waiting for data.

    Parameters
    ----------
    output : text file
        A terminal.
    """

    def __init__(self, output: TextIO) -> None:
        self._output, self._epochs = output, 0
        self._bars: Bars | None = None
        self._bar: TaskID | None = None
        self._share = self._shown = 0.0
        self._unshown = 0

    def begin(self, epochs: int, events: int) -> None:
        """Show an empty bar."""
        from rich.progress import TextColumn

        from mlaas4hep.progress_bar import event_bar

        self._epochs = epochs
        columns = (TextColumn("loss {task.fields[loss]}{task.fields[metric]}"), TextColumn("{task.fields[waiting]}"))
        self._bars = event_bar(self._output, *columns)
        self._bar = self._bars.add_task(f"epoch 1/{epochs}", total=events, loss="…", metric="", waiting="")
        self._bars.start()

    def advance(self, events: int, loss: float) -> None:
        """Move the bar; not at every batch, since that would take as long as to learn from a small one."""
        self._unshown += events
        now = time.monotonic()
        if now - self._shown >= SHOWN_EVERY:
            self._shown = now
            self._show(loss=f"{loss:.3f}", waiting=f"{self._share:.0%} waiting for data")

    def waiting(self, share: float) -> None:
        """Show it with the next batch."""
        self._share = share

    def resume(self, epoch: int, events: int) -> None:
        """Show the bar of that epoch, as far as it is."""
        if self._bars is not None and self._bar is not None:
            description = f"epoch {min(epoch, self._epochs)}/{self._epochs}"
            self._bars.update(self._bar, completed=events, description=description)

    def note(self, line: str) -> None:
        """Write the line above the bar."""
        if self._bars is not None:
            self._bars.console.print(line, highlight=False, markup=False)
        else:
            self._output.write(line + "\n")

    def epoch(self, result: EpochResult) -> None:
        """Write the epoch's line above the bar, and begin the next one."""
        if self._bars is not None and self._bar is not None:
            self._bars.console.print(describe_epoch(result, self._epochs), highlight=False)
            following = min(result.epoch + 1, self._epochs)
            self._unshown = 0
            metric = "" if math.isnan(result.auc) else f"  AUC {result.auc:.3f}"
            description = f"epoch {following}/{self._epochs}"
            self._bars.reset(self._bar, description=description, loss="…", metric=metric, waiting="")

    def _show(self, **fields: str) -> None:
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, advance=self._unshown, **fields)  # type: ignore[arg-type]
        self._unshown = 0

    def end(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
