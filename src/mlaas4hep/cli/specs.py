"""``mlaas4hep specs diff``: what changed between two files of specs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlaas4hep.streaming.statistics.specs_diff import SpecsChange

__all__ = ["HELP", "add_arguments", "run"]

HELP = "compare files of specs: mlaas4hep specs diff a.json b.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    says = "show what changed from one file of specs to another; exit status 0: nothing, 1: something, 2: an error"
    diff = commands.add_parser("diff", help=says, description=says[0].upper() + says[1:] + ".")
    diff.add_argument("before", metavar="A.json", help="the one")
    diff.add_argument("after", metavar="B.json", help="the other")
    diff.add_argument(
        "--tolerance",
        type=float,
        default=1e-9,
        metavar="X",
        help="relative difference of ranges, means and spreads that counts as none (default: %(default)s)",
    )
    diff.add_argument("--json", action="store_true", help="print the changes as JSON")
    # The outer parser's default, which stands in arguments already, must not be overwritten.
    diff.add_argument(
        "--verbose",
        type=int,
        nargs="?",
        const=1,
        choices=(0, 1, 2),
        default=argparse.SUPPRESS,
        help="2: show the traceback of an error",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare the files; 1 if something changed."""
    from mlaas4hep.errors import SettingError
    from mlaas4hep.streaming.statistics.specs import Specs
    from mlaas4hep.streaming.statistics.specs_diff import compare_specs

    if not 0 <= arguments.tolerance < 1:
        raise SettingError("tolerance", "a number ≥ 0 and < 1", arguments.tolerance)
    changes = compare_specs(Specs.read(arguments.before), Specs.read(arguments.after), arguments.tolerance)
    if arguments.json:
        print(
            json.dumps(
                {
                    "before": arguments.before,
                    "after": arguments.after,
                    "changes": [change.to_dict() for change in changes],
                }
            )
        )
    elif changes:
        _show(changes)
    else:
        print("the specs are equal")
    return 1 if changes else 0


def _show(changes: Sequence[SpecsChange]) -> None:
    from mlaas4hep.cli.console import show_table

    whole = {"all": "all files", "file": "file", "setting": "setting", "branch": "branch"}
    rows = [
        (f"{whole[one.part]} {one.name}".rstrip(), _what(one), _text(one.before), _text(one.after)) for one in changes
    ]
    show_table(("of", "what", "before", "after"), rows)
    branches = {change.name for change in changes if change.part == "branch"}
    print(f"{len(changes)} change{'s' * (len(changes) != 1)}, {len(branches)} branch{'es' * (len(branches) != 1)}")


def _what(change: SpecsChange) -> str:
    if change.before is None and change.part in ("file", "branch"):
        return "came"
    return "went" if change.after is None and change.part in ("file", "branch") else change.what


def _text(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.10g}"
    return value if isinstance(value, str) else json.dumps(value)
