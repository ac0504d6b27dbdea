"""``mlaas4hep bundle``: show, verify and export bundles."""

from __future__ import annotations

import argparse
import json

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show what a bundle is, verify that it is whole, or export it: mlaas4hep bundle show|verify|export BUNDLE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = _command(commands, "show", "show what the manifest of a bundle says", _show)
    show.add_argument("--card", action="store_true", help="print the model card (Markdown)")
    _command(
        commands, "verify", "check every file, run every graph, and compare the scores of the example events", _verify
    )
    export = _command(commands, "export", "write the model as other programs take it", _export)
    export.add_argument(
        "--format",
        required=True,
        metavar="FORMAT",
        help="triton (a model repository) or torch (a .pt2 file for torch.export.load)",
    )
    export.add_argument("--out", required=True, help="where to: the repository, or the file")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for."""
    return int(arguments.act(arguments))


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, says: str, act: object
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=says, description=says[0].upper() + says[1:] + ".")
    parser.add_argument("bundle", metavar="BUNDLE", help="a .tar.gz or a folder")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    # The outer parser's default, which stands in arguments already, must not be overwritten.
    parser.add_argument(
        "--verbose",
        type=int,
        nargs="?",
        const=1,
        choices=(0, 1, 2),
        default=argparse.SUPPRESS,
        help="2: show the traceback of an error",
    )
    parser.set_defaults(act=act)
    return parser


def _show(arguments: argparse.Namespace) -> int:
    from mlaas4hep.bundle.card import model_card
    from mlaas4hep.bundle.reader import Bundle
    from mlaas4hep.cli.console import show_table

    with Bundle.open(arguments.bundle) as bundle:
        manifest, encoding = bundle.manifest, bundle.encoding
        if arguments.card:
            print(model_card(manifest, encoding, str(bundle.params.get("description", ""))))
            return 0
        if arguments.json:
            print(json.dumps(manifest.to_dict()))
            return 0
        parity, data = manifest.parity, manifest.data
        files = data.get("files") or ()
        facts = {
            "name": manifest.name,
            "description": str(bundle.params.get("description", "")),
            "created": manifest.created,
            "framework": f"{manifest.framework} {manifest.versions.get(manifest.framework, '')}".rstrip(),
            "input": f"features, float32 [batch, {encoding.width}], layout {encoding.layout}",
            "output": f"{manifest.output}, float32 [batch, {len(manifest.labels)}]: {', '.join(manifest.labels)}",
            "parity": f"{parity.largest_difference:.2g} on {parity.events} events",
            "trained on": f"{len(files)} file{'s' * (len(files) != 1)}, {_events(files)} events before any selection",
            "selection": json.dumps(data["selection"], ensure_ascii=False) if data.get("selection") else "",
            "preprocessing": json.dumps(data["preprocessing"], ensure_ascii=False) if data.get("preprocessing") else "",
            "k-fold": "" if manifest.k_fold is None else f"{manifest.k_fold.folds} models, by {manifest.k_fold.kind}",
            "files": ", ".join(sorted(manifest.sha256)),
        }
        show_table(("what", "is"), [(name, value) for name, value in facts.items() if value])
        rows = [
            (feature.branch, "list" if feature.jagged else "one value", str(feature.width))
            for feature in encoding.features
        ]
        print()
        show_table(("feature", "holds", "places"), rows, numbers=("places",))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    import dataclasses

    from mlaas4hep.bundle.verify import verify_bundle

    found = verify_bundle(arguments.bundle)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found)))
        return 0
    graphs = f"{found.graphs} graph{'s' * (found.graphs != 1)}"
    compared = (
        f"the scores of {found.events} example events differ by at most {found.largest_difference:.2g}"
        if found.events
        else "it has no example events to compare"
    )
    print(f"{arguments.bundle}: {found.files} files are those that were written, {graphs} run, {compared}")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from mlaas4hep.bundle.export import export_bundle
    from mlaas4hep.bundle.reader import Bundle

    with Bundle.open(arguments.bundle) as bundle:
        written = export_bundle(bundle, arguments.format, arguments.out)
        mean = bundle.k_fold is not None
    if arguments.json:
        print(json.dumps({"written": str(written), "mean_of_folds": mean}))
    else:
        print(f"{written} written" + ("; it gives the mean of all folds' models" if mean else ""))
    return 0


def _events(files: object) -> int:
    return (
        sum(int(file.get("entries", 0)) for file in files if isinstance(file, dict))
        if isinstance(files, list | tuple)
        else 0
    )
