"""Weights of events: what physics says they are, and what a training makes of them.

The physics weight is signed and never altered; metrics use it. The training weight follows from it, from sums over the training events only: the rule
for negative weights, factors that make a distribution flat within each class, factors that make the classes equal, and one that makes the mean 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError, WeightError
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.statistics.sketch import QuantileSketch, sketch_column
from mlaas4hep.streaming.weights.cross_sections import file_weights
from mlaas4hep.streaming.weights.event_weights import Edges, EventWeights, TrainingRun, bin_name
from mlaas4hep.streaming.weights.weighting import Weighting

__all__ = ["TrainingRun", "Weighting", "Weights", "file_weights", "learn_weights", "refuse_negative"]

MAX_CELLS = 10_000_000
"""Most classes × bins of the table of factors."""

Floats = npt.NDArray[np.float64]
Chosen = npt.NDArray[np.bool_]

_NO_CLASSES = np.empty(0, np.int64)


@dataclass(frozen=True)
class Weights:
    """Weights as they were learned; made by :func:`learn_weights`, of plain values.

    Parameters
    ----------
    weighting : Weighting
        The settings.
    files : tuple of str
        Names of the files, for messages.
    classes : tuple of str
        Names of the classes; empty without.
    per_file : tuple of float
        Factor of each file, from :func:`file_weights`.
    edges : tuple of tuple of float
        For each column of ``weighting.flatten`` the edges between its bins, without the outermost.
    factors : tuple of tuple of float
        For each class (one without classes) and bin: what a weight is multiplied by after the rule for negative ones. The last bin of a column is
        that of events without a value; of two columns the second runs faster. 0 where there was no training event.
    events : tuple of int
        Training events of each class that are left after that rule.
    negative : int
        Training events whose physics weight is negative.
    """

    weighting: Weighting
    files: tuple[str, ...]
    classes: tuple[str, ...]
    per_file: tuple[float, ...]
    edges: Edges
    factors: tuple[tuple[float, ...], ...]
    events: tuple[int, ...]
    negative: int

    @property
    def columns(self) -> tuple[str, ...]:
        """What must be read of each event."""
        return self.weighting.columns

    def signed(
        self,
        file: int,
        events: int,
        columns: Mapping[str, Column],
        *,
        chosen: Chosen | None = None,
        entries: int | npt.NDArray[np.int64] = 0,
    ) -> Floats:
        """Return the physics weights of some events of one file: negative ones as they are, with the file's factor.

        Parameters
        ----------
        file : int
            Index of the file.
        events : int
        columns : mapping of str to Column
            Holds at least :attr:`columns`.
        chosen : bool array of shape ``[events]``, optional
            Events that are used at all; the others may hold anything, and get 0.
        entries : int or int64 array of shape ``[events]``
            Entries of the events in the file, for the messages; a number is that of the first of consecutive ones.

        Returns
        -------
        float64 array of shape ``[events]``

        Raises
        ------
        WeightError
            If a weight is NaN or infinite; it names file, entry and column.
        BranchTypeError
            If the column holds lists.
        """
        return self._events.signed(TrainingRun(file, entries, columns, _NO_CLASSES, _all(events, chosen)))

    def training(
        self,
        file: int,
        events: int,
        columns: Mapping[str, Column],
        y: npt.NDArray[Any],
        *,
        chosen: Chosen | None = None,
        entries: int | npt.NDArray[np.int64] = 0,
    ) -> tuple[npt.NDArray[np.float32], Chosen | None]:
        """Return what a training weights some events of one file with; other parameters as in :meth:`signed`.

        Parameters
        ----------
        y : int64 array of shape ``[events]``
            Class index; anything without classes.

        Returns
        -------
        weight : float32 array of shape ``[events]``
            0 for events that are left out, and for held-out ones in a bin without training events of their class.
        keep : bool array of shape ``[events]``, or None
            False for events that the rule for negative weights leaves out; None when it leaves none out.

        Raises
        ------
        WeightError
            If a weight is not finite, also as float32.
        SettingError
            If a weight is negative and the rule is ``"error"``.
        """
        run = TrainingRun(file, entries, columns, y, _all(events, chosen))
        weight = self._events.signed(run)
        negative = weight < 0
        self._events.refuse_negative(int(negative.sum()))
        keep = ~negative if self.weighting.negative == "drop" and self.weighting.branch is not None else None
        weight = self._events.after_rule(weight) * self._factors_of(run)
        with np.errstate(over="ignore"):
            narrow = weight.astype(np.float32)
        self._events.check_finite(narrow, weight, run)
        return narrow, keep

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        return {**asdict(self), "weighting": self.weighting.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Weights:
        """Make it from what :meth:`to_dict` gave."""
        plain = {name: _tuples(value) for name, value in values.items() if name != "weighting"}
        return cls(weighting=Weighting.from_value(values["weighting"]), **plain)

    @cached_property
    def _events(self) -> EventWeights:
        return EventWeights(self.weighting, self.files, self.per_file)

    def _factors_of(self, run: TrainingRun) -> Floats | np.float64:
        if not self.classes:
            return self._table[self._events.bins(run, self.edges)] if self.edges else self._table[0]
        place = run.y * len(self.factors[0])
        return self._table.take(place + self._events.bins(run, self.edges) if self.edges else place)

    @cached_property
    def _table(self) -> Floats:
        return np.array(self.factors).reshape(-1)


def learn_weights(
    weighting: Weighting,
    passes: Callable[[], Iterable[TrainingRun]],
    classes: Sequence[str],
    per_file: npt.NDArray[np.float64],
    files: Sequence[str] = (),
) -> Weights:
    """Learn the factors of the training weights, from training events only.

    Parameters
    ----------
    weighting : Weighting
    passes : callable
        Each call gives all runs of events once. Called twice where edges are chosen from the events, once else, and not at all where every weight
        is 1.
    classes : sequence of str
        Names of the classes; empty without.
    per_file : float64 array of shape ``[files]``
        From :func:`file_weights`.
    files : sequence of str
        Names of the files, for messages.

    Returns
    -------
    Weights
        Such that over the training events that the rule for negative weights keeps: the mean training weight is 1; with ``balance_classes`` the
        sums of all classes are equal; with ``flatten`` the sums of all bins of a class that hold events are equal.

    Raises
    ------
    WeightError
        If a weight is not finite, the weights of a class or of a bin to flatten do not add up to more than 0, or a class to balance has no event.
    SettingError
        If classes are to be balanced where there are none, or a weight is negative where that is an error.
    BranchTypeError
        If a column holds lists.

    Examples
    --------
    >>> y, weight = np.array([0, 0, 0, 1]), np.array([1.0, 1.0, -1.0, 5.0])
    >>> run = TrainingRun(0, 0, {"genWeight": Column(weight, None)}, y, np.ones(4, bool))
    >>> weights = learn_weights(Weighting("genWeight", balance_classes=True), lambda: [run], ["0", "1"], np.ones(1))
    >>> weights.training(0, 4, run.columns, y)[0].tolist()
    [2.0, 2.0, -2.0, 2.0]
    """
    names = tuple(files)
    factors = tuple(float(number) for number in per_file)
    rows = max(1, len(classes))
    if weighting.balance_classes and len(classes) < 2:
        raise SettingError("weights.balance_classes", "left out where there are no classes", True)
    if not weighting:
        return Weights(weighting, names, tuple(classes), factors, (), ((1.0,),) * rows, (0,) * rows, 0)
    event_weights = EventWeights(weighting, names, factors)
    edges = _learn_edges(event_weights, passes)
    cells = int(np.prod([len(inner) + 2 for inner in edges]))
    if rows * cells > MAX_CELLS:
        raise SettingError("weights.flatten", f"of at most {MAX_CELLS // rows} bins for {rows} classes", cells)
    sums, counts = np.zeros(rows * cells), np.zeros(rows * cells, np.int64)
    events = np.zeros(rows, np.int64)
    negative = 0
    for run in passes():
        weight = event_weights.signed(run)
        below = weight < 0
        negative += int(below.sum())
        kept = run.chosen & ~below if weighting.negative == "drop" else run.chosen
        weight = event_weights.after_rule(weight)[kept]
        row = run.y[kept] if classes else np.zeros(len(weight), np.int64)
        place = row * cells + event_weights.bins(run, edges)[kept]
        sums += np.bincount(place, weight, rows * cells)
        counts += np.bincount(place[weight != 0], minlength=rows * cells)
        events += np.bincount(row, minlength=rows)
    event_weights.refuse_negative(negative)
    table = _factors(weighting, edges, tuple(classes), sums.reshape(rows, cells), counts.reshape(rows, cells), events)
    return Weights(
        weighting,
        names,
        tuple(classes),
        factors,
        edges,
        tuple(tuple(row) for row in table.tolist()),
        tuple(events.tolist()),
        negative,
    )


def refuse_negative(framework: str, weights: Weights) -> None:
    """Raise an error if negative weights would come to a framework that cannot take them.

    Raises
    ------
    SettingError
        If there are negative training weights; it names the setting that says what becomes of them.
    """
    if weights.negative and weights.weighting.negative == "keep":
        raise SettingError(
            "weights.negative",
            f"'abs' or 'drop' for {framework}, which takes no negative weights ({weights.negative} training events have one)",
            "keep",
        )


def _factors(
    weighting: Weighting,
    edges: Edges,
    classes: tuple[str, ...],
    sums: Floats,
    counts: npt.NDArray[np.int64],
    events: npt.NDArray[np.int64],
) -> Floats:
    """Return the factor of each class and bin, float64 ``[classes, bins]``."""
    wanted = sums.sum(axis=1)
    for row in np.flatnonzero(wanted <= 0):
        of_class = f" of class '{classes[row]}'" if classes else ""
        if events[row]:
            raise WeightError(
                f"the weights of the {events[row]} training events{of_class} add up to {wanted[row]:g}; it must be more than 0"
            )
        if weighting.balance_classes or not events.any():
            raise WeightError(f"there is no training event{of_class} whose weight could be scaled")
    table = np.ones(sums.shape)
    if weighting.flatten:
        table = _flat(weighting, edges, classes, sums, counts, wanted)
    if weighting.balance_classes:
        table /= wanted[:, np.newaxis]
        wanted = np.ones(len(wanted))
    return np.asarray(table * (events.sum() / wanted.sum()))


def _flat(
    weighting: Weighting,
    edges: Edges,
    classes: tuple[str, ...],
    sums: Floats,
    counts: npt.NDArray[np.int64],
    wanted: Floats,
) -> Floats:
    occupied = counts > 0
    bad = np.argwhere(occupied & (sums <= 0))
    if len(bad):
        row, cell = bad[0]
        of_class = f" of class '{classes[row]}'" if classes else ""
        raise WeightError(
            f"the weights{of_class} with {bin_name(weighting, edges, int(cell))} add up to {sums[row, cell]:g}, which no factor makes flat; "
            "take fewer bins, or weights.negative = 'abs' or 'drop'"
        )
    share = wanted / np.maximum(occupied.sum(axis=1), 1)
    return np.asarray(np.divide(share[:, np.newaxis], sums, out=np.zeros_like(sums), where=occupied))


def _learn_edges(events: EventWeights, passes: Callable[[], Iterable[TrainingRun]]) -> Edges:
    flatten = events.weighting.flatten
    sketches = {name: QuantileSketch() for name, bins in flatten.items() if isinstance(bins, int)}
    if sketches:
        for run in passes():
            offsets = np.arange(len(run.chosen) + 1)
            for name in sketches:
                sketches[name] += sketch_column(events.column_to_flatten(run, name), run.chosen, offsets)[1]
    edges: list[tuple[float, ...]] = []
    for name, bins in flatten.items():
        if not isinstance(bins, int):
            edges.append(tuple(bins[1:-1]))
        elif len(sketches[name].bins):
            edges.append(tuple(sorted({sketches[name].quantile(number / bins) for number in range(1, bins)})))
        else:
            edges.append(())
    return tuple(edges)


def _all(events: int, chosen: Chosen | None) -> Chosen:
    return np.ones(events, np.bool_) if chosen is None else chosen


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
