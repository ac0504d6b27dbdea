"""Specs and encoded events equal the original's: its algorithm, restated slowly and per event, on plain uproot arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import uproot

import mlaas4hep

IDENTIFIERS = {"run", "luminosityBlock", "event"}

Events = dict[str, list[Any]]


def read_plainly(path: str) -> Events:
    tree = uproot.open(path)["Events"]
    return {name: tree[name].array(library="ak").to_list() for name, _ in tree.items() if name not in IDENTIFIERS}


def original_specs(files: dict[str, Events]) -> dict[str, Any]:
    """One loop over all values of all files, as the original's reader does chunk by chunk."""
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    dims: dict[str, int] = {}
    flat: set[str] = set()
    for events in files.values():
        for name, column in events.items():
            for value in column:
                if isinstance(value, list):
                    dims[name] = max(dims.get(name, 0), len(value))
                    values = value
                else:
                    flat.add(name)
                    values = [value]
                for number in map(float, values):
                    low[name] = min(low.get(name, number), number)
                    high[name] = max(high.get(name, number), number)
    counts = {path: len(events["MET_pt"]) for path, events in files.items()}
    return {
        "jdim": dims,
        "minv": low,
        "maxv": high,
        "fkeys": sorted(flat),
        "jkeys": sorted(dims),
        "nans": {
            name: (0 - low[name]) / (high[name] - low[name]) if high[name] != low[name] else high[name] for name in low
        },
        "events": {**counts, "total": sum(counts.values())},
    }


def original_vector(event: dict[str, Any], specs: dict[str, Any]) -> tuple[list[float], list[int]]:
    """One event as the original lays it out: flat sorted, jagged sorted and padded with NaN; then NaN to 0."""

    def scaled(name: str, value: float) -> float:
        low, high = specs["minv"][name], specs["maxv"][name]
        return (value - low) / (high - low) if high != low else value

    vector = [scaled(name, event[name]) for name in specs["fkeys"]]
    for name in specs["jkeys"]:
        padding = [float("nan")] * (specs["jdim"][name] - len(event[name]))
        vector += [scaled(name, value) for value in event[name]] + padding
    mask = [int(value != value) for value in vector]
    return [0.0 if absent else value for value, absent in zip(vector, mask, strict=True)], mask


@pytest.fixture(scope="module")
def plain(higgs_files: list[str]) -> dict[str, Events]:
    return {path: read_plainly(path) for path in higgs_files}


@pytest.fixture(scope="module")
def expected_specs(plain: dict[str, Events]) -> dict[str, Any]:
    return original_specs(plain)


def test_specs_of_the_higgs_files_equal_the_originals(higgs_files: list[str], expected_specs: dict[str, Any]) -> None:
    found = mlaas4hep.open(higgs_files, labels=[1, 0]).specs.to_dict()
    for key in ("fkeys", "jkeys", "jdim", "events"):
        assert found[key] == expected_specs[key], key
    for key in ("minv", "maxv", "nans"):
        assert set(found[key]) == set(expected_specs[key])
        for name, value in expected_specs[key].items():
            assert found[key][name] == pytest.approx(value, rel=1e-6, abs=1e-6), (key, name)


def test_encoded_events_of_the_higgs_files_equal_the_originals(
    higgs_files: list[str], plain: dict[str, Events], expected_specs: dict[str, Any]
) -> None:
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0])
    encoding = dataset.specs.ranges.encoding(dataset.specs.flat, dataset.specs.jagged)
    assert encoding.columns == (
        *expected_specs["fkeys"],
        *(f"{name}_{i}" for name in expected_specs["jkeys"] for i in range(expected_specs["jdim"][name])),
    )
    seen = 0
    for batch in dataset.stream(encoding=encoding, batch_size=4096, seed=3):
        vectors, masks = [], []
        for file, entry in zip(batch.id["file"], batch.id["entry"], strict=True):
            events = plain[higgs_files[file]]
            vector, mask = original_vector({name: column[entry] for name, column in events.items()}, expected_specs)
            vectors.append(vector)
            masks.append(mask)
        np.testing.assert_allclose(batch.x, np.array(vectors), rtol=0, atol=1e-6)
        np.testing.assert_array_equal(batch.mask, np.array(masks, bool))
        np.testing.assert_array_equal(batch.y, 1 - batch.id["file"])
        seen += len(batch.x)
    assert seen == 48_000
