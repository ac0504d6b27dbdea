"""What the data look like: per branch its kind, range, widest event, mean and spread.

Written and read as the original's ``specs.json``, whose keys are over all events, plus our keys: ``train``, the same over training events only,
which is what everything that learns reads; ``statistics``; and ``source``, which says of which files, branches and split it all is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlaas4hep.atomic import write_atomically
from mlaas4hep.errors import SourceError, quoted
from mlaas4hep.streaming.encoding.encoding import Encoding, Feature
from mlaas4hep.streaming.encoding.normalisation import Normalisation
from mlaas4hep.streaming.encoding.vector import VectorSettings, encoding_from
from mlaas4hep.streaming.formats.base import ColumnType
from mlaas4hep.streaming.statistics.statistics import BranchStatistics

__all__ = ["BranchRanges", "Specs", "merge_specs"]


@dataclass(frozen=True)
class BranchRanges:
    """Range and width of each branch over some events; what an encoding is made of.

    Parameters
    ----------
    minimum, maximum : mapping of str to float
        Over the finite values of all events; 0 where there is none.
    widest : mapping of str to int
        For each jagged branch, the values of its longest event.
    events : int
        Number of events.
    """

    minimum: Mapping[str, float]
    maximum: Mapping[str, float]
    widest: Mapping[str, int]
    events: int

    def encoding(self, flat: Sequence[str], jagged: Sequence[str]) -> Encoding:
        """Return the original's vector: min-max scaled, flat branches sorted, then the jagged ones sorted, each as wide as its longest event."""
        features = []
        for name in (*sorted(flat), *sorted(jagged)):
            low, high = self.minimum[name], self.maximum[name]
            shift, scale = (low, 1.0 / (high - low)) if high > low else (0.0, 1.0)
            features.append(Feature(name, name in self.widest, self.widest.get(name, 1), shift, scale))
        return Encoding(tuple(features))

    def to_dict(self) -> dict[str, Any]:
        """Return the original's keys, as plain values for JSON."""
        return {
            "jdim": dict(self.widest),
            "minv": dict(self.minimum),
            "maxv": dict(self.maximum),
            "nans": {name: _scaled_zero(self.minimum[name], self.maximum[name]) for name in self.minimum},
        }

    @classmethod
    def of(cls, statistics: Mapping[str, BranchStatistics], jagged: Iterable[str], events: int) -> BranchRanges:
        """Take ranges and widths out of statistics."""
        return cls(
            {name: found.range[0] for name, found in statistics.items()},
            {name: found.range[1] for name, found in statistics.items()},
            {name: statistics[name].widest for name in jagged},
            events,
        )


