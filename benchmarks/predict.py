"""Speed of ``mlaas4hep predict`` with the built-in MLP on the Higgs files, each tiled to 240,000 events, beside encoding the same events alone.

Encoding is reading, decoding and filling the raw feature vectors, in blocks that are thrown away: what a prediction cannot do without. Both count
from opening the files; the prediction to the finished file of scores. The model is trained for one epoch on a part of the events before that.

Usage: predict.py [RUNS]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from inputs import HIGGS, HIGGS_LABELS, tiled
from measure import Work, measure_and_report

import mlaas4hep
from mlaas4hep.bundle.reader import Bundle
from mlaas4hep.inference.predictor import open_for_bundle, predict_files
from mlaas4hep.training.workflow import train

PACKAGES = ["mlaas4hep", "uproot", "awkward", "numba", "numpy", "onnxruntime", "torch", "pyarrow"]


def encode(bundle: Bundle, files: list[str], events: int) -> None:
    """Open files and encode all events."""
    dataset = open_for_bundle(bundle, files)
    encoded = sum(len(raw) for raw, _, _ in dataset.raw_blocks(bundle.encoding))
    assert encoded == events


def main(runs: int) -> None:
    """Measure, print the table, write the result."""
    files = tiled(HIGGS, 10)
    dataset = mlaas4hep.open(files, labels=HIGGS_LABELS, max_events=48_000)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train(dataset, "mlp", params={"epochs": 1, "patience": 1}, out=folder / "higgs.tar.gz")
        with Bundle.open(folder / "higgs.tar.gz") as bundle:
            events = open_for_bundle(bundle, files).events

            def predict(name: str, threads: int = 1) -> None:
                predict_files(bundle, files, folder / name, threads=threads)

            reference = Work("encode only", lambda: encode(bundle, files, events), events)
            works = [
                Work("predict to ROOT", lambda: predict("scores.root"), events, 0.6),
                Work("predict to ROOT, 2 threads", lambda: predict("scores.root", threads=2), events),
                Work("predict to Parquet", lambda: predict("scores.parquet"), events),
                Work("predict to CSV", lambda: predict("scores.csv"), events),
            ]
            title = f"{events} Higgs events, {len(dataset.features)} features, {bundle.encoding.width} places, built-in 'mlp'"
            measure_and_report("predict", title, [reference], works, runs, PACKAGES)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
