"""What changed between two specs: files, settings, branches and their numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mlaas4hep.streaming.statistics.specs import BranchRanges, Specs
from mlaas4hep.streaming.statistics.statistics import BranchStatistics

__all__ = ["TOLERANCE", "SpecsChange", "compare_specs"]

TOLERANCE = 1e-9
"""Relative difference of two numbers that counts as none: sums of the same values in another order differ by less."""


@dataclass(frozen=True, slots=True)
class SpecsChange:
    """One thing that is not the same in two specs.

    Parameters
    ----------
    part : {"file", "setting", "branch", "all"}
        Of what it is; ``all`` is the whole data set.
    name : str
        Which file, setting or branch.
    what : str
        What of it: ``there``, ``kind``, ``widest``, ``min``, ``max``, ``mean``, ``std``, ``values``, ``not finite``, ``events`` or ``value``; with
        ``train`` in front where it is that of the training events only.
    before, after : object
        Plain values; None where there is none.
    """

    part: str
    name: str
    what: str
    before: Any
    after: Any

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain values for JSON."""
        return asdict(self)


def compare_specs(before: Specs, after: Specs, tolerance: float = TOLERANCE) -> tuple[SpecsChange, ...]:
    """Return what changed from one specs to another; nothing where they are equal.

    Parameters
    ----------
    before, after : Specs
        Where one of them is a file of the original, only what it knows is compared.
    tolerance : float
        Relative difference up to which ranges, means and standard deviations count as equal; numbers of values and events must be the same.

    Examples
    --------
    >>> ranges = BranchRanges({"MET_pt": 0.0}, {"MET_pt": 900.0}, {}, 10)
    >>> wider = BranchRanges({"MET_pt": 0.0}, {"MET_pt": 950.0}, {}, 10)
    >>> old = Specs(("MET_pt",), (), ranges, ranges, {"a.root": 10})
    >>> new = Specs(("MET_pt",), (), wider, wider, {"a.root": 10})
    >>> for change in compare_specs(old, new):
    ...     print(change.name, change.what, change.before, change.after)
    MET_pt max 900.0 950.0
    """
    return (*_files(before, after), *_settings(before, after), *_branches(before, after, tolerance))


def _files(before: Specs, after: Specs) -> Iterator[SpecsChange]:
    for name in dict.fromkeys((*before.file_events, *after.file_events)):
        old, new = before.file_events.get(name), after.file_events.get(name)
        if old != new:
            yield SpecsChange("file", name, "events", old, new)
    old_uuids, new_uuids = _uuids(before), _uuids(after)
    for name in old_uuids:
        if name in new_uuids and old_uuids[name] != new_uuids[name]:
            yield SpecsChange("file", name, "uuid", old_uuids[name], new_uuids[name])
    if before.ranges.events != after.ranges.events:
        yield SpecsChange("all", "", "events", before.ranges.events, after.ranges.events)
    if before.train_statistics and after.train_statistics and before.train.events != after.train.events:
        yield SpecsChange("all", "", "train events", before.train.events, after.train.events)


def _uuids(specs: Specs) -> dict[str, Any]:
    return {str(file["path"]): file.get("uuid") for file in specs.source.get("files", ())}


def _settings(before: Specs, after: Specs) -> Iterator[SpecsChange]:
    if not before.source or not after.source:
        return
    for name in dict.fromkeys((*before.source, *after.source)):
        if name not in ("files", "features") and before.source.get(name) != after.source.get(name):
            yield SpecsChange("setting", name, "value", before.source.get(name), after.source.get(name))


def _branches(before: Specs, after: Specs, tolerance: float) -> Iterator[SpecsChange]:
    old_kinds, new_kinds = _kinds(before), _kinds(after)
    both_train = bool(before.train_statistics and after.train_statistics)
    for name in sorted({*old_kinds, *new_kinds}):
        old, new = old_kinds.get(name), new_kinds.get(name)
        if old is None or new is None:
            yield SpecsChange("branch", name, "there", old, new)
            continue
        if old != new:
            yield SpecsChange("branch", name, "kind", old, new)
        yield from _numbers(name, "", before.ranges, after.ranges, before.statistics, after.statistics, tolerance)
        if both_train:
            yield from _numbers(
                name, "train ", before.train, after.train, before.train_statistics, after.train_statistics, tolerance
            )


def _kinds(specs: Specs) -> dict[str, str]:
    return dict.fromkeys(specs.flat, "flat") | dict.fromkeys(specs.jagged, "jagged")


def _numbers(
    name: str,
    prefix: str,
    before: BranchRanges,
    after: BranchRanges,
    old: Mapping[str, BranchStatistics],
    new: Mapping[str, BranchStatistics],
    tolerance: float,
) -> Iterator[SpecsChange]:
    measured: list[tuple[str, float, float]] = [
        ("min", before.minimum[name], after.minimum[name]),
        ("max", before.maximum[name], after.maximum[name]),
    ]
    counted: list[tuple[str, int, int]] = []
    if name in before.widest and name in after.widest:
        counted.append(("widest", before.widest[name], after.widest[name]))
    if name in old and name in new:
        measured.append(("mean", old[name].mean, new[name].mean))
        measured.append(("std", math.sqrt(old[name].variance), math.sqrt(new[name].variance)))
        counted.append(("values", old[name].count, new[name].count))
        counted.append(("not finite", old[name].not_finite, new[name].not_finite))
    for what, was, is_now in counted:
        if was != is_now:
            yield SpecsChange("branch", name, prefix + what, was, is_now)
    for what, value, other in measured:
        if not math.isclose(value, other, rel_tol=tolerance):
            yield SpecsChange("branch", name, prefix + what, value, other)
