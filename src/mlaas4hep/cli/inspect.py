"""``mlaas4hep inspect``: what the branches of files look like."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlaas4hep.streaming.inspection import Inspection

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show what is in files: types, ranges and histograms of their branches"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    from mlaas4hep.cli.branch_table import SORT_KEYS

    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="files, folders, patterns, URLs, or a text file with their names")
    add("--tree", default="Events", help="name of the tree (default: %(default)s)")
    add("--branches", metavar="LIST", help="names or patterns ('Jet_*,MET_pt') of the branches, or a file of them")
    add("--exclude-branches", default="", metavar="LIST", help="names or patterns of branches to leave out, or a file")
    add(
        "--nevts", type=int, default=-1, metavar="N", help="events to read, from each file in proportion (default: all)"
    )
    add(
        "--sort",
        default="file",
        choices=("file", "name", *SORT_KEYS),
        help="order of the branches; numbers largest first (default: as in the file)",
    )
    add("--json", action="store_true", help="print everything as JSON")
    add("--html", type=Path, metavar="PAGE", help="write a page that needs nothing beside it")
    add("--hists", type=Path, metavar="DIR", help="draw a histogram of each branch into a folder")
    add("--format", default="png", choices=("png", "pdf"), help="of these histograms (default: %(default)s)")
    add("--dtype", help="format of the files, whatever their extensions: root, parquet, arrow, csv, json, avro or hdf5")
    add("--redirector", help="what is put before /store/… names")
    add("--checksums", metavar="FILE", help="compare the files with this list first, as sha256sum writes it")
    add(
        "--on-bad-file",
        default="fail",
        choices=("fail", "skip", "quarantine"),
        help="what to do with a file that cannot be read (default: %(default)s)",
    )
    add("--verbose", type=int, nargs="?", const=1, choices=(0, 1, 2), help="2: show the traceback of an error")


def run(arguments: argparse.Namespace) -> int:
    """Read the files and show what was found."""
    from mlaas4hep.cli.branch_table import show_branches, sorted_branches
    from mlaas4hep.cli.console import progress_of_events
    from mlaas4hep.streaming.access.sources import DEFAULT_REDIRECTOR, find_files, read_list
    from mlaas4hep.streaming.inspection import inspect_files

    redirector = arguments.redirector or DEFAULT_REDIRECTOR
    with progress_of_events("Reading") as progress:
        found = inspect_files(
            [file.name for name in arguments.files for file in find_files(name, redirector)],
            tree=arguments.tree,
            dtype=arguments.dtype,
            branches=read_list(arguments.branches) if arguments.branches else None,
            exclude=read_list(arguments.exclude_branches),
            max_events=arguments.nevts,
            redirector=redirector,
            on_bad_file=arguments.on_bad_file,
            checksums=arguments.checksums,
            progress=progress,
        )
    written = _write(arguments, found)
    if arguments.json:
        print(json.dumps(found.to_dict() | {"written": written}, allow_nan=False))
        return 0
    _show_files(found)
    show_branches(found, sorted_branches(found, arguments.sort))
    _show_skipped(found)
    if len(found.losses):
        print(found.losses)
    for line in written:
        print(line)
    return 0


def _write(arguments: argparse.Namespace, found: Inspection) -> list[str]:
    """Write the page and the histograms that were asked for; return their names."""
    from mlaas4hep.cli.console import progress_of_events, reporting_write_errors

    written = []
    if arguments.html:
        from mlaas4hep.atomic import write_atomically
        from mlaas4hep.streaming.inspection.page import report_page

        with reporting_write_errors("html", arguments.html):
            write_atomically(arguments.html, report_page(found).encode())
        written.append(str(arguments.html))
    if arguments.hists:
        from mlaas4hep.streaming.inspection.plots import draw_histograms

        with (
            reporting_write_errors("hists", arguments.hists),
            progress_of_events("Drawing", unit="branches") as progress,
        ):
            draw_histograms(found, arguments.hists, arguments.format, progress=progress)
        written.append(str(arguments.hists))
    return written


def _show_files(found: Inspection) -> None:
    from mlaas4hep.cli.console import show_table

    rows = [
        (
            file.name,
            file.tree,
            f"{file.entries:,}",
            f"{file.events:,}",
            "" if file.size < 0 else f"{file.size / 1e6:,.1f}",
        )
        for file in found.files[:20]
    ]
    show_table(("file", "tree", "events", "read", "MB"), rows, numbers=("events", "read", "MB"))
    if len(found.files) > len(rows):
        print(f"… and {len(found.files) - len(rows)} more files")
    rate, speed = found.events / found.seconds, found.nbytes / 1e6 / found.seconds
    print(
        f"{found.events:,} of {found.entries:,} events, {len(found.branches)} branches, "
        f"{found.seconds:.2f} s, {rate:,.0f} events/s, {speed:,.1f} MB/s\n"
    )


def _show_skipped(found: Inspection) -> None:
    from mlaas4hep.cli.console import printable

    if found.skipped:
        shown = [f"{name} ({why})" for name, why in list(found.skipped.items())[:8]]
        more = f" and {len(found.skipped) - len(shown)} more" if len(found.skipped) > len(shown) else ""
        print(printable(f"left out, since they hold no numbers: {', '.join(shown)}{more}"))
