"""The functions of the expression language: a table with one line for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from mlaas4hep.streaming.expressions import four_vectors, reductions
from mlaas4hep.streaming.expressions.values import FourVectors, Misuse, Numbers, Objects, Value, align, truth

__all__ = ["FUNCTIONS", "Function"]

MANY: Final = 100


@dataclass(frozen=True)
class Function:
    """One function of the language.

    Parameters
    ----------
    call : callable
        Takes values and gives a value; raises ``Misuse`` where they do not fit.
    fewest, most : int
        How many arguments it takes.
    takes_objects : bool
        Whether an argument may be objects rather than numbers.
    """

    call: Callable[..., Value]
    fewest: int
    most: int
    takes_objects: bool = False

    @property
    def arguments(self) -> str:
        """How many arguments it takes, in words."""
        if self.fewest == self.most:
            return f"{self.fewest} argument{'s' * (self.fewest != 1)}"
        return f"{self.fewest} to {self.most} arguments"


def _elementwise(operation: np.ufunc, *values: Numbers) -> Numbers:
    contents, offsets = align(values)
    return Numbers(np.asarray(operation(*(np.asarray(content, np.float64) for content in contents))), offsets)


def _absolute(value: Numbers) -> Numbers:
    whole = value.content.dtype.kind in "biu" and value.content.dtype != np.uint64
    return Numbers(np.abs(value.content.astype(np.int64 if whole else np.float64)), value.offsets)


def _extreme(reduce: Callable[[Numbers], Numbers], operation: np.ufunc, *values: Numbers) -> Numbers:
    return reduce(values[0]) if len(values) == 1 else _folded(operation, *values)


def _folded(operation: np.ufunc, *values: Numbers) -> Numbers:
    contents, offsets = align(values)
    result = np.asarray(contents[0], np.float64)
    for content in contents[1:]:
        result = operation(result, np.asarray(content, np.float64))
    return Numbers(np.asarray(result), offsets)


def _sum(value: Numbers | Objects) -> Value:
    return four_vectors.total(value) if isinstance(value, Objects) else reductions.add_up(value)


def _where(condition: Numbers, yes: Numbers, no: Numbers) -> Numbers:
    (keep, first, second), offsets = align([condition, yes, no])
    return Numbers(np.asarray(np.where(truth(keep), first, second)), offsets)


def _isfinite(value: Numbers) -> Numbers:
    return Numbers(np.asarray(np.isfinite(value.content)), value.offsets)


def _delta_phi(first: Value, second: Value) -> Numbers:
    if isinstance(first, Numbers) != isinstance(second, Numbers):
        raise Misuse("delta_phi takes two objects or two azimuths, not one of each")
    (a, b), offsets = align([four_vectors.azimuth(first), four_vectors.azimuth(second)])
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return Numbers(np.asarray((difference + np.pi) % (2 * np.pi) - np.pi), offsets)


def _delta_r(first: Value, second: Value) -> Numbers:
    for value in (first, second):
        if isinstance(value, Numbers):
            raise Misuse("delta_r takes two objects, not numbers", "as in delta_r(Jet[0], Jet[1])")
    assert not isinstance(first, Numbers)  # noqa: S101 - for the type checker
    assert not isinstance(second, Numbers)  # noqa: S101
    etas = (four_vectors.pseudorapidity(first), four_vectors.pseudorapidity(second))
    azimuths = _delta_phi(first, second)
    (a, b, across), offsets = align([*etas, azimuths])
    along = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return Numbers(np.asarray(np.hypot(along, across)), offsets)


def _property(name: str, value: Value) -> Numbers:
    if not isinstance(value, Objects | FourVectors):
        raise Misuse(f"{name} takes objects, not numbers", f"as in {name}(Jet[0] + Jet[1])")
    return four_vectors.quantity(value, name)


def _number_functions(**operations: Any) -> dict[str, Function]:
    return {name: Function(partial(_elementwise, ufunc), ufunc.nin, ufunc.nin) for name, ufunc in operations.items()}


FUNCTIONS: Final[dict[str, Function]] = {
    # a list an event → one value an event
    "sum": Function(_sum, 1, 1, takes_objects=True),
    "min": Function(partial(_extreme, reductions.smallest, np.minimum), 1, MANY),
    "max": Function(partial(_extreme, reductions.largest, np.maximum), 1, MANY),
    "any": Function(reductions.any_true, 1, 1),
    "all": Function(reductions.all_true, 1, 1),
    "count": Function(reductions.count, 1, 1, takes_objects=True),
    # value by value
    "abs": Function(_absolute, 1, 1),
    **_number_functions(sqrt=np.sqrt, log=np.log, exp=np.exp, sin=np.sin, cos=np.cos, tan=np.tan),
    **_number_functions(arctan2=np.arctan2, sinh=np.sinh, cosh=np.cosh, tanh=np.tanh),
    "where": Function(_where, 3, 3),
    "isfinite": Function(_isfinite, 1, 1),
    # objects
    "delta_phi": Function(_delta_phi, 2, 2, takes_objects=True),
    "delta_r": Function(_delta_r, 2, 2, takes_objects=True),
    "mass": Function(partial(_property, "mass"), 1, 1, takes_objects=True),
    "pt": Function(partial(_property, "pt"), 1, 1, takes_objects=True),
    "eta": Function(partial(_property, "eta"), 1, 1, takes_objects=True),
    "phi": Function(partial(_property, "phi"), 1, 1, takes_objects=True),
}
"""Name → function."""
