"""How far a long pass over events is: a bar with events/s, MB/s and the time left on a terminal, a line now and then in a log.

Both go to standard error, so that what a command prints can be piped away meanwhile. A pass that is over before the first line is due says nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

__all__ = ["LINE_SECONDS", "Advance", "describe_progress", "event_bar", "event_progress", "rate_column"]

LINE_SECONDS = 30.0
"""Between two lines in a log."""


class Advance(Protocol):
    """Is told how many events are done, of how many, and how many bytes they were."""

    def __call__(self, done: int, total: int, nbytes: int = 0) -> None:
        """Take note of the events done and of all, and of the bytes read so far; 0 where they are not counted."""


def describe_progress(
    description: str, done: int, total: int, nbytes: int, seconds: float, unit: str = "events"
) -> str:
    """Return the state of a pass in one line.

    Examples
    --------
    >>> describe_progress("Reading", 250_000, 1_000_000, 500_000_000, 10.0)
    'Reading: 250,000 of 1,000,000 events (25 %), 25,000 events/s, 50.0 MB/s, 30 s left'
    """
    rate = done / seconds
    speed = f", {nbytes / 1e6 / seconds:.1f} MB/s" if nbytes else ""
    left = f", {(total - done) / rate:.0f} s left" if rate else ""
    return f"{description}: {done:,} of {total:,} {unit} ({100 * done // max(total, 1)} %), {rate:,.0f} {unit}/s{speed}{left}"


def rate_column() -> ProgressColumn:
    """Return a column of a bar that shows the rate of a task: events/s, and MB/s where the task has a field ``nbytes``."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        """Rate of a task."""

        def render(self, task: Task) -> Text:
            """Return the rate as text."""
            speed = task.finished_speed or task.speed or 0.0
            unit = task.fields.get("unit", "events")
            shown = f"{speed / 1000:,.0f} k {unit}/s" if speed >= 10_000 else f"{speed:,.0f} {unit}/s"
            nbytes = task.fields.get("nbytes", 0)
            if nbytes and task.completed:
                shown += f"  {nbytes / task.completed * speed / 1e6:,.1f} MB/s"
            return Text(shown, style="cyan")

    return Rate()


def event_bar(output: TextIO, *columns: ProgressColumn) -> Progress:
    """Return a bar for a terminal, not started, that goes away at its end.

    Parameters
    ----------
    output : text file
        The terminal.
    *columns : ProgressColumn
        What stands between the percentage and the rate.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}%"),
        *columns,
        rate_column(),
        TimeRemainingColumn(),
        console=Console(file=output),
        transient=True,
        expand=True,
    )


@contextmanager
def event_progress(description: str, output: TextIO | None = None, unit: str = "events") -> Iterator[Advance]:
    """Show how a pass over events goes on, until the end of a ``with`` block.

    Parameters
    ----------
    description : str
        What is done.
    output : text file, optional
        Where to; standard error when not given.
    unit : str
        What is counted.

    Yields
    ------
    Advance
        To be called with the number of events done and of all, and the bytes read.
    """
    output = output or sys.stderr
    if output.isatty():
        with event_bar(output) as bar:
            task = bar.add_task(description, total=None, nbytes=0, unit=unit)

            def show(done: int, total: int, nbytes: int = 0) -> None:
                bar.update(task, completed=done, total=total, nbytes=nbytes)

            yield show
        return

    started = last = time.monotonic()

    def write(done: int, total: int, nbytes: int = 0) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            print(describe_progress(description, done, total, nbytes, now - started, unit), file=output, flush=True)

    yield write
