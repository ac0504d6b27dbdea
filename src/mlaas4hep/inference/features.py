"""From the names and values of a request to rows of raw float32 values, in the order of the model.

Names are matched, never trusted to be in order: a flat branch by its name, a place of a jagged one as ``Jet_pt_0``, or a whole jagged branch as
``Jet_pt`` with a list. What a tuple of names means is worked out once and kept, because a client asks with the same names again and again: a
request that repeats them costs one look-up and one conversion of its values by numpy.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import FeatureError, nearest_names, quoted
from mlaas4hep.streaming.encoding.encoding import Encoding

__all__ = ["FeatureReader", "Rows"]

PLANS = 64  # tuples of names remembered for each model
PLAN_NAMES = 1 << 16  # names in all of them together, so that a hostile client cannot fill the memory
FLOAT32_MAX = float(np.finfo(np.float32).max)

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows for a model.

    Parameters
    ----------
    values : float32 array of shape ``[n, width]``
        Raw values, NaN where absent.
    cut : int
        Number of values left out because a list was longer than its branch has places.
    """

    values: Float32
    cut: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where the values of one tuple of names go.

    ``places`` is the place of each name in the vector. ``widths`` is None when every name takes one value; otherwise it has the number of places
    for a whole branch and 0 for a single place, and ``strides`` the distance between two of its places. ``order`` is the name of each place, where
    every place has one.
    """

    places: npt.NDArray[np.intp]
    widths: tuple[int, ...] | None
    strides: tuple[int, ...]
    order: npt.NDArray[np.intp] | None


class FeatureReader:
    """Makes rows from what a client sends for one model.

    Parameters
    ----------
    model : str
        Name of the model, for the messages.
    encoding : Encoding, optional
        Names of the features. Without it names are ignored and values are positional.
    width : int, optional
        Number of values of a row, where the model says it. The encoding's, when there is one.

    Examples
    --------
    >>> from mlaas4hep.streaming.encoding.encoding import Feature
    >>> encoding = Encoding((Feature("MET_pt", jagged=False, width=1), Feature("Jet_pt", jagged=True, width=3)))
    >>> reader = FeatureReader("higgs", encoding)
    >>> reader.read(["Jet_pt", "MET_pt"], [[[52.0, 33.0], 120.5]]).values
    array([[120.5,  52. ,  33. ,   nan]], dtype=float32)
    """

    def __init__(self, model: str, encoding: Encoding | None = None, width: int | None = None) -> None:
        self.model, self.encoding = model, encoding
        self.width = encoding.width if encoding else width
        self._plans: OrderedDict[tuple[str, ...], _Plan] = OrderedDict()
        self._plan_names = 0

    def read(self, keys: Sequence[str] | None, rows: Sequence[Sequence[Any]], *, normalised: bool = False) -> Rows:
        """Make rows.

        Parameters
        ----------
        keys : sequence of str, optional
            A name for each value of a row; without names the values are in the model's order.
        rows : sequence of sequences
            Numbers, None where absent, and lists of these for whole branches.
        normalised : bool
            Whether the values are scaled already. They are brought back to raw ones, ``value / scale + shift``, since the model's graph scales.

        Raises
        ------
        FeatureError
            If names or values do not fit the model; names them.
        """
        plan = self._plan(tuple(keys)) if keys is not None and self.encoding else None
        if not rows:
            return Rows(np.empty((0, self.width or 0), np.float32))
        if plan is None:
            values, cut = self._positional(rows), 0
        else:
            values, cut = self._by_name(tuple(keys or ()), plan, rows)
        if normalised:
            if self.encoding is None:
                raise FeatureError(
                    f"model '{self.model}' does not say how its values are scaled; 'normalised' cannot be used"
                )
            values = self.encoding.unscale(values)
        return Rows(values, cut)

    def _positional(self, rows: Sequence[Sequence[Any]]) -> Float32:
        for number, row in enumerate(rows):
            if self.width is not None and len(row) != self.width:
                raise FeatureError(
                    f"model '{self.model}' needs {self.width} values; got {len(row)}{self._where(number, rows)}"
                )
        if len({len(row) for row in rows}) > 1:
            raise FeatureError(f"the rows for model '{self.model}' do not all have the same number of values")
        return self._numbers(None, rows)

    def _by_name(self, keys: tuple[str, ...], plan: _Plan, rows: Sequence[Sequence[Any]]) -> tuple[Float32, int]:
        assert self.encoding is not None  # noqa: S101 - plans are made with an encoding only
        for number, row in enumerate(rows):
            if len(row) != len(keys):
                raise FeatureError(f"there are {len(keys)} keys and {len(row)} values{self._where(number, rows)}")
        if plan.widths is None:
            given = self._numbers(keys, rows)
            if plan.order is not None:
                return given.take(plan.order, axis=1), 0
            values = np.full((len(rows), self.encoding.width), np.nan, np.float32)
            values[:, plan.places] = given
            return values, 0
        dense, cut = [], 0
        for row in rows:
            line: list[Any] = [nan] * self.encoding.width
            for key, place, width, step, value in zip(
                keys, plan.places.tolist(), plan.widths, plan.strides, row, strict=True
            ):
                if not width:
                    line[place] = value
                elif isinstance(value, list):
                    line[place : place + min(width, len(value)) * step : step] = value[:width]
                    cut += max(0, len(value) - width)
                    if len(value) > width:
                        self._numbers(None, [value[width:]], name=key)
                elif value is not None:
                    raise FeatureError(f"'{key}' of model '{self.model}' holds a list of values; got {_shown(value)}")
            dense.append(line)
        return self._numbers(self.encoding.columns, dense), cut

    def _numbers(self, keys: Sequence[str] | None, rows: Sequence[Sequence[Any]], name: str = "") -> Float32:
        """Convert values to float32; what numpy alone would let through or fail on is looked at one by one."""
        if len(rows) == 1:
            # The commonest case, and the shortest way: numbers only, none of them beyond float32.
            with suppress(TypeError, OverflowError, ValueError):
                row = np.frombuffer(array("f", rows[0]), np.float32)
                if max(rows[0]) <= FLOAT32_MAX and min(rows[0]) >= -FLOAT32_MAX:
                    return row.reshape(1, -1)
        return self._all_numbers(keys, rows, name)

    def _all_numbers(self, keys: Sequence[str] | None, rows: Sequence[Sequence[Any]], name: str) -> Float32:
        try:
            numbers = np.array(rows)
        except (ValueError, OverflowError):
            numbers = None
        if numbers is None or numbers.ndim != 2 or numbers.dtype.kind not in "fiub":
            numbers = np.array([self._checked(keys, row, name) for row in rows], np.float64).reshape(
                len(rows), len(rows[0])
            )
        with np.errstate(over="ignore"):
            values = numbers.astype(np.float32)
        if np.isinf(values).any():
            row, place = np.argwhere(np.isinf(values))[0]
            raise FeatureError(
                f"{_called(keys, int(place), name)} is beyond the range of float32: {numbers[row, place]!r}"
            )
        return values

    def _checked(self, keys: Sequence[str] | None, row: Sequence[Any], name: str) -> list[float]:
        numbers = []
        for place, value in enumerate(row):
            if value is None:
                numbers.append(float("nan"))
            elif isinstance(value, (int, float)):
                numbers.append(float(max(min(value, 2**1000), -(2**1000))))
            else:
                raise FeatureError(f"{_called(keys, place, name)} must be one number or null; got {_shown(value)}")
        return numbers

    def _where(self, number: int, rows: Sequence[Any]) -> str:
        return f" in row {number}" if len(rows) > 1 else ""

    def _plan(self, keys: tuple[str, ...]) -> _Plan:
        try:
            plan = self._plans.get(keys)
        except TypeError:
            plan = None
        if plan is None:
            plan = self._make_plan(keys)
            self._plans[keys] = plan
            self._plan_names += len(keys)
            while len(self._plans) > 1 and (len(self._plans) > PLANS or self._plan_names > PLAN_NAMES):
                forgotten, _ = self._plans.popitem(last=False)
                self._plan_names -= len(forgotten)
        return plan

    def _make_plan(self, keys: tuple[str, ...]) -> _Plan:
        assert self.encoding is not None  # noqa: S101 - called with an encoding only
        not_names = [key for key in keys if not isinstance(key, str)]
        if not_names:
            raise FeatureError(f"keys must be strings; got {_shown(not_names[0])}")
        features = {feature.branch: feature for feature in self.encoding.features}
        places = dict(zip(self.encoding.columns, range(self.encoding.width), strict=True))
        # A flat branch may have the name of a jagged one's place; a name that is written out in full wins.
        places.update(
            {branch: self.encoding.first_places[branch] for branch, feature in features.items() if not feature.jagged}
        )
        targets: list[int] = []
        widths: list[int] = []
        strides: list[int] = []
        owner: dict[int, str] = {}
        problems: list[str] = []
        for key in keys:
            feature = features.get(key)
            whole = feature is not None and feature.jagged
            place = self.encoding.first_places[key] if whole else places.get(key)
            if place is None:
                problems.append(self._unknown(key))
                continue
            width = feature.width if feature is not None and whole else 0
            for taken in self.encoding.places(key) if whole else (place,):
                if taken in owner:
                    problems.append(f"given twice: {quoted(dict.fromkeys((owner[taken], key)))}")
                    break
                owner[taken] = key
            targets.append(place)
            widths.append(width)
            strides.append(self.encoding.strides[key] if whole else 1)
        missing = [
            branch
            for branch, feature in features.items()
            if not feature.jagged and self.encoding.first_places[branch] not in owner
        ]
        if missing:
            problems.insert(0, f"missing: {quoted(missing)}")
        if problems:
            more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise FeatureError(f"model '{self.model}' needs {len(features)} features; {'; '.join(problems[:4])}{more}")
        order = np.argsort(targets) if len(targets) == self.encoding.width and not any(widths) else None
        return _Plan(np.array(targets, np.intp), tuple(widths) if any(widths) else None, tuple(strides), order)

    def _unknown(self, key: str) -> str:
        assert self.encoding is not None  # noqa: S101 - called with an encoding only
        branch, _, position = key.rpartition("_")
        for feature in self.encoding.features:
            if feature.jagged and feature.branch == branch and position.isdecimal():
                return f"not known: '{key}' ('{branch}' has {feature.width} places, counted from 0)"
        nearest = nearest_names(key, (*self.encoding.branches, *self.encoding.columns), count=2)
        return f"not known: {key[:100]!r}" + (f" (nearest: {quoted(nearest)})" if nearest else "")


def _called(keys: Sequence[str] | None, place: int, name: str) -> str:
    if name:
        return f"a value of '{name}'"
    return f"value {place}" if keys is None else f"the value of '{keys[place]}'"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
