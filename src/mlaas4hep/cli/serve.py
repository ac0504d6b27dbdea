"""``mlaas4hep serve``: the inference server."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["HELP", "add_arguments", "run"]

HELP = "serve trained models over HTTP, to every client of TFaaS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of the models; made if it is not there")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for a free one (default: 8083)")
    parser.add_argument("--host", help="address to listen on, loopback only (default: 127.0.0.1)")
    parser.add_argument("--base", help="prefix of all paths, such as /tfaas")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a config.json of TFaaS; options given here win")
    parser.add_argument(
        "--verbose", type=int, nargs="?", const=1, choices=(0, 1, 2), help="1: a line for each request; 2: more"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until the process is told to stop."""
    from mlaas4hep.inference.server import serve
    from mlaas4hep.inference.settings import ServerSettings

    given = {name: getattr(arguments, name) for name in ("models", "port", "host", "base")}
    given["verbose"] = arguments.verbose or None
    if arguments.config:
        settings = ServerSettings.from_config(arguments.config, **given)
    else:
        chosen = {name: value for name, value in given.items() if value is not None}
        settings = ServerSettings(**{"models": Path("models"), **chosen})
    serve(settings, lambda url: print(f"mlaas4hep: serving the models of {settings.models} at {url}", flush=True))
    return 0