@dataclass(frozen=True)
class Specs:
    """Statistics of the features of a dataset.

    Parameters
    ----------
    flat, jagged : tuple of str
        Names of the features of each kind, sorted.
    ranges : BranchRanges
        Over all events.
    train : BranchRanges
        Over training events. A file of the original has none: then it is over all events, as there.
    file_events : mapping of str to int
        Number of events of each file.
    statistics, train_statistics : mapping of str to BranchStatistics
        Empty when read from a file of the original.
    source : mapping
        Files, tree and split that it was made of; empty when read from a file of the original.
    """

    flat: tuple[str, ...]
    jagged: tuple[str, ...]
    ranges: BranchRanges
    train: BranchRanges
    file_events: Mapping[str, int]
    statistics: Mapping[str, BranchStatistics] = field(default_factory=dict)
    train_statistics: Mapping[str, BranchStatistics] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        statistics: Mapping[str, BranchStatistics],
        train_statistics: Mapping[str, BranchStatistics],
        jagged: Iterable[str],
        file_events: Mapping[str, int],
        train_events: int,
        source: Mapping[str, Any],
    ) -> Specs:
        """Make the specs from statistics of all features over all and over training events."""
        lists = tuple(sorted(jagged))
        flat = tuple(sorted(name for name in statistics if name not in lists))
        return cls(
            flat,
            lists,
            BranchRanges.of(statistics, lists, sum(file_events.values())),
            BranchRanges.of(train_statistics, lists, train_events),
            file_events,
            statistics,
            train_statistics,
            source,
        )

    @property
    def encoding(self) -> Encoding:
        """The original's event vector, min-max scaled, from training events only."""
        return self.train.encoding(self.flat, self.jagged)

    def make_encoding(
        self,
        settings: VectorSettings | Normalisation = VectorSettings(),  # noqa: B008 - it is frozen
        columns: Mapping[str, ColumnType] | None = None,
    ) -> Encoding:
        """Return the event vector as it is wanted, from training events only.

        Parameters
        ----------
        settings : VectorSettings, str or mapping
            What the vector shall be, or only its normalisation: a name, or pattern of branches → name, of
            :data:`~mlaas4hep.streaming.encoding.normalisation.NORMALISATIONS`.
        columns : mapping of str to ColumnType, optional
            Further branches of the files, among which are counters and what objects are ordered by.

        Raises
        ------
        SettingError
            If the settings do not fit the data, or need more than ranges and the specs are a file of the original, which knows ranges only.
        """
        if not isinstance(settings, VectorSettings):
            settings = VectorSettings(normalisation=settings)
        return encoding_from(self, settings, columns)

    def mismatch(self, source: Mapping[str, Any]) -> str | None:
        """Return why these specs are not those of another source, or None if they are.

        Parameters
        ----------
        source : mapping
            As :meth:`mlaas4hep.Dataset.describe` gives it. Every key counts; one that says nothing (None, or empty) may as well be missing.
        """
        if not self.source:
            files = {entry["path"]: entry["entries"] for entry in source["files"]}
            if dict(self.file_events) != files:
                return "its files or their numbers of events are others"
            if sorted((*self.flat, *self.jagged)) != sorted(source["features"]):
                return "its features are others"
            return None
        reasons = (
            _difference(key, self.source.get(key), source.get(key)) for key in dict.fromkeys((*source, *self.source))
        )
        return next((reason for reason in reasons if reason), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the original's format with our keys, as plain values for JSON."""
        train = self.train.to_dict() | {"events": self.train.events}
        if self.train_statistics:
            train["statistics"] = {name: found.to_dict() for name, found in self.train_statistics.items()}
        description: dict[str, Any] = {
            **self.ranges.to_dict(),
            "fkeys": list(self.flat),
            "jkeys": list(self.jagged),
            "events": {**self.file_events, "total": self.ranges.events},
            "train": train,
        }
        if self.statistics:
            description["statistics"] = {name: found.to_dict() for name, found in self.statistics.items()}
        if self.source:
            description["source"] = dict(self.source)
        return description

    def write(self, path: str | Path) -> None:
        """Write the specs as JSON; the file is whole or not there."""
        write_atomically(Path(path), json.dumps(self.to_dict(), indent=1).encode())

    @classmethod
    def read(cls, path: str | Path) -> Specs:
        """Read specs that this program or the original wrote.

        Raises
        ------
        SourceError
            If the file is missing or is no such JSON.
        """
        try:
            description = json.loads(Path(path).read_bytes())
        except FileNotFoundError:
            raise SourceError(str(path), "no such file") from None
        except (OSError, ValueError) as error:
            raise SourceError(str(path), f"cannot be read as specs: {error}") from error
        try:
            return cls.from_dict(description)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SourceError(str(path), f"is no specs file: {_what_is_wrong(error)}") from error

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Specs:
        """Make the specs from what :meth:`to_dict` gave, or from the original's dictionary."""
        flat = tuple(sorted(map(str, description["fkeys"])))
        jagged = tuple(sorted(map(str, description["jkeys"])))
        files = {str(name): int(events) for name, events in description.get("events", {}).items() if name != "total"}
        total = int(description.get("events", {}).get("total", sum(files.values())))
        ranges = _ranges(description, flat, jagged, total)
        train = description.get("train")
        return cls(
            flat,
            jagged,
            ranges,
            ranges if train is None else _ranges(train, flat, jagged, int(train["events"])),
            files,
            _statistics(description),
            _statistics(train or {}),
            description.get("source", {}),
        )


def merge_specs(parts: Sequence[Specs]) -> Specs:
    """Merge the specs of parts of a dataset, each made by this program over other files.

    Raises
    ------
    ValueError
        If there is no part, or their features are not the same.
    """
    if not parts:
        raise ValueError("there must be at least one part")
    first = parts[0]
    if any((part.flat, part.jagged) != (first.flat, first.jagged) for part in parts):
        raise ValueError("the parts must have the same features")
    everything = dict(first.statistics)
    training = dict(first.train_statistics)
    for part in parts[1:]:
        for name in everything:
            everything[name] += part.statistics[name]
            training[name] += part.train_statistics[name]
    source = dict(first.source)
    if source:
        source["files"] = [entry for part in parts for entry in part.source["files"]]
    return Specs.of(
        everything,
        training,
        first.jagged,
        {name: events for part in parts for name, events in part.file_events.items()},
        sum(part.train.events for part in parts),
        source,
    )


def _scaled_zero(low: float, high: float) -> float:
    return (0.0 - low) / (high - low) if high > low else high


def _ranges(description: Mapping[str, Any], flat: Sequence[str], jagged: Sequence[str], events: int) -> BranchRanges:
    names = (*flat, *jagged)
    return BranchRanges(
        {name: float(description["minv"][name]) for name in names},
        {name: float(description["maxv"][name]) for name in names},
        {name: int(description["jdim"][name]) for name in jagged},
        events,
    )


def _statistics(description: Mapping[str, Any]) -> dict[str, BranchStatistics]:
    widths = description.get("jdim", {})
    return {
        name: BranchStatistics(
            int(found["count"]),
            float(description["minv"][name]) if found["count"] else float("inf"),
            float(description["maxv"][name]) if found["count"] else float("-inf"),
            float(found["mean"]),
            float(found.get("squares", float(found["std"]) ** 2 * int(found["count"]))),
            int(found["not_finite"]),
            int(widths.get(name, 1)),
            stored_quantiles=None
            if found.get("quantiles") is None
            else {float(level): float(value) for level, value in found["quantiles"].items()},
        )
        for name, found in description.get("statistics", {}).items()
    }


def _difference(key: str, known: Any, here: Any) -> str | None:
    """Return what is other than here about one key of a source, or None."""
    if key == "files":
        return _other_files(known or (), here or ())
    # What travelled through JSON has lists for tuples.
    if json.loads(json.dumps(known)) == json.loads(json.dumps(here)) or not (known or here):
        return None
    verb = "are" if key.endswith("s") else "is"
    if isinstance(known, Sequence) and isinstance(here, Sequence) and not isinstance(known, str):
        gone, new = ([name for name in one if name not in other] for one, other in ((known, here), (here, known)))
        if gone or new:
            parts = [f"{quoted(names)} only {where}" for names, where in ((gone, "there"), (new, "here")) if names]
            return f"its {key} {verb} another: {'; '.join(parts)}"
    return f"its {key} {verb} another: {_shown(known)}, here {_shown(here)}"


def _other_files(known: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]) -> str | None:
    reason = "its files or their numbers of events are others"
    if len(known) != len(here):
        return f"{reason}: {len(known)} files, here {len(here)}"
    for old, new in zip(known, here, strict=True):
        if old["uuid"] != new["uuid"]:
            return f"{reason}: {new['path']} has uuid {new['uuid']}, there it was {old['uuid']} ({old['path']})"
        for key, what in (("entries", "events"), ("size", "bytes")):
            if key in old and key in new and old[key] != new[key]:
                return f"{reason}: {new['path']} has {new[key]} {what}, there it had {old[key]}"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _what_is_wrong(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)
