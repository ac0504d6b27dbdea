"""What the original's reader tells of a file: a first pass that finds kinds, ranges and widths, then a pass that reads events as a training does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.dataset import Dataset
from mlaas4hep.streaming.encoding.encoding import Encoding
from mlaas4hep.streaming.formats import Column, format_of
from mlaas4hep.streaming.inspection.files import Inspection
from mlaas4hep.streaming.statistics.scan import QUEUE_BYTES, RUN_BYTES
from mlaas4hep.streaming.statistics.specs import Specs
from mlaas4hep.streaming.stream.reading import loaded_runs

__all__ = ["BranchRange", "MemoryUse", "ReadingRate", "holds_rows", "info_lines", "range_lines", "read_events", "rows"]

MB = 10**6


class BranchRange(NamedTuple):
    """What the lines of information say of a branch: its range, None where it has no finite value, and its width, None for a flat one."""

    name: str
    low: float | None
    high: float | None
    widest: int | None


class MemoryUse(NamedTuple):
    """What this process holds in memory and has in swap space, in bytes; None where the system does not tell."""

    resident: int | None
    swapped: int | None

    @classmethod
    def now(cls) -> MemoryUse:
        """Measure it."""
        import psutil

        try:
            full = psutil.Process().memory_full_info()
        except psutil.Error:
            return cls(None, None)
        return cls(int(full.rss), int(full.swap) if hasattr(full, "swap") else None)

    def grown_since(self, before: MemoryUse) -> str:
        """Return the line that says how much more it is now; memory that was given back counts as none."""
        parts = [
            f"{name} used: {'not known' if now is None or then is None else f'{max(0, now - then) / MB} (MB)'}"
            for name, now, then in (("VMEM", self.resident, before.resident), ("SWAP", self.swapped, before.swapped))
        ]
        return " ".join(parts)


class ReadingRate(NamedTuple):
    """How many events were read, in which time, and how many values did not fit into their places."""

    events: int
    seconds: float
    cut_values: int = 0

    def __str__(self) -> str:
        return f"Read {self.events} evts, {self.events / self.seconds} Hz, total time {self.seconds}"


@dataclass(frozen=True)
class _Kinds:
    flat: Sequence[BranchRange]
    jagged: Sequence[BranchRange]

    @classmethod
    def of_inspection(cls, inspection: Inspection, identifiers: Sequence[str]) -> _Kinds:
        found = [
            BranchRange(
                name,
                summary.statistics.minimum if summary.statistics.count else None,
                summary.statistics.maximum if summary.statistics.count else None,
                summary.statistics.widest if summary.jagged else None,
            )
            for name, summary in sorted(inspection.branches.items())
            if name not in identifiers
        ]
        return cls([one for one in found if one.widest is None], [one for one in found if one.widest is not None])

    @classmethod
    def of_specs(cls, specs: Specs) -> _Kinds:
        known = specs.ranges
        return cls(
            [BranchRange(name, known.minimum[name], known.maximum[name], None) for name in specs.flat],
            [BranchRange(name, known.minimum[name], known.maximum[name], known.widest[name]) for name in specs.jagged],
        )


def info_lines(inspection: Inspection, identifiers: Sequence[str], memory: str, *, ranges: bool) -> list[str]:
    """Return the lines of ``reader.py --info`` in the original's form.

    Parameters
    ----------
    inspection : Inspection
    identifiers : sequence of str
        Branches that are no features, and do not count.
    memory : str
        As :meth:`MemoryUse.grown_since` gives it.
    ranges : bool
        Whether to give each branch a line.

    Examples
    --------
    >>> from mlaas4hep.streaming.inspection import inspect_files
    >>> found = inspect_files("examples/data/VBF_HToTauTau.root", branches=["run", "nJet", "Jet_mass"], max_events=2000)
    >>> for line in info_lines(found, ["run"], "VMEM used: 1.0 (MB) SWAP used: 0.0 (MB)", ranges=True):
    ...     print(line)
    First pass: 2000 events, ... sec, shape (10,) 1 branches: flat 1 jagged
    VMEM used: 1.0 (MB) SWAP used: 0.0 (MB)
    Number of events  : 24000
    # flat branches   : 1
    nJet values in [0.0, 9.0] range, dim=N/A
    # jagged branches : 1
    Jet_mass values in [0.0, 105.2517318725586] range, dim=9
    """
    kinds = _Kinds.of_inspection(inspection, identifiers)
    shape = len(kinds.flat) + sum(one.widest or 0 for one in kinds.jagged)
    return [
        f"First pass: {inspection.events} events, {inspection.seconds} sec, shape ({shape},) "
        f"{len(kinds.flat)} branches: flat {len(kinds.jagged)} jagged",
        memory,
        *_branch_lines(kinds, inspection.entries, ranges=ranges),
    ]


def range_lines(specs: Specs, entries: int, *, ranges: bool) -> list[str]:
    """Return the same lines for specs that are known, without those of a first pass.

    Parameters
    ----------
    specs : Specs
    entries : int
        Number of events of the files.
    ranges : bool
        Whether to give each branch a line.
    """
    return _branch_lines(_Kinds.of_specs(specs), entries, ranges=ranges)


def _branch_lines(kinds: _Kinds, entries: int, *, ranges: bool) -> list[str]:
    lines = [f"Number of events  : {entries}"]
    for title, branches in (("# flat branches   ", kinds.flat), ("# jagged branches ", kinds.jagged)):
        lines.append(f"{title}: {len(branches)}")
        if ranges:
            lines += [
                f"{_printable(one.name)} values in [{_or_none(one.low)}, {_or_none(one.high)}] range, dim={_or_none(one.widest)}"
                for one in branches
            ]
    return lines


def _or_none(value: float | None) -> str:
    return "N/A" if value is None else str(value)


def _printable(name: str) -> str:
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in name)


def read_events(
    dataset: Dataset,
    specs: Specs,
    chunk_size: int,
    progress: Callable[[int, int], None] | None = None,
    show: Callable[[int, npt.NDArray[np.float32]], None] | None = None,
    shown: int = 0,
) -> ReadingRate:
    """Read all events of a dataset in order as the original's vectors, and measure how long that takes.

    Parameters
    ----------
    dataset : Dataset
    specs : Specs
        Their ranges and widths make the vector; branches that the dataset does not read are left out of it.
    chunk_size : int
        Events of a batch.
    progress : callable, optional
        Called with the number of events done and of all.
    show : callable, optional
        Called with the place and the vector of each of the first events, NaN where absent.
    shown : int
        How many those are.
    """
    started = time.perf_counter()
    whole = specs.ranges.encoding(specs.flat, specs.jagged)
    encoding = Encoding(tuple(feature for feature in whole.features if feature.branch in dataset.features))
    stream = dataset.stream(None, encoding=encoding, shuffle=False, batch_size=chunk_size)
    events = 0
    for batch in stream:
        if show is not None:
            for place in range(events, min(shown, events + len(batch.x))):
                row = place - events
                show(place, np.where(batch.mask[row], np.float32(np.nan), batch.x[row]))
        events += len(batch.x)
        if progress is not None:
            progress(events, dataset.events)
    return ReadingRate(events, max(time.perf_counter() - started, 1e-9), stream.cut_values)


def holds_rows(dataset: Dataset) -> bool:
    """Whether the files are of a kind that people read row by row: any but ROOT."""
    return format_of(dataset.files[0], dataset.catalog.dtype) != "root"


def rows(dataset: Dataset) -> tuple[list[str], Iterator[list[Any]]]:
    """Return the names of all columns that are read, sorted, and an iterator over the events as plain values; for people, not for speed."""
    names = sorted(dataset.catalog.columns)

    def each() -> Iterator[list[Any]]:
        runs = dataset.catalog.runs(RUN_BYTES, names)
        with loaded_runs(dataset.catalog, runs, names, QUEUE_BYTES, dataset.losses) as loaded:
            for one in loaded:
                columns = [one.columns[name] for name in names]
                for event in range(one.run.events):
                    yield [_value(column, event) for column in columns]

    return names, each()


def _value(column: Column, event: int) -> Any:
    if column.offsets is None:
        return column.content[event].item()
    return column.content[column.offsets[event] : column.offsets[event + 1]].tolist()
