"""Two small real ROOT files whose events differ by class."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
from tests.conftest import write_tree_file


def class_events(events, label, seed):
    """Missing energy and jets are larger for class 1; electrons are not, and some values are not finite."""
    random = np.random.default_rng(seed)
    jets = random.integers(0, 4, events)
    met = (random.exponential(20, events) + 25 * label).astype(np.float32)
    met[::50] = np.nan
    return {
        "run": np.full(events, label + 1, np.uint32),
        "luminosityBlock": np.ones(events, np.uint32),
        "event": np.arange(events, dtype=np.uint64),
        "genWeight": np.where(random.random(events) < 0.5, 1, -1).astype(np.float32),
        "isSignal": np.full(events, label, np.int32),
        "MET_pt": met,
        "Jet_pt": ak.unflatten(random.exponential(30 + 20 * label, jets.sum()).astype(np.float32), jets),
        "nElectron": random.integers(0, 3, events).astype(np.int32),
    }


@pytest.fixture(scope="session")
def class_files(tmp_path_factory):
    """Background first, signal second."""
    folder = tmp_path_factory.mktemp("classes")
    return [
        str(write_tree_file(folder / f"{name}.root", class_events(1500, label, seed=label)))
        for label, name in enumerate(("background", "signal"))
    ]
