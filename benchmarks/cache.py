"""Speed of an epoch from the cache of encoded events, beside NumPy's ``take`` of the same rows in the same order from one mapped array.

The Higgs files, each tiled to 240,000 events. ``take`` moves the vectors alone, from a mapped file into blocks that are used again; the epoch gives
shuffled vectors, masks, classes, weights and identities, batch by batch. All is warm. The first epoch, which reads ROOT and writes the shards, is
told too.

Usage: cache.py [RUNS]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import describe_run, interleave, median_ratio, write_result
from tile import tile

import mlaas4hep

HERE = Path(__file__).parent
SOURCES = [HERE.parent / "examples" / "data" / name for name in ("VBF_HToTauTau.root", "GluGluToHToTauTau.root")]
BATCH = 512
AT_LEAST = 0.3


def tiled_files(times: int = 10) -> list[str]:
    """Return the tiled files, made once."""
    folder = HERE / "data"
    folder.mkdir(exist_ok=True)
    files = [folder / f"{source.stem}_x{times}.root" for source in SOURCES]
    for source, file in zip(SOURCES, files, strict=True):
        if not file.exists():
            tile(source, file, times)
    return [str(file) for file in files]


def main(runs: int, folder: Path) -> None:
    """Measure, print the table, write the result."""
    dataset = mlaas4hep.open(tiled_files(), labels=[1, 0])
    width, events = dataset.encoding.width, dataset.events
    first_entry = np.concatenate([[0], np.cumsum([file.entries for file in dataset.catalog.files])])
    mapped = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (events, width))
    order = []
    for batch in dataset.stream(batch_size=BATCH, seed=1):
        rows = first_entry[batch.id["file"]] + batch.id["entry"]
        mapped[rows] = batch.x
        order.append(rows)
    mapped.flush()
    wanted = np.concatenate(order)

    start = time.perf_counter()
    delivered = sum(len(batch.x) for batch in dataset.stream(batch_size=BATCH, seed=1, cache=folder / "cache"))
    first_epoch = time.perf_counter() - start
    assert delivered == events

    stream = dataset.stream(batch_size=BATCH, seed=1, cache=folder / "cache")

    def epoch() -> None:
        stream.epoch = 0
        assert sum(len(batch.x) for batch in stream) == events

    def epoch_of_new_stream() -> None:
        delivered = sum(len(batch.x) for batch in dataset.stream(batch_size=BATCH, seed=1, cache=folder / "cache"))
        assert delivered == events

    def take(rows: int) -> None:
        block = np.empty((rows, width), np.float32)
        for start in range(0, events, rows):
            taken = wanted[start : start + rows]
            # Without a mode NumPy fills a block of its own first.
            np.take(mapped, taken, axis=0, out=block[: len(taken)], mode="clip")

    pool = dataset.stream().settings.pool_bytes // (width * 5)
    works = {
        f"np.take, blocks of {BATCH} rows": lambda: take(BATCH),
        f"np.take, blocks of {pool} rows": lambda: take(pool),
        "epoch from the cache": epoch,
        "epoch from the cache, new stream": epoch_of_new_stream,
    }
    seconds = interleave(works, runs)
    references = list(works)[:2]
    fastest = min(references, key=lambda name: statistics.median(seconds[name]))
    rows = [
        {
            "work": name,
            "thousand_events_per_second": round(events / statistics.median(taken) / 1000),
            "ratio": round(median_ratio(seconds[fastest], taken), 2),
            "at_least": None if name in references else AT_LEAST,
        }
        for name, taken in seconds.items()
    ]
    about = describe_run(["mlaas4hep", "numpy", "numba", "pyarrow"])
    title = f"{events} Higgs events, {width} places, batches of {BATCH}, from the cache"
    print(f"{title}; median of {runs} interleaved runs")
    print(f"{about['machine']}; " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    print(f"the first epoch, which writes the shards: {events / first_epoch / 1000:.0f} k events/s")
    print(f"\n{'work':36} {'k events/s':>10} {'ratio to the fastest take':>26}")
    for row in rows:
        print(f"{row['work']:36} {row['thousand_events_per_second']:>10} {row['ratio']:>26.2f}")
    path = write_result(
        "cache_take",
        {
            **about,
            "title": title,
            "fastest_reference": fastest,
            "first_epoch": first_epoch,
            "rows": rows,
            "seconds": seconds,
        },
    )
    print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")


if __name__ == "__main__":
    data = HERE / "data"
    data.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=data) as name:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, Path(name))
