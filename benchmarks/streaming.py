"""Speed of the streaming layer on the Higgs files, each tiled to 240,000 events, beside uproot's plain read of the same branches.

The stream counts from opening the files to the last shuffled batch consumed; the specs scan from opening them to the specs. Both are warm:
compiled, and the files in the page cache, as they are for uproot. uproot is the fastest of three ways to read: each file whole, cluster by
cluster, 100 MB at a time.

Usage: streaming.py [RUNS]
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import uproot
from measure import describe_run, interleave, median_ratio, write_result
from tile import tile

import mlaas4hep

HERE = Path(__file__).parent
SOURCES = [HERE.parent / "examples" / "data" / name for name in ("VBF_HToTauTau.root", "GluGluToHToTauTau.root")]
LABELS = [1, 0]


def tiled_files(times: int = 10) -> list[str]:
    """Return the tiled files, made once."""
    folder = HERE / "data"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{source.stem}_x{times}.root" for source in SOURCES]
    for source, file in zip(SOURCES, files, strict=True):
        if not file.exists():
            tile(source, file, times)
    return [str(file) for file in files]


def uproot_readers(files: list[str], branches: list[str]) -> dict[str, Callable[[], None]]:
    """Return the ways to read all events of some branches with uproot alone."""

    def whole() -> None:
        for file in files:
            uproot.open(file, object_cache=None, array_cache=None)["Events"].arrays(
                branches, array_cache=None, how=dict
            )

    def by_cluster() -> None:
        for file in files:
            tree = uproot.open(file, object_cache=None, array_cache=None)["Events"]
            bounds = tree.common_entry_offsets(filter_name=branches)
            for start, stop in itertools.pairwise(bounds):
                tree.arrays(branches, entry_start=start, entry_stop=stop, array_cache=None, how=dict)

    def by_bytes() -> None:
        for file in files:
            tree = uproot.open(file, object_cache=None, array_cache=None)["Events"]
            for _ in tree.iterate(branches, step_size="100 MB", how=dict):
                pass

    return {
        "uproot, each file whole": whole,
        "uproot, cluster by cluster": by_cluster,
        "uproot, 100 MB steps": by_bytes,
    }


def main(runs: int) -> None:
    """Measure, print the table, write the result."""
    files = tiled_files()
    dataset = mlaas4hep.open(files, labels=LABELS)
    specs = dataset.specs
    readers = uproot_readers(files, list(dataset.roles.read))

    def epoch() -> None:
        stream = mlaas4hep.open(files, labels=LABELS, specs=specs).stream(batch_size=512)
        delivered = sum(len(batch.x) for batch in stream)
        assert delivered == dataset.events

    def scan() -> None:
        mlaas4hep.open(files, labels=LABELS).compute_specs()

    ours = {"specs scan": scan, "epoch of the stream, shuffled": epoch}
    seconds = interleave({**readers, **ours}, runs)
    fastest = min(readers, key=lambda name: statistics.median(seconds[name]))
    rows = [
        {
            "work": name,
            "thousand_events_per_second": round(dataset.events / statistics.median(taken) / 1000),
            "ratio_to_uproot": round(median_ratio(seconds[fastest], taken), 2),
        }
        for name, taken in seconds.items()
    ]
    about = describe_run(["mlaas4hep", "uproot", "awkward", "numba", "numpy"])
    print(
        f"{dataset.events} events, {len(dataset.features)} features, {dataset.encoding.width} places, batches of 512; "
        f"median of {runs} interleaved runs"
    )
    print(f"{about['machine']}; " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    print(f"\n{'work':32} {'k events/s':>10} {'ratio to the fastest uproot':>28}")
    for row in rows:
        print(f"{row['work']:32} {row['thousand_events_per_second']:>10} {row['ratio_to_uproot']:>28.2f}")
    path = write_result(
        "streaming", {**about, "events": dataset.events, "fastest_uproot": fastest, "rows": rows, "seconds": seconds}
    )
    print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
