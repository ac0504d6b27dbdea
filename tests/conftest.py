"""Fixtures that all tests share: the Higgs files, and real ROOT files made on the spot."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import settings

# No assertion on time: the first call of a kernel compiles it.
settings.register_profile("mlaas4hep", deadline=None, print_blob=True)
settings.load_profile("mlaas4hep")

EXAMPLES = Path(__file__).parent.parent / "examples"

WriteTree = Callable[..., Path]


@pytest.fixture(scope="session")
def higgs_files() -> list[str]:
    """VBF first, gluon fusion second: 24,000 events each."""
    return [str(EXAMPLES / "data" / name) for name in ("VBF_HToTauTau.root", "GluGluToHToTauTau.root")]


def write_tree_file(path: Path, columns: Mapping[str, Any], clusters: Sequence[int] = (), tree: str = "Events") -> Path:
    """Write a real ROOT file; `clusters` are the entries at which a new one begins."""
    events = len(next(iter(columns.values())))
    bounds = [0, *clusters, events]
    arrays = {name: values if isinstance(values, np.ndarray) else ak.Array(values) for name, values in columns.items()}
    with uproot.recreate(path) as file:
        types = {name: a.dtype if isinstance(a, np.ndarray) else ak.type(a).content for name, a in arrays.items()}
        file.mktree(tree, types)
        for start, stop in itertools.pairwise(bounds):
            if stop > start:
                file[tree].extend({name: array[start:stop] for name, array in arrays.items()})
    return path


@pytest.fixture
def write_tree(tmp_path: Path) -> WriteTree:
    """Return a function that writes a ROOT file into the test's folder."""

    def write(name: str, columns: Mapping[str, Any], clusters: Sequence[int] = (), tree: str = "Events") -> Path:
        return write_tree_file(tmp_path / name, columns, clusters, tree)

    return write


def make_events(events: int, seed: int, run: int = 1, widest: int = 4) -> dict[str, Any]:
    """Make the columns of a small NanoAOD-like tree."""
    generator = np.random.default_rng(seed)
    counts = generator.integers(0, widest + 1, events)
    values = int(counts.sum())
    return {
        "run": np.full(events, run, np.uint32),
        "luminosityBlock": (np.arange(events) // 100).astype(np.uint32),
        "event": np.arange(events, dtype=np.uint64) + np.uint64(seed * 1_000_000),
        "MET_pt": generator.exponential(30, events).astype(np.float32),
        "trigger": generator.random(events) < 0.3,
        "Jet_pt": ak.unflatten(generator.exponential(50, values).astype(np.float32), counts),
        "Jet_charge": ak.unflatten(generator.integers(-1, 2, values).astype(np.int32), counts),
    }
