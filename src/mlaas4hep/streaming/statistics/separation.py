"""Find features that tell the classes apart by themselves: identifiers, leftovers of the generator, a cut that only one sample has.

Such a feature is rarely physics. Each is judged by the area under the ROC curve (AUC) of its value alone; one that holds lists by its first value,
and by the number of them. Values are counted as the float32 numbers that a model would get; where there are too many different ones, their last bits
are dropped until there are not, so memory is bounded, and pieces can be counted anywhere and added up. No value stands below all values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats.base import Column

__all__ = ["ClassSketches", "Separation", "separating_features"]

THRESHOLD = 0.99
FEWEST_EVENTS = 20
"""Events of a class and of the others, below which a perfect separation may be chance."""

KEY_BITS = 33
"""Bits of a value's key, below those of the class: 0 for no value, then each float32."""

COARSEST = 16
"""Bits that may be dropped: what is left has 8 significant bits."""

DISTINCT_PER_CLASS = 2048
"""Different values above which bits are dropped."""

WAITING = 4096
"""Keys that are kept as they are before they are counted, so that small runs cost little."""

Keys = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Separation:
    """A feature that separates a class from the others.

    Parameters
    ----------
    feature : str
        Its name; ``len(Jet_pt)`` for the number of values of one that holds lists.
    auc : float
        Area under the ROC curve, of the value or of its negative, whichever is larger.
    label : str
        The class; of two classes the second.

    Examples
    --------
    >>> print(Separation("run", 1.0, "1"))
    feature 'run' alone separates class '1' from the rest (AUC 1.0000); leave it out unless that is physics
    """

    feature: str
    auc: float
    label: str

    def __str__(self) -> str:
        return (
            f"feature '{self.feature}' alone separates class '{self.label}' from the rest (AUC {self.auc:.4f}); "
            "leave it out unless that is physics"
        )


