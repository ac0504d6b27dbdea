"""Weights of one run of events before anything is learned: the physics weight, the rule for negative ones, and the bin of each event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import BranchTypeError, SettingError, WeightError
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.targets import entry_at
from mlaas4hep.streaming.weights.weighting import Weighting

__all__ = ["Edges", "EventWeights", "TrainingRun", "bin_name"]

Edges = tuple[tuple[float, ...], ...]
"""For each column to flatten, the edges between its bins, without the outermost."""


FEW_EDGES = 64
"""Edges up to which comparing with each is faster than a search, whose steps no processor can foresee."""


class TrainingRun(NamedTuple):
    """Events of one file, as weights are learned from them.

    Attributes
    ----------
    file : int
        Index of the file.
    entries : int or int64 array of shape ``[n]``
        Entries of the events in the file, for messages; a number is that of the first of consecutive ones.
    columns : mapping of str to Column
        Holds at least :attr:`Weighting.columns <mlaas4hep.streaming.weights.weighting.Weighting.columns>`.
    y : int64 array of shape ``[n]``
        Class index; anything without classes.
    chosen : bool array of shape ``[n]``
        Which events are training events that pass the selection. Nothing is learned from the others.
    """

    file: int
    entries: int | npt.NDArray[np.int64]
    columns: Mapping[str, Column]
    y: npt.NDArray[Any]
    chosen: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class EventWeights:
    """What the settings alone say of an event's weight.

    Parameters
    ----------
    weighting : Weighting
    files : sequence of str
        Names of the files, for messages.
    per_file : sequence of float
        Factor of each file.
    """

    weighting: Weighting
    files: Sequence[str]
    per_file: Sequence[float]

    def signed(self, run: TrainingRun) -> npt.NDArray[np.float64]:
        """Return the physics weights, float64 ``[n]``; 0 for events that are not chosen.

        Raises
        ------
        WeightError
            If one is not finite.
        BranchTypeError
            If the column holds lists.
        """
        factor = np.float64(self.per_file[run.file])
        branch = self.weighting.branch
        if branch is None:
            return np.where(run.chosen, factor, 0.0)
        values = self._flat(run, branch)
        with np.errstate(over="ignore", invalid="ignore"):
            weight = np.where(run.chosen, values * factor, 0.0)
        self.check_finite(weight, values, run)
        return weight

    def after_rule(self, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what the rule for negative weights makes of physics weights: 0 for events that it leaves out."""
        if self.weighting.negative == "abs":
            return np.abs(weight)
        return np.maximum(weight, 0.0) if self.weighting.negative == "drop" else weight

    def refuse_negative(self, events: int) -> None:
        """Raise an error if there are events with a negative weight and the rule is that there must be none."""
        if events and self.weighting.negative == "error":
            rule = f"'keep', 'abs' or 'drop', since {events} training events have a negative weight"
            raise SettingError("weights.negative", rule, "error")

    def bins(self, run: TrainingRun, edges: Edges) -> npt.NDArray[np.int64]:
        """Return the bin of each event, int64 ``[n]``: of two columns the second runs faster; 0 for all when nothing is flattened.

        A column with ``m`` edges has the bins ``0 … m``, and ``m + 1`` for events without a value.
        """
        place = np.zeros(len(run.chosen), np.int64)
        for name, inner in zip(self.weighting.flatten, edges, strict=True):
            values = self._flat(run, name)
            found = _bin(values, inner)
            if values.dtype.kind == "f":
                found[np.isnan(values)] = len(inner) + 1
            place = place * (len(inner) + 2) + found
        return place

    def column_to_flatten(self, run: TrainingRun, name: str) -> Column:
        """Return a column that has one value an event.

        Raises
        ------
        BranchTypeError
            If it holds lists.
        """
        return Column(self._flat(run, name), None)

    def check_finite(self, weight: npt.NDArray[np.floating[Any]], values: npt.NDArray[Any], run: TrainingRun) -> None:
        """Raise an error that names the first event whose weight is not finite, with the value that it came from."""
        bad = ~np.isfinite(weight)
        if bad.any():
            place = int(np.argmax(bad))
            column = self.weighting.branch or ""
            problem = (
                f"weight {repr(column) + ' ' if column else ''}is {values[place]}; it must be finite, also as float32"
            )
            raise WeightError(problem, self._name(run), entry_at(run.entries, place), column)

    def _flat(self, run: TrainingRun, name: str) -> npt.NDArray[Any]:
        content, offsets = run.columns[name]
        if offsets is not None:
            raise BranchTypeError(name, self._name(run), "weights need one value an event; it holds a list")
        return content

    def _name(self, run: TrainingRun) -> str:
        return self.files[run.file] if self.files else f"file {run.file}"


def _bin(values: npt.NDArray[Any], inner: tuple[float, ...]) -> npt.NDArray[np.int64]:
    """Return how many edges are not above each value."""
    doubles = values.astype(np.float64)
    if len(inner) > FEW_EDGES:
        return np.searchsorted(np.array(inner), doubles, side="right").astype(np.int64, copy=False)
    found = np.zeros(len(values), np.uint8)
    for edge in inner:
        found += doubles >= edge
    return found.astype(np.int64)


def bin_name(weighting: Weighting, edges: Edges, number: int) -> str:
    """Return what the events of a bin have in common, for messages.

    Examples
    --------
    >>> weighting = Weighting(flatten={"pt": [0, 30, 60], "eta": [-5, 0, 5]})
    >>> [bin_name(weighting, ((30.0,), (0.0,)), number) for number in (1, 8)]
    ['pt in [-inf, 30) and eta in [0, inf)', 'no pt and no eta']
    """
    places = np.unravel_index(number, [len(inner) + 2 for inner in edges])
    parts = []
    for name, inner, place in zip(weighting.flatten, edges, places, strict=True):
        bounds = ("-inf", *(f"{edge:g}" for edge in inner), "inf")
        parts.append(f"no {name}" if place > len(inner) else f"{name} in [{bounds[place]}, {bounds[place + 1]})")
    return " and ".join(parts)
