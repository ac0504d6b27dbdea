"""The model card of a bundle: what it is, what it was trained on, how good it is and how it is used, written from its manifest.

Names of branches, classes and files come from whoever made them, so that nothing of them is taken for Markdown or HTML.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlaas4hep.bundle.graph import FEATURES
from mlaas4hep.bundle.manifest import Manifest
from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = ["escaped", "model_card"]

LISTED_FILES = 50


def escaped(text: object, limit: int = 300) -> str:
    r"""Return a text as one line of Markdown in which no sign has a meaning.

    Examples
    --------
    >>> escaped("pt|eta <script>\n# *x*")
    'pt\\|eta &lt;script&gt; \\# \\*x\\*'
    """
    line = " ".join(str(text).split())
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    line = re.sub(r"([\\`*_{}\[\]()#+!|~$@:])", r"\\\1", line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def model_card(manifest: Manifest, encoding: Encoding, description: str) -> str:
    """Return the model card of a bundle as Markdown.

    Parameters
    ----------
    manifest : Manifest
    encoding : Encoding
        The features.
    description : str
        One line for people.
    """
    return "\n".join(
        [
            f"# {escaped(manifest.name)}",
            "",
            *([escaped(description), ""] if description else []),
            f"Trained with {escaped(manifest.framework)}, written on {escaped(manifest.created)} by MLaaS4HEP "
            f"{escaped(manifest.versions.get('mlaas4hep', '?'))}.",
            "",
            *_inputs(encoding),
            *_output(manifest),
            *_data(manifest),
            *_metrics(manifest.metrics),
            *_use(manifest, encoding),
            *_limits(manifest),
        ]
    )


def _inputs(encoding: Encoding) -> list[str]:
    rows = []
    collections = {name: collection for collection in encoding.collections for name in collection.members}
    for feature in encoding.features:
        collection = collections.get(feature.branch)
        order = ""
        if collection is not None and collection.order_by is not None:
            order = f", by {'falling' if collection.descending else 'rising'} {collection.order_by}"
        kind = f"list, the first {feature.width} of each event{order}" if feature.jagged else "one value"
        places = encoding.places(feature.branch)
        where = (
            "none"
            if not places
            else str(places[0])
            if len(places) == 1
            else f"{places[0]} … {places[-1]}, step {places.step}"
        )
        rows.append((escaped(feature.branch), escaped(kind), where))
    return [
        "## Inputs",
        "",
        f"One input `{FEATURES}`: float32 `[batch, {encoding.width}]`, layout {encoding.layout}. The values are those of the files: nothing is to be "
        "scaled, and what an event does not have is NaN. Units are those of the training's files; they are recorded nowhere.",
        "",
        *_table(("branch", "holds", "places"), rows),
        "",
    ]


def _output(manifest: Manifest) -> list[str]:
    what = "Probability of each class" if manifest.output == "probabilities" else "A value each"
    names = ", ".join(escaped(label) for label in manifest.labels)
    return [
        "## Output",
        "",
        f"One output `{manifest.output}`: float32 `[batch, {len(manifest.labels)}]`. {what}, in this order: {names}.",
        "",
    ]


def _data(manifest: Manifest) -> list[str]:
    data = manifest.data
    lines = ["## Training data", ""]
    files = [file for file in _sequence(data.get("files")) if isinstance(file, Mapping)]
    rows = [
        (
            escaped(file.get("name", file.get("path", "?"))),
            escaped(file.get("uuid", "?")),
            escaped(file.get("entries", "?")),
        )
        for file in files[:LISTED_FILES]
    ]
    if rows:
        lines += [*_table(("file", "uuid", "entries"), rows), ""]
    if len(files) > LISTED_FILES:
        lines += [f"And {len(files) - LISTED_FILES} more, in manifest.json.", ""]
    selection = data.get("selection")
    facts = [
        ("tree", data.get("tree")),
        ("identifiers", data.get("identifiers")),
        ("split", data.get("split")),
        ("events", data.get("events")),
    ]
    if isinstance(selection, Mapping):
        facts += [(f"selection, {name.replace('_', ' ')}", value) for name, value in selection.items() if value]
    facts += [("preprocessing", data.get("preprocessing"))]
    lines += [f"- {escaped(name)}: {escaped(_text(value))}" for name, value in facts if value]
    return [*lines, ""]


def _metrics(metrics: Mapping[str, Any]) -> list[str]:
    test = metrics.get("test")
    if not isinstance(test, Mapping):
        return ["## Quality", "", "It was not judged on held-out events.", ""]
    rows = []
    for name, value in _numbers(test):
        if name.endswith("_error"):
            continue
        error = dict(_numbers(test)).get(f"{name}_error")
        rows.append((escaped(name.replace("_", " ")), f"{value:.6g}" + ("" if error is None else f" ± {error:.2g}")))
    return [
        "## Quality, on held-out events",
        "",
        *(_table(("number", "value"), rows) if rows else ["See metrics.json."]),
        "",
    ]


def _use(manifest: Manifest, encoding: Encoding) -> list[str]:
    archive = f"{manifest.name}.tar.gz"
    return [
        "## How to use it",
        "",
        "Scores for files, and a server that TFaaS clients know (`pip install mlaas4hep`):",
        "",
        "```sh",
        f"mlaas4hep bundle verify {archive}",
        f"mlaas4hep predict --model {archive} --files data/*.root --out-dir scores",
        f"mlaas4hep serve --models models   # then: curl --data-binary @{archive} http://127.0.0.1:8083/upload",
        "```",
        "",
        "In Python, with ONNX Runtime alone:",
        "",
        "```python",
        "import numpy, onnxruntime",
        "",
        'session = onnxruntime.InferenceSession("model.onnx")',
        f"events = numpy.full((1, {encoding.width}), numpy.nan, numpy.float32)  # places as above",
        f'scores = session.run(["{manifest.output}"], {{"{FEATURES}": events}})[0]',
        "```",
        "",
        f"For Triton: `mlaas4hep bundle export {archive} --format triton --out model_repository`.",
        "",
    ]


def _limits(manifest: Manifest) -> list[str]:
    parity = manifest.parity
    lines = [
        "## Limits",
        "",
        "- It knows only what events of the training looked like: other detectors, selections or generators need a new look at its quality.",
        "- Objects beyond the places above are left out.",
        f"- Graph and framework were compared on {parity.events} events: largest difference {parity.largest_difference:.2g}.",
    ]
    if manifest.k_fold is not None:
        lines.append(
            f"- There are {manifest.k_fold.folds} models; `model.onnx` gives their mean. Events that were trained on must be scored with `mlaas4hep "
            "predict`, which takes for each event the model that has not seen it."
        )
    return [*lines, ""]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]


def _numbers(values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the numbers of a mapping and of those inside it, named by their path."""
    found = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += [(f"{name}, {inner}", number) for inner, number in _numbers(value)]
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found.append((str(name), float(value)))
    return found


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
