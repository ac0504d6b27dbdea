"""The ``mlaas4hep`` command: finds the command that was asked for, runs it, and turns errors into one line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence

from mlaas4hep import __version__
from mlaas4hep.errors import MLaaS4HEPError

__all__ = ["COMMANDS", "main", "run_reporting_errors"]

COMMANDS = {
    "bundle": "mlaas4hep.cli.bundle",
    "cache": "mlaas4hep.cli.cache",
    "demo": "mlaas4hep.cli.demo",
    "inspect": "mlaas4hep.cli.inspect",
    "predict": "mlaas4hep.cli.predict",
    "serve": "mlaas4hep.cli.serve",
    "specs": "mlaas4hep.cli.specs",
    "train": "mlaas4hep.cli.train",
}
"""Name of each command → its module, which has ``HELP``, ``add_arguments(parser)`` and ``run(arguments)``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0, or 2 for an error that the person can mend."""
    parser = argparse.ArgumentParser(
        prog="mlaas4hep",
        description="Machine Learning as a Service for High Energy Physics: stream ROOT data, train a model on it, serve it.",
        epilog="Beside it there are the commands reader.py (look at files), workflow.py (train) and tfaas_client.py (ask a server); each has --help.",
    )
    parser.add_argument("--version", action="version", version=f"mlaas4hep {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, path in COMMANDS.items():
        module = importlib.import_module(path)
        command = commands.add_parser(
            name, help=module.HELP, description=module.HELP[0].upper() + module.HELP[1:] + "."
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, verbose=0)
    arguments = parser.parse_args(argv)
    return run_reporting_errors("mlaas4hep", lambda: arguments.run(arguments), traceback=(arguments.verbose or 0) >= 2)


def run_reporting_errors(program: str, run: Callable[[], int], *, traceback: bool) -> int:
    """Run something and print the errors that a person can mend as one line.

    Parameters
    ----------
    program : str
        What the line begins with.
    run : callable
        Returns the exit status.
    traceback : bool
        Whether to let the errors through with their traceback.

    Returns
    -------
    int
        What ``run`` returned; 2 after an error; 130 after Ctrl-C, 143 after SIGTERM where that is waited for; 141 when whoever reads
        the output has gone.
    """
    try:
        return run()
    except MLaaS4HEPError as error:
        if traceback:
            raise
        # A name of a file or branch may hold line breaks; the message is one line all the same.
        print(f"{program}: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        # A training that was stopped says how to go on, and by which signal it was.
        print(f"{program}: {stopped if stopped.args else 'stopped by the user'}", file=sys.stderr)
        return getattr(stopped, "exit_status", 130)
    except BrokenPipeError:
        # What is still buffered must not raise the same again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
