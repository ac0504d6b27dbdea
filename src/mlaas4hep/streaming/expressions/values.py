"""What expressions work on: numbers (constant, one an event, or a list an event) and the objects of a collection.

All are whole columns: ``content`` and ``offsets`` as :class:`~mlaas4hep.streaming.formats.base.Column` holds them, so nothing is copied on the way in
or out, and each operation is one pass of numpy over the content. Arithmetic and comparisons are in double precision, or on 64-bit integers where all
values are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mlaas4hep.streaming.formats.base import Column

__all__ = ["FourVectors", "Misuse", "Numbers", "Objects", "Value", "align", "chosen", "picked", "truth"]

Content = npt.NDArray[Any]
Offsets = npt.NDArray[np.int64]


class Misuse(Exception):  # noqa: N818 - it never leaves the evaluation, which adds text and place to it
    """An operation does not fit its values.

    Parameters
    ----------
    problem : str
    hint : str
        What would be right.
    """

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem, self.hint = problem, hint
        super().__init__(problem)


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers or truth values.

    Parameters
    ----------
    content : array of shape ``[]``, ``[events]`` or ``[values]``
        A constant, one value an event, or with offsets the values of all lists, one after the other.
    offsets : int64 array of shape ``[events + 1]``, or None
    """

    content: Content
    offsets: Offsets | None = None

    @classmethod
    def constant(cls, value: float | bool) -> Numbers:
        """Return a constant as double, 64-bit integer or truth value."""
        kind: type[Any] = np.bool_ if isinstance(value, bool) else np.int64 if isinstance(value, int) else np.float64
        return cls(np.asarray(value, kind))

    @property
    def is_constant(self) -> bool:
        """Whether it is one value for all events."""
        return self.content.ndim == 0

    @property
    def is_list(self) -> bool:
        """Whether each event holds a list."""
        return self.offsets is not None

    def same_lists(self, other: Numbers) -> bool:
        """Whether both hold lists, of the same lengths in each event."""
        if self.offsets is None or other.offsets is None:
            return False
        return self.offsets is other.offsets or np.array_equal(self.offsets, other.offsets)

    def column(self, events: int) -> Column:
        """Return the column; a constant is repeated for each event."""
        if self.is_constant:
            return Column(np.full(events, self.content), None)
        return Column(self.content, self.offsets)

    def __str__(self) -> str:
        return "a list of values an event" if self.is_list else "one value an event"


@dataclass(frozen=True, slots=True)
class Objects:
    """The objects of a collection: all of each event, or one (``Jet[0]``). A member is read when it is asked for.

    Parameters
    ----------
    name : str
        As it is written in the expression.
    members : tuple of str
        What follows ``name_`` in the names of its branches.
    member : callable
        Gives the values of a member.
    is_list : bool
        Whether each event holds a list of them.
    """

    name: str
    members: tuple[str, ...]
    member: Callable[[str], Numbers]
    is_list: bool

    def picked(self, index: int) -> Objects:
        """Return one object of each event; see :func:`picked`."""
        self._need_list()
        return Objects(f"{self.name}[{index}]", self.members, lambda name: picked(self.member(name), index), False)

    def chosen(self, condition: Numbers) -> Objects:
        """Return the objects for which a condition is true; see :func:`chosen`."""
        self._need_list()
        return Objects(f"{self.name}[…]", self.members, lambda name: chosen(self.member(name), condition), True)

    def _need_list(self) -> None:
        if not self.is_list:
            raise Misuse(f"'{self.name}' holds one object an event, which has no index")

    def __str__(self) -> str:
        return "objects"


@dataclass(frozen=True, slots=True)
class FourVectors:
    """A sum of four-vectors that is not worked out yet.

    Parameters
    ----------
    terms : tuple of Objects
        Each with the members that :mod:`~mlaas4hep.streaming.expressions.four_vectors` needs.
    """

    terms: tuple[Objects, ...]

    def __str__(self) -> str:
        return "objects"


Value = Numbers | Objects | FourVectors


def align(values: Sequence[Numbers]) -> tuple[list[Content], Offsets | None]:
    """Bring values to one shape: a constant stays, one value an event is repeated for each object where there are lists.

    Raises
    ------
    Misuse
        If two lists of one event have different lengths.
    """
    offsets: Offsets | None = None
    for value in values:
        if value.offsets is None or offsets is value.offsets:
            continue
        if offsets is None:
            offsets = value.offsets
        elif not np.array_equal(offsets, value.offsets):
            lengths, others = np.diff(offsets), np.diff(value.offsets)
            event = int(np.flatnonzero(lengths != others)[0])
            raise Misuse(
                f"lists of different lengths meet ({lengths[event]} and {others[event]} values in one event)",
                "only values of the same objects can be combined; take one with [0], or reduce a list with sum, min, max, any, all or count",
            )
    if offsets is None:
        return [value.content for value in values], None
    repeats = None
    contents = []
    for value in values:
        if value.offsets is None and not value.is_constant:
            repeats = np.diff(offsets) if repeats is None else repeats
            contents.append(np.repeat(value.content, repeats))
        else:
            contents.append(value.content)
    return contents, offsets


def truth(content: Content) -> npt.NDArray[np.bool_]:
    """Return which values are true: those that are finite and not 0."""
    if content.dtype.kind == "b":
        return content
    result: npt.NDArray[np.bool_] = content != 0
    return result & np.isfinite(content) if content.dtype.kind == "f" else result


def picked(value: Numbers, index: int) -> Numbers:
    """Return one value of each event's list: NaN where the list is too short, or False where it holds truth values.

    Integers become doubles, because they have no NaN.
    """
    content, offsets = value.content, value.offsets
    if offsets is None:
        raise Misuse("an index needs a list; there is one value an event")
    kind = np.dtype(np.float64) if content.dtype.kind in "iu" else content.dtype
    starts, stops = offsets[:-1], offsets[1:]
    positions = starts + index if index >= 0 else stops + index
    there = (positions < stops) & (positions >= starts)
    result: Content = np.full(len(starts), False if kind.kind == "b" else np.nan, kind)
    result[there] = content[positions[there]]
    return Numbers(result)


def chosen(value: Numbers, condition: Numbers) -> Numbers:
    """Return the values of each event's list for which a condition of the same shape is true."""
    if value.offsets is None or condition.offsets is None:
        raise Misuse("a condition in [ ] must hold a value for each object of a list")
    (content, keep), offsets = align([value, condition])
    assert offsets is not None  # both are lists  # noqa: S101
    keep = truth(keep)
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)])
    return Numbers(content[keep], before[offsets])
