"""``reader.py``: what is in a file and how fast it reads, with the options of the original MLaaS4HEP."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlaas4hep.streaming.dataset import Dataset
    from mlaas4hep.streaming.inspection import Inspection
    from mlaas4hep.streaming.statistics.specs import Specs

__all__ = ["main"]

EXAMPLES = """\
examples:
  reader.py --fin=Tau.root --info --verbose=1 --nevts=2000
  reader.py --fin=Tau.root --info --branches='Jet_*' --sort=max
  reader.py --fin=Tau.root --nevts=-1 --fout=specs.json
  reader.py --fin=events.csv                # columns and rows as JSON
"""

IDENTIFIERS = "run,event,luminosityBlock"
SHOWN_VECTORS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process if not given.

    Returns
    -------
    int
        0, or 2 where the input was wrong.
    """
    options = _parser().parse_args(argv)
    from mlaas4hep.cli.main import run_reporting_errors

    return run_reporting_errors("reader.py", lambda: _run(options), traceback=options.verbose >= 2)


def _run(options: argparse.Namespace) -> int:
    _check(options)
    from mlaas4hep.streaming.statistics.specs import Specs

    known = Specs.read(options.specs) if options.specs else None
    inspection = _inspect(options) if options.hists or (options.info and known is None) else None
    if not options.info:
        _read(options, known)
    else:
        if inspection is not None:
            _show_inspection(options, *inspection)
        if known is not None:
            _show_specs(options, known)
        if options.fout:
            _write_specs(options, known or _open(options).specs)
    if inspection is not None and options.hists:
        _draw(inspection[0])
    return 0


def _check(options: argparse.Namespace) -> None:
    from mlaas4hep.errors import SettingError

    if options.nevts < 1 and options.nevts != -1:
        raise SettingError("nevts", "an integer ≥ 1, or -1 for all", options.nevts)
    if options.chunk_size < 1:
        raise SettingError("chunk-size", "an integer ≥ 1", options.chunk_size)


def _inspect(options: argparse.Namespace) -> tuple[Inspection, str]:
    """Make the first pass; return what it found, and the line that says what memory it took."""
    from mlaas4hep.cli.console import progress_of_events
    from mlaas4hep.streaming.inspection import inspect_files
    from mlaas4hep.streaming.inspection.first_pass import MemoryUse

    before = MemoryUse.now()
    with progress_of_events("First pass") as progress:
        inspection = inspect_files(options.fin, progress=progress, **_what_to_read(options))
    return inspection, MemoryUse.now().grown_since(before)


def _open(options: argparse.Namespace, specs: Specs | None = None) -> Dataset:
    """Open the files as a dataset; the branches are those of the specs where none are named."""
    import mlaas4hep
    from mlaas4hep.streaming.access.sources import read_list

    choice = _what_to_read(options)
    if specs is not None and choice["branches"] is None:
        choice["branches"] = [*specs.flat, *specs.jagged]
    identifiers = None if options.identifier == IDENTIFIERS else read_list(options.identifier)
    return mlaas4hep.open(options.fin, identifiers=identifiers, **choice)


def _what_to_read(options: argparse.Namespace) -> dict[str, Any]:
    from mlaas4hep.streaming.access.sources import read_list

    return {
        "tree": options.branch,
        "dtype": options.dtype or None,
        "branches": read_list(options.branches) if options.branches else None,
        "exclude": read_list(options.exclude_branches),
        "max_events": options.nevts,
        "redirector": options.redirector,
        "on_bad_file": options.on_bad_file,
        "checksums": options.checksums or None,
        "preproc": options.preproc or None,
    }


def _show_inspection(options: argparse.Namespace, inspection: Inspection, memory: str) -> None:
    from mlaas4hep.cli.branch_table import show_branches, sorted_branches
    from mlaas4hep.cli.console import on_terminal
    from mlaas4hep.streaming.access.sources import read_list
    from mlaas4hep.streaming.inspection.first_pass import info_lines

    if options.json:
        print(json.dumps(inspection.to_dict(), allow_nan=False))
        return
    for line in info_lines(inspection, read_list(options.identifier), memory, ranges=options.verbose > 0):
        print(line)
    if on_terminal():
        print()
        show_branches(inspection, sorted_branches(inspection, options.sort))
    _say_losses(inspection)


def _show_specs(options: argparse.Namespace, specs: Specs) -> None:
    from mlaas4hep.streaming.inspection.first_pass import range_lines

    if options.json:
        print(json.dumps(specs.to_dict()))
        return
    print(f"Specs of {specs.ranges.events} events from {options.specs}")
    options.nevts = -1
    for line in range_lines(specs, _open(options, specs).events, ranges=options.verbose > 0):
        print(line)


