"""Speed of the stream at full width: NanoAOD of 200 events, tiled to 20,000, all branches of numbers as features.

An epoch counts from opening the file to the last shuffled batch consumed, beside uproot's read of the same branches; both warm.

Usage: nanoaod.py [RUNS] [--profile]
"""

from __future__ import annotations

import argparse

from inputs import NANOAOD, tiled, uproot_works
from measure import Work, measure_and_report

import mlaas4hep

TIMES = 100


def main(runs: int, profile: bool) -> None:
    """Measure, or show where the time of one epoch goes."""
    files = tiled([NANOAOD], TIMES)
    dataset = mlaas4hep.open(files)
    specs = dataset.specs

    def epoch() -> None:
        stream = mlaas4hep.open(files, specs=specs).stream(batch_size=512)
        assert sum(len(batch.x) for batch in stream) == dataset.events
        if profile:
            print(stream.report)

    if profile:
        epoch()
        epoch()
        return
    measure_and_report(
        "nanoaod",
        f"{dataset.events} NanoAOD events, {len(dataset.features)} features, {dataset.encoding.width} places, batches of 512",
        uproot_works(files, dataset.roles.read, dataset.events),
        [Work("epoch of the stream, shuffled", epoch, dataset.events, 0.7)],
        runs,
        ["mlaas4hep", "uproot", "awkward", "numba", "numpy"],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="?", default=5)
    parser.add_argument("--profile", action="store_true", help="show where the time of an epoch goes instead")
    arguments = parser.parse_args()
    main(arguments.runs, arguments.profile)
