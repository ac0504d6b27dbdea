"""``tfaas_client.py``: the client of TFaaS, with the options of the original."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlaas4hep.errors import AnswerError, MLaaS4HEPError, SettingError

__all__ = ["main"]

SYSTEM_CAPATH = "/etc/grid-security/certificates"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the client; return the exit status: 1 where the server refuses, 2 where an argument is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        answer = _ask(arguments)
    except AnswerError as error:
        print(error.body.strip() or f"tfaas_client.py: {error}", file=sys.stdout if error.body else sys.stderr)
        return 1
    except MLaaS4HEPError as error:
        print(f"tfaas_client.py: {error}", file=sys.stderr)
        return 2
    if answer is not None:
        print(json.dumps(answer))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tfaas_client.py", description="Client of TFaaS inference servers.")
    parser.add_argument("--url", required=True, help="of the server, such as http://localhost:8083")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument(
        "--upload", metavar="JSON", type=Path, help="upload a model: file with name, model, params, labels"
    )
    action.add_argument("--bundle", metavar="TAR.GZ", type=Path, help="upload a model as one archive")
    action.add_argument("--models", action="store_true", help="list the models of the server")
    action.add_argument("--delete", metavar="NAME", help="remove a model from the server")
    action.add_argument("--predict", metavar="JSON", type=Path, help="predict: file with keys, values, model")
    action.add_argument("--image", metavar="FILE", type=Path, help="predict an image; needs --model")
    parser.add_argument("--model", metavar="NAME", default="", help="model for --predict and --image")
    parser.add_argument("--verbose", action="store_true", help="say what is asked")
    parser.add_argument("--key", help="private key; default $X509_USER_PROXY or /tmp/x509up_u<uid>")
    parser.add_argument("--cert", help="certificate; default as for --key")
    parser.add_argument("--capath", help="certificates of authorities; default $X509_CERT_DIR or the system's")
    return parser


def _ask(arguments: argparse.Namespace) -> Any:
    from mlaas4hep.inference.client import TFaaSClient

    secure = arguments.url.lower().startswith("https:")
    proxy = _grid_proxy() if secure else None
    client = TFaaSClient(
        arguments.url,
        arguments.key or proxy,
        arguments.cert or proxy,
        arguments.capath or (_grid_authorities() if secure else None),
    )
    if arguments.verbose:
        print(f"URL   : {client.url}", file=sys.stderr)
    if arguments.upload:
        return client.upload(arguments.upload)
    if arguments.bundle:
        return client.upload_bundle(arguments.bundle)
    if arguments.models:
        return client.models()
    if arguments.delete is not None:
        return client.delete(arguments.delete)
    if arguments.image:
        if not arguments.model:
            raise SettingError("--model", "given with --image", "")
        return client.image(arguments.image, arguments.model)
    request = _read_request(arguments.predict)
    if arguments.verbose:
        print(f"params: {json.dumps(request)}", file=sys.stderr)
    return client.predict(request, model=arguments.model or None)


def _read_request(file: Path) -> dict[str, Any]:
    try:
        request = json.loads(file.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError("--predict", "a file that can be read", f"{file} ({error.strerror})") from error
    except ValueError as error:
        raise SettingError("--predict", "a JSON file", f"{file} ({error})") from error
    if not isinstance(request, dict):
        raise SettingError("--predict", "a JSON object with keys and values", request, str(file))
    return request


def _grid_proxy() -> str | None:
    """Return where the grid proxy of the user is, which is certificate and key in one file."""
    named = os.environ.get("X509_USER_PROXY", "")
    usual = f"/tmp/x509up_u{os.getuid()}"  # noqa: S108 - the place that the grid's tools agree on
    return named or (usual if Path(usual).is_file() else None)


def _grid_authorities() -> str | None:
    for place in (os.environ.get("X509_CERT_DIR", ""), SYSTEM_CAPATH):
        if place and Path(place).exists():
            return place
    return None


if __name__ == "__main__":
    sys.exit(main())