class ClassSketches:
    """Values of features, counted for each class; added to run by run, and to each other.

    Parameters
    ----------
    features : sequence of str
        Names of the columns to judge.
    classes : sequence of str
        Names of the classes in the order of the class index; at least two.

    Examples
    --------
    >>> sketches = ClassSketches(["run"], ["background", "signal"])
    >>> y = np.repeat([0, 1], 50)
    >>> sketches.add({"run": Column(y + 1, None)}, y, np.ones(100, bool))
    >>> [str(found) for found in separating_features(sketches)]
    ["feature 'run' alone separates class 'signal' from the rest (AUC 1.0000); leave it out unless that is physics"]
    """

    def __init__(self, features: Sequence[str], classes: Sequence[str]) -> None:
        self.features = tuple(features)
        self.classes = tuple(classes)
        self._values = {name: self._no_counts() for name in self.features}
        self._lengths: dict[str, _KeyCounts] = {}

    def add(self, columns: Mapping[str, Column], y: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> None:
        """Count the values of consecutive events.

        Parameters
        ----------
        columns : mapping of str to Column
            Holds at least the features.
        y : int64 array of shape ``[n]``
            Class index.
        chosen : bool array of shape ``[n]``
            Events that count: training events that pass the selection.
        """
        rows = np.flatnonzero(chosen)
        if not len(rows):
            return
        of_class = y[rows] << KEY_BITS
        for name in self.features:
            content, offsets = columns[name]
            if offsets is None:
                keys = _keys(content[rows])
            else:
                first, lengths = offsets[:-1][rows], np.diff(offsets)[rows]
                there = lengths > 0
                keys = np.zeros(len(rows), np.int64)
                keys[there] = _keys(content[first[there]])
                self._lengths.setdefault(name, self._no_counts()).add(of_class + _keys(lengths))
            self._values[name].add(of_class + keys)

    def __add__(self, other: ClassSketches) -> ClassSketches:
        """Return the counts of both; features and classes must be the same."""
        if (self.features, self.classes) != (other.features, other.classes):
            raise ValueError("counts of other features or classes cannot be added")
        total = ClassSketches(self.features, self.classes)
        for name in self.features:
            total._values[name] = self._values[name] + other._values[name]
        for name in {*self._lengths, *other._lengths}:
            none = self._no_counts()
            total._lengths[name] = self._lengths.get(name, none) + other._lengths.get(name, none)
        return total

    def _no_counts(self) -> _KeyCounts:
        return _KeyCounts(DISTINCT_PER_CLASS * len(self.classes))

    def separation_of(self, feature: str) -> Separation | None:
        """Return how well a feature separates the class that it separates best; None where a class or the rest has too few events."""
        judged = [("", self._values[feature])]
        if feature in self._lengths:
            judged.append(("len", self._lengths[feature]))
        found = [
            Separation(f"{prefix}({feature})" if prefix else feature, auc, label)
            for prefix, counts in judged
            for label, auc in self._areas(counts)
        ]
        return max(found, key=lambda one: one.auc, default=None)

    def _areas(self, counts: _KeyCounts) -> list[tuple[str, float]]:
        """Return the AUC of each class that can be judged."""
        keys, events = counts.totals()
        values, place = np.unique(keys & ((1 << (KEY_BITS - counts.dropped)) - 1), return_inverse=True)
        per_class = np.zeros((len(self.classes), len(values)), np.int64)
        np.add.at(per_class, (keys >> (KEY_BITS - counts.dropped), place), events)
        everything = per_class.sum(axis=0)
        judged = range(1, 2) if len(self.classes) == 2 else range(len(self.classes))
        found = []
        for number in judged:
            of_class, rest = per_class[number], everything - per_class[number]
            if min(of_class.sum(), rest.sum()) >= FEWEST_EVENTS:
                found.append((self.classes[number], _area(of_class, rest)))
        return found


def separating_features(sketches: ClassSketches, threshold: float = THRESHOLD) -> list[Separation]:
    """Return the features whose AUC is above a threshold, the best first.

    Parameters
    ----------
    sketches : ClassSketches
    threshold : float
        In ``[0.5, 1]``.
    """
    found = (sketches.separation_of(feature) for feature in sketches.features)
    return sorted((one for one in found if one and one.auc > threshold), key=lambda one: (-one.auc, one.feature))


class _KeyCounts:
    """How often each key came, in bounded memory; the last ones wait, uncounted, until they are worth a sort.

    How many bits are dropped depends on all keys together, not on the order in which they came: the fewest that leave few enough different ones.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.dropped = 0
        self.keys = np.empty(0, np.int64)
        self.events = np.empty(0, np.int64)
        self.waiting: list[Keys] = []
        self.waiting_keys = 0

    def add(self, keys: Keys) -> None:
        self.waiting.append(keys >> self.dropped)
        self.waiting_keys += len(keys)
        if self.waiting_keys >= max(WAITING, len(self.keys)):
            self.totals()

    def totals(self) -> tuple[Keys, Keys]:
        """Return the keys without the dropped bits, rising, and how often each came."""
        if self.waiting:
            self._merge(*_counted(np.concatenate(self.waiting)))
            self.waiting, self.waiting_keys = [], 0
        return self.keys, self.events

    def __add__(self, other: _KeyCounts) -> _KeyCounts:
        total = _KeyCounts(self.most)
        for part in (self, other):
            keys, events = part.totals()
            more = max(0, part.dropped - total.dropped)
            total._drop(more)
            total._merge(keys >> (total.dropped - part.dropped), events)
        return total

    def _merge(self, keys: Keys, events: Keys) -> None:
        everything = np.concatenate([self.keys, keys])
        order = np.argsort(everything, kind="stable")
        self.keys, self.events = _grouped(everything[order], np.concatenate([self.events, events])[order])
        bits = 0
        while self.dropped + bits < COARSEST and np.count_nonzero(np.diff(self.keys >> bits)) >= self.most:
            bits += 1
        self._drop(bits)

    def _drop(self, bits: int) -> None:
        if bits:
            self.dropped += bits
            self.keys, self.events = _grouped(self.keys >> bits, self.events)


def _counted(keys: Keys) -> tuple[Keys, Keys]:
    low, high = int(keys.min()), int(keys.max())
    if high - low > 16 * len(keys):
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys - low)
    occupied = np.flatnonzero(counts)
    return occupied + low, counts[occupied]


def _grouped(keys: Keys, events: Keys) -> tuple[Keys, Keys]:
    """Return keys that are sorted each once, with the sum of its events."""
    begins = np.flatnonzero(np.diff(keys, prepend=-1))
    return (keys[begins], np.add.reduceat(events, begins)) if len(keys) else (keys, events)


def _keys(values: npt.NDArray[np.generic]) -> Keys:
    """Return numbers that rise with the values: 0 where there is none that is finite, else from the bits of the float32."""
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(values.astype(np.float32, copy=False)).view(np.uint32).astype(np.int64)
    keys = np.where(bits < 0x8000_0000, bits + 0x8000_0000, 0x1_0000_0000 - bits)  # so -0 is 0
    keys[bits & 0x7F80_0000 == 0x7F80_0000] = 0
    return keys


def _area(of_class: npt.NDArray[np.int64], rest: npt.NDArray[np.int64]) -> float:
    """Return the area under the ROC curve from counts in rising bins, at least 1/2; values of one bin count as equal."""
    below = np.cumsum(rest) - rest
    # In half units, so that everything is a whole number; of doubles, since the products outgrow 64 bits.
    twice = float((of_class * (2.0 * below + rest)).sum())
    area = twice / (2.0 * float(of_class.sum()) * float(rest.sum()))
    return max(area, 1.0 - area)
