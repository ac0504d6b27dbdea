"""What commands show: tables and progress bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mlaas4hep.errors import SettingError
from mlaas4hep.progress_bar import event_progress as progress_of_events

__all__ = [
    "Stopwatch",
    "heading",
    "on_terminal",
    "printable",
    "progress_of_events",
    "reporting_write_errors",
    "show_table",
]


def on_terminal() -> bool:
    """Whether a person watches the output."""
    return sys.stdout.isatty()


def printable(text: str) -> str:
    r"""Return a text that comes from a file without what a terminal would take for a command.

    Examples
    --------
    >>> printable("Jet_pt\x1b[2J")
    'Jet_pt�[2J'
    """
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


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
        Cells; what they hold is shown as it is, and is no markup.
    numbers : sequence of str
        Titles of the columns that are aligned to the right.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if on_terminal():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in columns:
            table.add_column(title, justify="right" if title in numbers else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        Console(highlight=False).print(table)
        return
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        cells = [
            cell.rjust(width) if title in numbers else cell.ljust(width)
            for cell, width, title in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far; never 0, so that rates can be divided by it."""
        return max(time.perf_counter() - self._start, 1e-9)


@contextmanager
def reporting_write_errors(option: str, path: Path) -> Iterator[None]:
    """Turn an error of the file system into one line that names the option and the path.

    Raises
    ------
    SettingError
        In place of an ``OSError``.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise SettingError(option, f"a place that can be written ({error.strerror or error})", str(path)) from error
