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
from pathlib import Path
from typing import Any

__all__ = ["describe_run", "interleave", "write_result"]

RESULTS = Path(__file__).parent / "results"


def interleave(works: Mapping[str, Callable[[], object]], runs: int = 5) -> dict[str, list[float]]:
    """Run each work once to warm up, then all of them in turn, several times; return each one's seconds.

    Parameters
    ----------
    works : mapping of str to callable
    runs : int
        How often each is measured.
    """
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
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
