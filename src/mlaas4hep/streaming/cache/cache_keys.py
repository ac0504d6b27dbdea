"""What the encoded events of a run follow from: the key under which a cache holds them.

Two streams share a shard if and only if all of this is the same. It names no path and no place in the catalogue, so that the same file may be moved,
or come in another order or company. What only the order of batches follows from (seed, batch size, pools, ranks, workers) is not in it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from mlaas4hep.streaming.catalog import Catalog, Run
from mlaas4hep.streaming.labels import Labels
from mlaas4hep.streaming.selecting.view import View
from mlaas4hep.streaming.splitting import HASH_VERSION
from mlaas4hep.streaming.stream.prepared import EventRules
from mlaas4hep.streaming.stream.stream_settings import StreamSettings

__all__ = ["FORMAT_VERSION", "dataset_key", "describe_rules", "digest", "run_key"]

FORMAT_VERSION = 2
"""Number of the form of a shard and of the meaning of its values; another one is another cache."""

PACKAGES = ("mlaas4hep", "numpy", "numba", "awkward", "uproot", "vector", "pyarrow")
"""Packages that decode, compute or hold the values."""

OF_VIEW: dict[str, Callable[[Any], Any]] = {
    "selection": lambda selection: selection.to_dict(),
    "preprocessing": lambda preprocessing: None if preprocessing is None else preprocessing.digest,
    "types": lambda types: None if types is None else {name: str(kind) for name, kind in types.items()},
    # What columns are made of follows from the others.
    "needs": lambda _: None,
    "cut_needs": lambda _: None,
}
"""Part of a view → what of it decides the values, as plain values for JSON."""

OF_NO_FILE = ("files", "per_file", "events", "negative")
"""Parts of learned weights that are said of each file, or of nobody's weight."""

OF_EACH_FILE = ("cross_sections", "luminosity", "sum_of_weights", "samples")
"""Settings of weights that come to one factor a file, which is in the key of its runs."""


def digest(description: Any) -> str:
    """Return 32 hexadecimal digits that stand for plain values, whatever the order of their keys.

    Examples
    --------
    >>> digest({"a": 1, "b": 0.1}) == digest({"b": 0.1, "a": 1}) != digest({"a": 1, "b": 0.2})
    True
    """
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def describe_rules(catalog: Catalog, rules: EventRules, settings: StreamSettings) -> dict[str, Any]:
    """Return all that the events of every file of a stream follow from, beside the file itself.

    Returns
    -------
    dict
        Plain values for JSON.
    """
    labels = rules.labels
    by_class = isinstance(labels, Labels)
    weights = None
    if rules.weights is not None:
        weights = {name: value for name, value in rules.weights.to_dict().items() if name not in OF_NO_FILE}
        weights["weighting"] = {name: value for name, value in weights["weighting"].items() if name not in OF_EACH_FILE}
    return {
        "format": FORMAT_VERSION,
        "versions": {"identity": HASH_VERSION, **_versions()},
        "dtype": catalog.dtype,
        "columns": {name: str(catalog.columns[name]) for name in rules.columns},
        "view": describe_view(catalog.view),
        "encoding": rules.encoding.to_dict(),
        "labels": {"classes": list(labels.classes), "columns": list(labels.columns), "of_classes": by_class},
        "weights": weights,
        "weight_kind": settings.weights,
        "identifiers": list(rules.identity.identifiers),
        "split": rules.identity.split.to_dict(),
        "fold": settings.fold,
    }


def describe_view(view: View) -> dict[str, Any]:
    """Return what of a view decides the values.

    Raises
    ------
    TypeError
        If the view has a part that this module does not know: a cache must not guess.
    """
    unknown = set(View.__dataclass_fields__) - set(OF_VIEW)
    if unknown:
        raise TypeError(f"the key of a cache says nothing of {sorted(unknown)} of a view")
    return {name: OF_VIEW[name](getattr(view, name)) for name in View.__dataclass_fields__}


def dataset_key(catalog: Catalog, rules: EventRules, settings: StreamSettings) -> str:
    """Return the key that all runs of a stream have in common."""
    return digest(describe_rules(catalog, rules, settings))


def run_key(catalog: Catalog, rules: EventRules, run: Run) -> str:
    """Return the key of one run among those of its dataset."""
    file = catalog.files[run.file]
    by_file = rules.labels.by_file if isinstance(rules.labels, Labels) else ()
    return digest(
        {
            "uuid": file.uuid,
            "size": file.size,
            "tree": file.tree or catalog.tree,
            "entries": [run.start, run.stop],
            "class": by_file[run.file] if by_file else None,
            "weight": None if rules.weights is None else rules.weights.per_file[run.file],
        }
    )


@cache
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}
