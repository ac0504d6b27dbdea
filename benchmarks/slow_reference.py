"""The stream beside per-event Python: what a loop over events costs that pads and scales each of them by itself.

The loop is what one writes first, and in essence what the original MLaaS4HEP does: read a chunk of events as arrays, and for each event take the
value or list of each branch out of them, scale it with NumPy and pad it. It is measured on the first 2,500 events of each file, the stream on all.

Usage: slow_reference.py [RUNS]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot
from inputs import HIGGS, HIGGS_LABELS, tiled
from measure import Work, measure_and_report

import mlaas4hep
from mlaas4hep.streaming.encoding.encoding import Encoding

CHUNK = 2500


def content_and_offsets(values: Any, jagged: bool) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the values of all events, and where each event's begin and end."""
    counts = ak.to_numpy(ak.num(values)) if jagged else np.ones(len(values), np.int64)
    return ak.to_numpy(ak.flatten(values) if jagged else values), np.concatenate([[0], np.cumsum(counts)])


def encode_event(
    columns: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[np.int64]]], event: int, encoding: Encoding
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Scale and pad one event."""
    parts = []
    for feature in encoding.features:
        content, offsets = columns[feature.branch]
        values = content[offsets[event] : offsets[event + 1]][: feature.width]
        scaled = (values - feature.shift) * feature.scale
        parts.append(np.pad(scaled, (0, feature.width - len(scaled)), constant_values=np.nan))
    x = np.concatenate(parts).astype(np.float32)
    mask = np.isnan(x)
    x[mask] = 0
    return x, mask


def main(runs: int) -> None:
    """Measure both."""
    files = tiled(HIGGS, 10)
    dataset = mlaas4hep.open(files, labels=HIGGS_LABELS)
    specs, encoding = dataset.specs, dataset.encoding

    def slow() -> None:
        for file, label in zip(files, HIGGS_LABELS, strict=True):
            tree = uproot.open(file, object_cache=None, array_cache=None)["Events"]
            chunk = tree.arrays(list(encoding.branches), entry_stop=CHUNK, array_cache=None)
            columns = {f.branch: content_and_offsets(chunk[f.branch], f.jagged) for f in encoding.features}
            vectors = [encode_event(columns, event, encoding) for event in range(CHUNK)]
            x = np.stack([x for x, _ in vectors])
            mask = np.stack([mask for _, mask in vectors])
            y = np.full(len(vectors), label)
            assert x.shape == mask.shape == (len(y), encoding.width)

    def epoch() -> None:
        stream = mlaas4hep.open(files, labels=HIGGS_LABELS, specs=specs).stream(batch_size=512)
        assert sum(len(batch.x) for batch in stream) == dataset.events

    measure_and_report(
        "slow_reference",
        f"Higgs events, {len(dataset.features)} features, {encoding.width} places",
        [Work("per-event Python", slow, CHUNK * len(files))],
        [Work("epoch of the stream, shuffled", epoch, dataset.events, 100)],
        runs,
        ["mlaas4hep", "uproot", "awkward", "numba", "numpy"],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
