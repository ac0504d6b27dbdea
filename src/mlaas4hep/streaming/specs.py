"""What the data look like: per branch its kind, range, widest event, mean and spread.

Written and read as the original's ``specs.json``, whose keys are over all events, plus our keys: ``train``, the same over training events only,
which is what everything that learns reads; ``statistics``; and ``source``, which says of which files, branches and split it all is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlaas4hep.atomic import write_atomically
from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.encoding import Encoding, Feature
from mlaas4hep.streaming.normalisation import Normalisation, chosen_normalisation, scaling
from mlaas4hep.streaming.statistics import BranchStatistics

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

    def make_encoding(self, normalisation: Normalisation) -> Encoding:
        """Return the event vector with another scaling, from training events only.

        Parameters
        ----------
        normalisation : str or mapping
            Name, or pattern of branches → name, of :data:`~mlaas4hep.streaming.normalisation.NORMALISATIONS`.

        Raises
        ------
        SettingError
            If there is no such normalisation, or the specs are a file of the original, which knows ranges only.
        """
        features = []
        for feature in self.encoding.features:
            kind = chosen_normalisation(normalisation, feature.branch)
            if kind != "minmax":
                if feature.branch not in self.train_statistics:
                    raise SettingError("normalisation", "'minmax' with specs that hold nothing but ranges", kind)
                shift, scale = scaling(kind, self.train_statistics[feature.branch])
                feature = replace(feature, shift=shift, scale=scale)  # noqa: PLW2901
            features.append(feature)
        return Encoding(tuple(features))

    def mismatch(self, source: Mapping[str, Any]) -> str | None:
        """Return why these specs are not those of another source, or None if they are.

        Parameters
        ----------
        source : mapping
            As :meth:`mlaas4hep.Dataset.describe` gives it.
        """
        if not self.source:
            files = {entry["path"]: entry["entries"] for entry in source["files"]}
            if dict(self.file_events) != files:
                return "its files or their numbers of events are others"
            if sorted((*self.flat, *self.jagged)) != sorted(source["features"]):
                return "its features are others"
            return None
        for key, what in (
            ("tree", "its tree"),
            ("features", "its features"),
            ("split", "its split"),
            ("identifiers", "its identifiers"),
        ):
            if self.source.get(key) != source[key]:
                return f"{what} {'are' if what.endswith('s') else 'is'} another: {self.source.get(key)!r}, here {source[key]!r}"
        known = [(entry["uuid"], entry["entries"]) for entry in self.source["files"]]
        here = [(entry["uuid"], entry["entries"]) for entry in source["files"]]
        return None if known == here else "its files or their numbers of events are others"

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
            float(found["std"]) ** 2 * int(found["count"]),
            int(found["not_finite"]),
            int(widths.get(name, 1)),
            stored_quantiles={float(level): float(value) for level, value in found.get("quantiles", {}).items()},
        )
        for name, found in description.get("statistics", {}).items()
    }


def _what_is_wrong(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)
