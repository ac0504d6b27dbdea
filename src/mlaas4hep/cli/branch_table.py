"""The table of branches that ``reader.py --info`` and ``mlaas4hep inspect`` show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from mlaas4hep.streaming.inspection import BranchSummary, Inspection

__all__ = ["SORT_KEYS", "show_branches", "sorted_branches", "sparkline"]

BLOCKS = " ▁▂▃▄▅▆▇█"
SPARK_BINS = 15
LONGEST_NAME = 44
STYLES = {"identifier": "dim", "generator level": "yellow"}


class Shown(NamedTuple):
    """A column of the table: its title, its cells, and which columns go first where the terminal is narrow (the larger)."""

    title: str
    cell: Callable[[BranchSummary], str]
    goes: int


COLUMNS = (
    Shown("type", lambda found: " | ".join(found.types), 5),
    Shown("widest", lambda found: str(found.statistics.widest) if found.jagged else "", 4),
    Shown("empty", lambda found: _share(found.empty_fraction) if found.jagged else "", 7),
    Shown("NaN", lambda found: _share(found.nan_fraction), 6),
    Shown("min", lambda found: _number(found, found.statistics.minimum), 0),
    Shown("max", lambda found: _number(found, found.statistics.maximum), 0),
    Shown("mean", lambda found: _number(found, found.statistics.mean), 1),
    Shown("std", lambda found: _number(found, found.std), 3),
    Shown("median", lambda found: _number(found, found.median), 8),
)

SORT_KEYS: dict[str, Callable[[BranchSummary], float]] = {
    "widest": lambda found: found.statistics.widest,
    "empty": lambda found: found.empty_fraction,
    "nan": lambda found: found.nan_fraction,
    "min": lambda found: found.statistics.minimum,
    "max": lambda found: found.statistics.maximum,
    "mean": lambda found: found.statistics.mean,
    "std": lambda found: found.std,
    "median": lambda found: found.median,
}
"""What branches can be sorted by, beside ``file`` and ``name``; the largest first."""


def sorted_branches(inspection: Inspection, by: str) -> list[str]:
    """Return the names of the branches in some order: that of the file, of the names, or of one of :data:`SORT_KEYS`."""
    names = list(inspection.branches)
    if by == "name":
        return sorted(names, key=lambda name: (name.lower(), name))
    if by == "file":
        return names
    key = SORT_KEYS[by]
    known = {name: key(inspection.branches[name]) for name in names}
    some = {name: inspection.branches[name].statistics.count > 0 for name in names}
    return sorted(names, key=lambda name: (not some[name] and by not in ("empty", "widest"), -known[name]))


def sparkline(found: BranchSummary) -> str:
    """Return a histogram in one line of text.

    Examples
    --------
    >>> from mlaas4hep.streaming.inspection import inspect_files
    >>> sparkline(inspect_files("examples/data/VBF_HToTauTau.root", branches=["nJet"]).branches["nJet"])
    '▁▁▃██▅▂▁▁▁▁▁'
    """
    counts = found.histogram().counts.tolist()
    group = math.ceil(len(counts) / SPARK_BINS)
    parts = [counts[start : start + group] for start in range(0, len(counts), group)]
    heights = [sum(part) / len(part) for part in parts]
    highest = max(heights) or 1
    return "".join(BLOCKS[math.ceil(8 * height / highest)] for height in heights)


def show_branches(inspection: Inspection, names: Sequence[str]) -> None:
    """Print the table: on a terminal with as many columns as it is wide enough for, elsewhere with all."""
    from mlaas4hep.cli.console import on_terminal, show_table

    if on_terminal():
        _show_on_terminal(inspection, names)
        return
    titles = ["branch", *(column.title for column in COLUMNS), "mark"]
    rows = [
        [name, *(column.cell(inspection.branches[name]) for column in COLUMNS), inspection.mark(name)] for name in names
    ]
    show_table(titles, rows, numbers=[title for title in titles if title not in ("branch", "type", "mark")])


def _show_on_terminal(inspection: Inspection, names: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mlaas4hep.cli.console import printable

    console = Console(highlight=False)
    longest = min(LONGEST_NAME, max(map(len, names), default=6))
    cells = {column.title: [column.cell(inspection.branches[name]) for name in names] for column in COLUMNS}
    widths = {title: max(len(title), *map(len, column), 0) for title, column in cells.items()}
    # Two spaces stand between two columns; the picture and the name are always there.
    room = console.width - SPARK_BINS - 3 - min(longest, 26)
    kept = sorted(COLUMNS, key=lambda column: column.goes)
    while kept and sum(widths[column.title] + 2 for column in kept) > room:
        kept.pop()
    shown = [column for column in COLUMNS if column in kept]

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    name_width = console.width - SPARK_BINS - 3 - sum(widths[column.title] + 2 for column in shown)
    table.add_column("branch", no_wrap=True, overflow="ellipsis", width=max(8, min(longest, name_width)))
    for column in shown:
        justify: Literal["left", "right"] = "left" if column.title == "type" else "right"
        table.add_column(column.title, justify=justify, no_wrap=True, width=widths[column.title])
    table.add_column("values", no_wrap=True, width=SPARK_BINS)
    for place, name in enumerate(names):
        style = STYLES.get(inspection.mark(name), "")
        row = [Text(printable(name), style=style or "bold"), *(Text(cells[column.title][place]) for column in shown)]
        table.add_row(*row, Text(sparkline(inspection.branches[name]), style=style or "cyan"))
    console.print(table)
    marks = {inspection.mark(name) for name in names}
    legend = [f"[{style}]{mark}[/]" for mark, style in STYLES.items() if mark in marks]
    hidden = [column.title for column in COLUMNS if column not in kept]
    if hidden:
        legend.append(f"a wider terminal shows {', '.join(hidden)} too")
    if legend:
        console.print("; ".join(legend))


def _number(found: BranchSummary, value: float) -> str:
    if not found.statistics.count:
        return "–"
    return str(int(value)) if found.whole and value.is_integer() and abs(value) < 1e12 else f"{value:.4g}"


def _share(fraction: float) -> str:
    """Return a fraction in percent; what is little is not shown as nothing."""
    if not fraction:
        return "0 %"
    return "<0.1 %" if fraction < 0.001 else f"{100 * fraction:.1f} %"
