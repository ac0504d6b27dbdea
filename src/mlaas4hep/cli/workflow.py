"""``workflow.py``: train a model on ROOT files, with the options of the original MLaaS4HEP."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mlaas4hep.errors import MLaaS4HEPError

__all__ = ["main"]

EXAMPLES = """\
examples:
  workflow.py --files=files.txt --labels=labels.txt --test=pytorch --fout=higgs.tar.gz
  workflow.py --files=signal.root,background.root --labels=1,0 --model=my_model.py --params=params.json
  workflow.py --files=files.txt                    # specs and reading rates only
  workflow.py --files=files.txt --test=pytorch     # no labels: anomaly detection
"""


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

    return run_reporting_errors("workflow.py", lambda: _run(options), traceback=_wants_traceback(options))


def _run(options: argparse.Namespace) -> int:
    from mlaas4hep.training.classic import WorkflowOptions, run_workflow
    from mlaas4hep.training.progress import progress_for

    values = {name: value for name, value in vars(options).items() if name != "verbose"}
    run_workflow(WorkflowOptions(**values), print, progress_for())
    return 0


def _wants_traceback(options: argparse.Namespace) -> bool:
    """Return whether the command line or the parameters ask for it; parameters that cannot be read do not."""
    from mlaas4hep.training.classic import read_params

    verbose: int = options.verbose
    try:
        return max(verbose, read_params(options.params).verbose) >= 2
    except MLaaS4HEPError:
        return verbose >= 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workflow.py",
        description="Read ROOT files, train a model on them, and write it as a bundle.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--files", required=True, help="file with names of files (# for comments), or comma-separated list")
    add("--labels", default="", help="file with one label per input file, comma-separated list, or name of a branch")
    add("--model", default="", help="Python file with 'def model(idim)', see the documentation for what it may return")
    add("--params", default="", help="parameters (default: params.json, where there is one)")
    add("--specs", default="", help="specs file to use (default: global-specs.json, where there is one that fits)")
    add("--preproc", default="", help="Python file with 'def preprocessing(rec)': changes columns before all else")
    add(
        "--dtype",
        default="",
        help="format of the files, whatever their extensions: root, json, csv, parquet, avro, arrow or hdf5",
    )
    add(
        "--missing-branch",
        default="",
        choices=("error", "fill", "intersect"),
        help="what to do about a branch that some files lack: an error, take it as absent there, or leave it out",
    )
    add(
        "--on-bad-file",
        default="",
        choices=("fail", "skip", "quarantine"),
        help="what to do about a file that cannot be read: an error, go on without the events concerned, or without the file",
    )
    add("--checksums", default="", help="file as sha256sum writes it: every input file is compared once")
    add("--fout", default="", help="where the trained model goes: NAME.tar.gz, or a folder")
    add("--test", default="", help="train a built-in example: pytorch or keras")
    add("--verbose", type=int, default=0, help="2 shows the traceback of an error")
    return parser


if __name__ == "__main__":
    sys.exit(main())