def _read(options: argparse.Namespace, known: Specs | None) -> None:
    """Read the events and say how fast that was: as vectors, or as rows of the columns where the file is no ROOT file."""
    from mlaas4hep.cli.console import progress_of_events
    from mlaas4hep.streaming.inspection.first_pass import holds_rows, read_events

    dataset = _open(options, known)
    if holds_rows(dataset) and not options.json:
        _show_rows(options, dataset)
        if options.fout:
            _write_specs(options, dataset.specs)
        return
    with progress_of_events("First pass") as progress:
        specs = known or dataset.compute_specs(progress)
    shown = SHOWN_VECTORS if options.verbose >= 2 and not options.json else 0
    with progress_of_events("Reading") as progress:
        rate = read_events(
            dataset,
            specs,
            options.chunk_size,
            progress,
            lambda place, vector: print(_vector(place, vector, options.nan)),
            shown,
        )
    print(json.dumps(rate._asdict()) if options.json else rate)
    if rate.cut_values:
        print(f"reader.py: {rate.cut_values} values did not fit into the widths of the specs", file=sys.stderr)
    _say_losses(dataset)
    if options.fout:
        _write_specs(options, specs)


def _show_rows(options: argparse.Namespace, dataset: Dataset) -> None:
    """Print the columns, then each event as a list."""
    from mlaas4hep.cli.console import Stopwatch, printable
    from mlaas4hep.streaming.inspection.first_pass import ReadingRate, rows

    for name, why in dataset.excluded.items():
        if name not in dataset.catalog.columns and why.startswith("holds"):
            print(printable(f"reader.py: column '{name}' is left out: it {why}"), file=sys.stderr)
    clock = Stopwatch()
    columns, events = rows(dataset)
    print(json.dumps(columns))
    count = 0
    for count, row in enumerate(events, start=1):  # noqa: B007 - how many there were is wanted afterwards
        print(json.dumps([_plain(value, options.nan) for value in row]))
    print(ReadingRate(count, clock.seconds))
    _say_losses(dataset)


def _vector(place: int, vector: Any, nan: float) -> str:
    values = [_plain(value, nan) for value in vector.tolist()]
    return f"# idx={place} shape=({len(values)},) {json.dumps(values)}"


def _plain(value: Any, nan: float) -> Any:
    """Return a value for JSON: in place of NaN what ``--nan`` says, and null for what JSON has no word for."""
    if isinstance(value, list):
        return [_plain(one, nan) for one in value]
    if isinstance(value, float):
        value = nan if math.isnan(value) else value
        return value if math.isfinite(value) else None
    return value


def _write_specs(options: argparse.Namespace, specs: Specs) -> None:
    from mlaas4hep.cli.console import reporting_write_errors

    with reporting_write_errors("fout", Path(options.fout)):
        specs.write(options.fout)


def _draw(inspection: Inspection) -> None:
    from mlaas4hep.cli.console import progress_of_events, reporting_write_errors
    from mlaas4hep.streaming.inspection.plots import draw_histograms

    folder = Path("pdfs")
    with reporting_write_errors("hists", folder), progress_of_events("Drawing", unit="branches") as progress:
        drawn = draw_histograms(inspection, folder, "pdf", suffix="_orig", progress=progress)
    print(f"{len(drawn)} histograms in {folder}", file=sys.stderr)


def _say_losses(found: Dataset | Inspection) -> None:
    if len(found.losses):
        print(found.losses, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    from mlaas4hep.cli.branch_table import SORT_KEYS

    parser = argparse.ArgumentParser(
        prog="reader.py",
        description="Show what is in a file, and read its events.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--fin", required=True, help="the file: a path, URL or /store/… name; or several, as of mlaas4hep inspect")
    add("--fout", default="", help="file for the specs (JSON)")
    add("--preproc", default="", help="Python file with 'def preprocessing(rec)'; it is executed")
    add("--nan", type=float, default=math.nan, help="what is printed where an event has no value (default: null)")
    add("--branch", "--tree", default="Events", help="name of the tree (default: %(default)s)")
    add("--identifier", default=IDENTIFIERS, help="branches that identify an event (default: %(default)s)")
    add("--branches", default="", help="names or patterns of branches to read, or a file of them (default: all)")
    add("--exclude-branches", default="", help="names or patterns of branches to leave out, or a file of them")
    add("--nevts", type=int, default=5, help="events to read, -1 for all (default: %(default)s)")
    add("--chunk-size", type=int, default=1000, help="events of a batch (default: %(default)s)")
    add("--specs", default="", help="specs file to use in place of a first pass")
    add("--redirector", default="root://cms-xrd-global.cern.ch", help="what is put before /store/… names")
    add("--info", action="store_true", help="show what is in the file; on a terminal as a table too")
    add("--sort", default="file", choices=("file", "name", *SORT_KEYS), help="order of that table")
    add("--json", action="store_true", help="print the information, or the rate, as JSON")
    add("--hists", action="store_true", help="draw a histogram of each branch into the folder pdfs")
    add(
        "--verbose", type=int, default=0, help="1: a line for each branch; 2: some events too, and tracebacks of errors"
    )
    add("--dtype", default="", help="format of the file, whatever its extension: root, json, csv, parquet, avro, …")
    add("--checksums", default="", help="compare the file with this list first, as sha256sum writes it")
    add(
        "--on-bad-file",
        default="fail",
        choices=("fail", "skip", "quarantine"),
        help="of several (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
