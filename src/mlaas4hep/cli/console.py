"""What commands show: tables and progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

__all__ = ["EventProgress", "Stopwatch", "heading", "on_terminal", "progress_bar", "progress_of_events", "show_table"]


def on_terminal() -> bool:
    """Whether a person watches the output."""
    return sys.stdout.isatty()


def heading(text: str) -> None:
    """Print the title of a step."""
    if on_terminal():
        from rich.console import Console

        Console(highlight=False).print(f"\n[bold cyan]{text}[/]")
    else:
        print(f"\n{text}")


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = ()) -> None:
    """Print a table.

    Parameters
    ----------
    columns : sequence of str
        Titles.
    rows : sequence of sequence of str
        Cells.
    numbers : sequence of str
        Titles of the columns that are aligned to the right.
    """
    if on_terminal():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in columns:
            table.add_column(title, justify="right" if title in numbers else "left")
        for row in rows:
            table.add_row(*row)
        Console(highlight=False).print(table)
        return
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        cells = [
            cell.rjust(width) if title in numbers else cell.ljust(width)
            for cell, width, title in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


class EventProgress(Protocol):
    """Is told how many events are done, and of how many."""

    def __call__(self, done: int, total: int) -> None:
        """Take note of the number of events done and of all."""


@contextmanager
def progress_bar(description: str, unit: str = "events") -> Iterator[tuple[Bar, str]]:
    """Give a progress bar that shows the rate in some unit and the time left, and vanishes at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Rate of a task, in thousands."""

        def render(self, task: Task) -> Text:
            """Return the rate as text."""
            return Text(f"{(task.finished_speed or task.speed or 0) / 1000:,.0f} k {unit}/s")

    bar = Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), Rate(), TimeRemainingColumn(), transient=True,
        console=Console(),
    )  # fmt: skip
    with bar:
        yield bar, description


@contextmanager
def progress_of_events(description: str) -> Iterator[EventProgress]:
    """Show how a pass over events goes on; on a terminal a bar, elsewhere nothing.

    Gives a function that takes the number of events done and of all.
    """
    if not on_terminal():
        yield lambda done, total: None
        return
    with progress_bar(description) as (bar, text):
        task = bar.add_task(text, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far; never 0, so that rates can be divided by it."""
        return max(time.perf_counter() - self._start, 1e-9)
