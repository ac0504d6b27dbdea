"""Make a large NanoAOD-like file from a small one, by drawing its events with replacement.

Usage: tile.py SOURCE.root OUT.root TIMES
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

CLUSTER = 5000
TREE = "Events"


def tile(source: Path, out: Path, times: int, seed: int = 1) -> None:
    """Write ``times`` times as many events as ``source`` holds, in clusters of 5,000; each gets an event number of its own.

    Parameters
    ----------
    source, out : Path
        Files; ``out`` is written under another name first, so that it is whole or not there.
    times : int
        How many times as many events.
    seed : int
        What the drawing follows from.
    """
    tree = uproot.open(source)[TREE]
    events = tree.arrays()
    columns = grouped(tree, events)
    total = len(events) * times
    drawn = np.random.default_rng(seed).integers(0, len(events), total)
    types = {name: ak.type(values).content for name, values in columns.items()} | {"event": np.dtype(np.uint64)}
    part = out.with_suffix(".part")
    with uproot.recreate(part, compression=uproot.ZSTD(5)) as file:
        file.mktree(
            TREE,
            types,
            counter_name=lambda counted: f"n{counted}",
            field_name=lambda outer, inner: f"{outer}_{inner}" if inner else outer,
        )
        for start in range(0, total, CLUSTER):
            rows = drawn[start : start + CLUSTER]
            chunk = {name: values[rows] for name, values in columns.items()}
            file[TREE].extend(chunk | {"event": np.arange(start, start + len(rows), dtype=np.uint64)})
    part.replace(out)


def grouped(tree: Any, events: Any) -> dict[str, Any]:
    """Return the branches as they are written again: those that share a counter zipped into one collection."""
    members: dict[str, list[str]] = {}
    for name, branch in tree.items():
        if branch.count_branch is not None:
            members.setdefault(branch.count_branch.name, []).append(name)
    columns: dict[str, Any] = {}
    for counter, names in members.items():
        collection = counter.removeprefix("n")
        fields = {name.removeprefix(f"{collection}_"): events[name] for name in names if name != collection}
        columns[collection] = ak.zip(fields) if fields else events[names[0]]
    listed = {name for names in members.values() for name in names} | set(members)
    flat = [name for name in tree.keys() if name not in listed and name != "event"]  # noqa: SIM118 - a tree iterates over branches
    return columns | {
        name: events[name] for name in flat if isinstance(ak.type(events[name]).content, ak.types.NumpyType)
    }


if __name__ == "__main__":
    tile(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
