"""Speed of the streaming layer on the Higgs files, each tiled to 240,000 events, beside uproot's plain read of the same branches.

The stream counts from opening the files to the last shuffled batch consumed; the specs scan from opening them to the specs. Both are warm:
compiled, and the files in the page cache, as they are for uproot. uproot is the fastest of three ways to read: each file whole, cluster by
cluster, 100 MB at a time.

Usage: streaming.py [RUNS]
"""

from __future__ import annotations

import sys
from typing import Any

from inputs import HIGGS, HIGGS_LABELS, tiled, uproot_works
from measure import Work, measure_and_report

import mlaas4hep

BATCH = 512
PACKAGES = ["mlaas4hep", "uproot", "awkward", "numba", "numpy"]


def epoch_of(files: list[str], specs: Any, events: int, **settings: Any) -> None:
    """Open files and consume one epoch."""
    stream = mlaas4hep.open(files, labels=HIGGS_LABELS, specs=specs).stream(batch_size=BATCH, **settings)
    delivered = sum(len(batch.x) for batch in stream)
    assert delivered == events


def main(runs: int) -> None:
    """Measure, print the table, write the result."""
    files = tiled(HIGGS, 10)
    dataset = mlaas4hep.open(files, labels=HIGGS_LABELS)
    specs, events = dataset.specs, dataset.events
    works = [
        Work(
            "specs scan, quantiles included",
            lambda: mlaas4hep.open(files, labels=HIGGS_LABELS).compute_specs(),
            events,
            0.85,
        ),
        Work("epoch of the stream, shuffled", lambda: epoch_of(files, specs, events), events, 0.7),
        Work(
            "epoch of the stream, shuffled, 2 workers", lambda: epoch_of(files, specs, events, workers=2), events, 1.2
        ),
    ]
    title = (
        f"{events} Higgs events, {len(dataset.features)} features, {dataset.encoding.width} places, batches of {BATCH}"
    )
    measure_and_report("streaming", title, uproot_works(files, dataset.roles.read, events), works, runs, PACKAGES)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
