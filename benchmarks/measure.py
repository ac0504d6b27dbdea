"""Measure several pieces of work side by side, so that the noise of a machine hits them alike."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Work", "describe_run", "interleave", "measure_and_report", "median_ratio", "write_result"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Work:
    """A piece of work to measure.

    Parameters
    ----------
    name : str
    run : callable
        Does it once; may return the seconds that count, where not all of its time does.
    events : int
        How many events it handles.
    least : float, optional
        Ratio to the reference that it should have.
    """

    name: str
    run: Callable[[], object]
    events: int
    least: float | None = None


def measure_and_report(
    result: str, title: str, references: Sequence[Work], works: Sequence[Work], runs: int, packages: Sequence[str]
) -> None:
    """Measure works beside the references, print the table of rates and of ratios to the fastest reference, and write both.

    Parameters
    ----------
    result : str
        Name of the file in ``results``.
    title : str
        What all of them work on.
    references, works : sequence of Work
        Ratios are of rates in events per second, run by run.
    runs : int
        How often each is measured.
    packages : sequence of str
        Whose versions are told.
    """
    everything = [*references, *works]
    seconds = interleave({work.name: work.run for work in everything}, runs)
    rates = {work.name: [work.events / taken for taken in seconds[work.name]] for work in everything}
    fastest = max((work.name for work in references), key=lambda name: statistics.median(rates[name]))
    rows = [
        {
            "work": work.name,
            "thousand_events_per_second": float(f"{statistics.median(rates[work.name]) / 1000:.3g}"),
            "ratio": float(f"{median_ratio(rates[work.name], rates[fastest]):.3g}"),
            "at_least": work.least,
        }
        for work in everything
    ]
    about = describe_run(packages)
    print(f"{title}; median of {runs} interleaved runs")
    print(f"{about['machine']}; " + ", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    width = max(len(work.name) for work in everything)
    print(f"\n{'work':{width}} {'k events/s':>11} {'ratio':>7} {'at least':>9}")
    for row in rows:
        least = "" if row["at_least"] is None else row["at_least"]
        print(f"{row['work']:{width}} {row['thousand_events_per_second']:>11} {row['ratio']:>7} {least:>9}")
    path = write_result(
        result, {**about, "title": title, "fastest_reference": fastest, "rows": rows, "seconds": seconds}
    )
    print(
        f"\nratios are to '{fastest}'; written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}\n"
    )


def interleave(works: Mapping[str, Callable[[], object]], runs: int = 5) -> dict[str, list[float]]:
    """Run each work once to warm up, then all of them in turn, several times; return each one's seconds.

    Parameters
    ----------
    works : mapping of str to callable
        One that returns a float has measured itself: seconds.
    runs : int
        How often each is measured.
    """
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            start = time.perf_counter()
            counted = work()
            taken = time.perf_counter() - start
            seconds[name].append(counted if isinstance(counted, float) else taken)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the ratios run by run."""
    return statistics.median(one / other for one, other in zip(numerator, denominator, strict=True))


def describe_run(packages: Sequence[str]) -> dict[str, Any]:
    """Return machine, versions, time and command of this run."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [
            line.partition(":")[2].strip()
            for line in information.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = models[0] if models else processor
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{processor}, {os.cpu_count()} cores, {platform.system()}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "command": " ".join(["python", *sys.argv]),
    }


def write_result(name: str, result: Mapping[str, Any]) -> Path:
    """Write a result as JSON and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
