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
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--out", metavar="SCORES", help="one file for the scores of all, .root, .parquet or .csv; one row an event"
    )
    where.add_argument(
        "--out-dir", metavar="FOLDER", help="a folder for one file of scores an input, as a friend of its tree"
    )
    parser.add_argument("--suffix", default=".scores", help="of the names in that folder (default: %(default)s)")
    parser.add_argument(
        "--format",
        choices=("root", "parquet", "csv"),
        default="root",
        help="of the files in that folder (default: root)",
    )
    parser.add_argument("--resume", action="store_true", help="leave outputs that are whole as they are")
    parser.add_argument(
        "--branches", default="", metavar="A,B", help="columns to copy beside the scores, one value an event each"
    )
    parser.add_argument("--tree", help="name of the tree (default: that of the training data)")
    parser.add_argument("--dtype", help="format of the files, whatever their extensions")
    parser.add_argument("--redirector", help="what is put before /store/… names")
    parser.add_argument(
        "--no-selection", action="store_true", help="score the events too that the selection of the training rejects"
    )
    parser.add_argument(
        "--lumi-mask", metavar="JSON", help="certification file: other luminosity sections get no scores"
    )
    parser.add_argument(
        "--preproc", metavar="FILE.py", help="the file that the training preprocessed events with; it is executed"
    )
    parser.add_argument(
        "--allow-preprocessing",
        action="store_true",
        help="execute the bundle's own copy of that file: its maker's code",
    )
    parser.add_argument(
        "--missing-branch",
        choices=("error", "fill"),
        default="error",
        help="what to do about a feature that some files lack (default: error)",
    )
    parser.add_argument(
        "--on-bad-file",
        choices=("fail", "skip", "quarantine"),
        default="fail",
        help="what to do with a file that cannot be read (default: fail); its events get no scores, and are named at the end",
    )
    parser.add_argument("--checksums", metavar="LIST", help="compare every input with a list as of sha256sum first")
    parser.add_argument("--threads", type=int, default=1, help="threads that encode and predict (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument(
        "--verbose", type=int, nargs="?", const=1, choices=(0, 1, 2), help="2: show the traceback of an error"
    )


def run(arguments: argparse.Namespace) -> int:
    """Score the files and say what was done."""
    import sys

    from mlaas4hep.cli.console import progress_of_events
    from mlaas4hep.inference.predictor import predict_files
    from mlaas4hep.streaming.access.sources import DEFAULT_REDIRECTOR, expand_files

    redirector = arguments.redirector or DEFAULT_REDIRECTOR
    files = [file for name in arguments.files for file in expand_files(name, redirector)]
    with progress_of_events("Scoring") as progress:
        summary = predict_files(
            arguments.model,
            files,
            arguments.out,
            out_dir=arguments.out_dir,
            suffix=arguments.suffix,
            format=arguments.format,
            branches=[name.strip() for name in arguments.branches.split(",") if name.strip()],
            lumi_mask=arguments.lumi_mask,
            resume=arguments.resume,
            threads=arguments.threads,
            progress=progress,
            tree=arguments.tree,
            dtype=arguments.dtype,
            redirector=redirector,
            selection=not arguments.no_selection,
            preproc=arguments.preproc,
            allow_preprocessing=arguments.allow_preprocessing,
            missing_branch=arguments.missing_branch,
            on_bad_file=arguments.on_bad_file,
            checksums=arguments.checksums,
        )
    for note in summary.notes:
        print(f"mlaas4hep: {note}", file=sys.stderr)
    if len(summary.losses):
        print(summary.losses, file=sys.stderr)
    if arguments.json:
        import json

        print(json.dumps({"out": arguments.out or arguments.out_dir, **summary.to_dict()}))
        return 0
    where = arguments.out or f"{arguments.out_dir}, {len(summary.outputs)} file{'s' * (len(summary.outputs) != 1)}"
    rate = summary.events / summary.seconds
    print(f"{where}: scores of {summary.events} events, {summary.seconds:.2f} s, {rate / 1000:.0f} thousand events/s")
    if summary.done_before:
        print(f"{len(summary.done_before)} files of scores were there already")
    if summary.selected < summary.events:
        print(
            f"{summary.events - summary.selected} events have no scores: they were not selected, or could not be read"
        )
    if summary.unproven:
        print(
            f"{summary.unproven} events got the mean of all models (fold -1): which of them has seen the event cannot be told"
        )
    if summary.cut_values:
        print(f"{summary.cut_values} values were left out: events with more objects than the model was trained with")
    return 0
