"""The start page: which models there are, what they take and answer, and how to ask.

Whatever comes from a model or a client is escaped, and the page may load nothing but its own style and icon, so that a model's description cannot
become a program in somebody's browser.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

__all__ = ["ModelCard", "favicon", "security_headers", "start_page"]

SHOWN_NAMES = 12


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What the page shows of a model.

    Parameters
    ----------
    name, description : str
        From its parameters.
    version : int
        The live version.
    default : bool
        Whether it answers requests without a model.
    inputs, outputs : sequence of str
        One line each.
    labels : sequence of str
        Names of the classes.
    example : mapping or None
        Body of a prediction request.
    problem : str
        Why it cannot be shown, if so.
    """

    name: str
    description: str
    version: int
    default: bool
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    labels: Sequence[str] = ()
    example: Mapping[str, Any] | None = None
    problem: str = ""


@cache
def _style() -> str:
    return files(__package__).joinpath("style.css").read_text(encoding="utf-8")


@cache
def favicon() -> bytes:
    """Return the icon, an SVG."""
    return files(__package__).joinpath("favicon.svg").read_bytes()


@cache
def _style_hash() -> str:
    return base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()


def security_headers() -> dict[str, str]:
    """Return the headers that go with the page."""
    policy = f"default-src 'none'; style-src 'sha256-{_style_hash()}'; img-src 'self'; base-uri 'none'"
    return {
        "Content-Security-Policy": policy + "; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def start_page(cards: Sequence[ModelCard], address: str, base: str) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    cards : sequence of ModelCard
        The models.
    address : str
        Where the server is reached, for the examples.
    base : str
        Prefix of all paths.
    """
    base, address = escape(base), escape(address)
    models = "\n".join(_article(card, address, base) for card in cards)
    count = f"{len(cards)} model{'' if len(cards) == 1 else 's'}"
    if not cards:
        models = f"""<article><p>No model yet. Upload one:</p>
<pre>tfaas_client.py --url={address} --bundle=model.tar.gz</pre></article>"""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MLaaS4HEP: {count}</title>
<link rel="icon" href="{base}/favicon.ico" type="image/svg+xml">
<style>{_style()}</style>
</head>
<body>
<header><h1>MLaaS4HEP</h1>
<p>Inference server with {count}. <a href="{base}/models">List as JSON</a> · <a href="{base}/status">Status</a></p>
</header>
<main>
{models}
</main>
<footer><p>Clients of TFaaS work unchanged with <code>{address}</code>.</p></footer>
</body>
</html>
"""


def _article(card: ModelCard, address: str, base: str) -> str:
    name = escape(card.name)
    default = ", default" if card.default else ""
    rows = [("Inputs", card.inputs), ("Outputs", card.outputs), ("Labels", card.labels)]
    table = "".join(f"<dt>{title}</dt><dd>{_names(names)}</dd>" for title, names in rows if names)
    problem = f"<p><strong>Cannot be served:</strong> {escape(card.problem)}</p>" if card.problem else ""
    description = f"<p>{escape(card.description)}</p>" if card.description else ""
    example = ""
    if card.example is not None:
        body = escape(json.dumps(card.example).replace("'", "\\u0027"), quote=False)
        example = f"<pre>curl {address}/json -d '{body}'</pre>"
    return f"""<article>
<h2>{name} <span class="tag">version {card.version}{default}</span></h2>
{description}{problem}
<dl>{table}</dl>
{example}
<p><a href="{base}/models/{name}">Description</a> · <a href="{base}/params/{name}">params.json</a></p>
</article>"""


def _names(names: Sequence[str]) -> str:
    shown = " ".join(f"<code>{escape(name)}</code>" for name in names[:SHOWN_NAMES])
    if len(names) <= SHOWN_NAMES:
        return shown
    rest = " ".join(f"<code>{escape(name)}</code>" for name in names[SHOWN_NAMES:])
    return f"{shown} <details><summary>{len(names) - SHOWN_NAMES} more</summary>{rest}</details>"
