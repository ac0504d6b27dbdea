"""``mlaas4hep predict``: scores for files."""

from __future__ import annotations

import argparse

__all__ = ["HELP", "add_arguments", "run"]

HELP = "score every event of some files with a bundle, the same numbers as the server's"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--model", required=True, metavar="BUNDLE", help="the bundle: a .tar.gz or a folder")
    parser.add_argument(
        "--files",
        required=True,
        nargs="+",
        metavar="FILE",
        help="ROOT files, folders, patterns, URLs, or a text file with their names",
    )
    parser.add_argument(
        "--out", required=True, metavar="SCORES", help="file for the scores, .root or .parquet; one row an event"
    )
    parser.add_argument("--tree", help="name of the tree (default: that of the training data)")
    parser.add_argument("--redirector", help="what is put before /store/… names")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument(
        "--verbose", type=int, nargs="?", const=1, choices=(0, 1, 2), help="2: show the traceback of an error"
    )


def run(arguments: argparse.Namespace) -> int:
    """Score the files and say what was done."""
    from mlaas4hep.cli.console import progress_of_events
    from mlaas4hep.inference.predictor import predict_files
    from mlaas4hep.streaming.sources import DEFAULT_REDIRECTOR, expand_files

    redirector = arguments.redirector or DEFAULT_REDIRECTOR
    files = [file for name in arguments.files for file in expand_files(name, redirector)]
    with progress_of_events("Scoring") as progress:
        summary = predict_files(
            arguments.model, files, arguments.out, tree=arguments.tree, redirector=redirector, progress=progress
        )
    rate = summary.events / summary.seconds
    if arguments.json:
        import json

        print(
            json.dumps(
                {
                    "out": arguments.out,
                    "events": summary.events,
                    "cut_values": summary.cut_values,
                    "seconds": summary.seconds,
                }
            )
        )
        return 0
    print(
        f"{arguments.out}: scores of {summary.events} events, {summary.seconds:.2f} s, {rate / 1000:.0f} thousand events/s"
    )
    if summary.cut_values:
        print(f"{summary.cut_values} values were left out: events with more objects than the model was trained with")
    return 0
