"""A selection checked against the columns of a file, and the values that it gives for a block of events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import nearest_names, quoted
from mlaas4hep.streaming.expressions.evaluate import evaluate
from mlaas4hep.streaming.expressions.grammar import Expression
from mlaas4hep.streaming.expressions.names import ColumnNames, MemberNames, collections_of
from mlaas4hep.streaming.expressions.values import Numbers, truth
from mlaas4hep.streaming.formats.base import Column, ColumnType

__all__ = ["Block", "SelectionPlan"]


class SelectionPlan:
    """A selection checked against the columns of a file; made by ``EventSelection.bind``, which says what is raised.

    Parameters
    ----------
    cut : Expression or None
    new_columns, object_cuts : mapping of str to Expression
    columns : mapping of str to ColumnType
    skipped : mapping of str to str

    Attributes
    ----------
    columns : dict of str to ColumnType
        The file's columns and the new ones.
    file : mapping of str to ColumnType
        The file's columns.
    """

    def __init__(
        self,
        cut: Expression | None,
        new_columns: Mapping[str, Expression],
        object_cuts: Mapping[str, Expression],
        columns: Mapping[str, ColumnType],
        skipped: Mapping[str, str],
    ) -> None:
        self.cut = cut
        self.new_columns = new_columns
        self.object_cuts = object_cuts
        self.columns: dict[str, ColumnType] = dict(columns)
        self.skipped = skipped
        self.file = columns
        self._needs: dict[str, frozenset[str]] = {}
        self.cut_of = self._columns_of_object_cuts()
        self.counters = self._counters_of_object_cuts()
        for name in self.cut_objects:
            self._trial(_numbers_of(name))
        for name, expression in new_columns.items():
            if name in columns or name in skipped:
                raise expression.error("the files have a branch of this name already", 0)
            value, needs = self._trial(_numbers_of(name))
            self._needs[name] = needs
            self.columns[name] = self._type_of(value, needs)
        self._cut_needs: frozenset[str] = frozenset()
        if cut is not None:
            self._cut_needs = self._trial(lambda block: Numbers(block.passes()))[1]

    @property
    def cut_objects(self) -> tuple[str, ...]:
        """Columns of the file that cuts on objects change."""
        return (*self.cut_of, *self.counters)

    def sources(self, columns: Iterable[str], *, cut: bool = False) -> tuple[str, ...]:
        """Return the columns of the file that have to be read for some columns, in the file's order.

        Parameters
        ----------
        columns : iterable of str
            Of the file, or new.
        cut : bool
            Whether those that the cut on events reads are wanted as well.
        """
        needed = set(self._cut_needs) if cut else set()
        for name in columns:
            if name not in self._needs:
                self._needs[name] = self._trial(_numbers_of(name))[1]
            needed |= self._needs[name]
        return tuple(name for name in self.file if name in needed)

    def block(self, events: int, raw: Mapping[str, Column]) -> Block:
        """Return the values of a range of events.

        Parameters
        ----------
        events : int
        raw : mapping of str to Column
            Columns of the file; more may be added to it later.
        """
        return Block(self, events, raw.__getitem__)

    def _trial(self, evaluate_on: Callable[[Block], Numbers]) -> tuple[Numbers, frozenset[str]]:
        """Evaluate on no events; return what comes out and the columns that were asked for."""
        asked: set[str] = set()

        def empty(name: str) -> Column:
            asked.add(name)
            kind = self.file[name]
            return Column(np.empty(0, kind.dtype), np.zeros(1, np.int64) if kind.jagged else None)

        return evaluate_on(Block(self, 0, empty)), frozenset(asked)

    def _type_of(self, value: Numbers, needs: Iterable[str]) -> ColumnType:
        size = float(value.content.itemsize)
        if value.is_list:
            lengths = [
                self.file[name].bytes_per_event / self.file[name].dtype.itemsize
                for name in needs
                if self.file[name].jagged
            ]
            size *= max(lengths, default=1.0)
        return ColumnType(value.content.dtype, value.is_list, size)

    def _columns_of_object_cuts(self) -> dict[str, str]:
        """Return which object cut each branch falls under."""
        cut_of: dict[str, str] = {}
        for collection in sorted(self.object_cuts, key=len):
            members = [name for name, kind in self.file.items() if kind.jagged and name.startswith(f"{collection}_")]
            if not members:
                nearest = nearest_names(collection, collections_of(self.file))
                raise self.object_cuts[collection].error(
                    f"no branch '{collection}_…' holds a list", 0, f"nearest: {quoted(nearest)}" if nearest else ""
                )
            cut_of.update(dict.fromkeys(members, collection))
        return cut_of

    def _counters_of_object_cuts(self) -> dict[str, str]:
        """Return which object cut each counter follows: ``nJet`` or ``NJet`` that of ``Jet``."""
        counters = {}
        for collection in self.object_cuts:
            for name in (f"n{collection}", f"N{collection}"):
                kind = self.file.get(name)
                if kind is not None and not kind.jagged and kind.dtype.kind in "iu":
                    counters[name] = collection
        return counters


class Block:
    """The values of a range of events: each column worked out when it is asked for, once. Made by :meth:`SelectionPlan.block`.

    Parameters
    ----------
    plan : SelectionPlan
    events : int
    fetch : callable
        Gives a column of the file.
    """

    def __init__(self, plan: SelectionPlan, events: int, fetch: Callable[[str], Column]) -> None:
        self.plan = plan
        self._events = events
        self._fetch = fetch
        self._known: dict[str, Numbers] = {}
        self._kept: dict[str, tuple[Numbers, npt.NDArray[np.int64]]] = {}

    def passes(self) -> npt.NDArray[np.bool_]:
        """Return which events pass the cut, bool ``[events]``."""
        cut = self.plan.cut
        if cut is None:
            return np.ones(self._events, np.bool_)
        value = evaluate(cut, ColumnNames(self))
        if not isinstance(value, Numbers):
            raise cut.error("gives objects, not one truth value an event", 0, "compare a member, as Jet_pt[0] > 30")
        if value.is_list:
            raise cut.error("gives a value for each object, not one an event", 0, "say any(…) or all(…) of them")
        return truth(value.column(self._events).content)

    def column(self, name: str) -> Column:
        """Return a column of the file after the cuts on objects, or a new one."""
        return self.numbers(name).column(self._events)

    def numbers(self, name: str) -> Numbers:
        """Return the values of a column of the file after the cuts on objects, or of a new one."""
        if name not in self._known:
            self._known[name] = self._make(name)
        return self._known[name]

    def raw(self, name: str) -> Numbers:
        """Return the values of a column of the file as it holds them."""
        return Numbers(*self._fetch(name))

    def _make(self, name: str) -> Numbers:
        plan = self.plan
        if name in plan.cut_of:
            return self._filtered(name, plan.cut_of[name])
        if name in plan.counters:
            counts = np.diff(self._keep(plan.counters[name])[1])
            return Numbers(counts.astype(plan.columns[name].dtype))
        if name not in plan.new_columns:
            return self.raw(name)
        expression = plan.new_columns[name]
        value = evaluate(expression, ColumnNames(self, before=name))
        if not isinstance(value, Numbers):
            raise expression.error("gives objects, not numbers", 0, "take a member, as Jet_pt[0], or mass(…) of them")
        return Numbers(*value.column(self._events))

    def _filtered(self, name: str, collection: str) -> Numbers:
        keep, offsets = self._keep(collection)
        value = self.raw(name)
        if not value.same_lists(keep):
            raise self.plan.object_cuts[collection].error(
                f"branch '{name}' holds lists of other lengths than those that the condition is made of", 0
            )
        return Numbers(value.content[keep.content], offsets)

    def _keep(self, collection: str) -> tuple[Numbers, npt.NDArray[np.int64]]:
        """Return which objects of a collection are kept, and the offsets of those."""
        if collection not in self._kept:
            expression = self.plan.object_cuts[collection]
            value = evaluate(expression, MemberNames(self, collection))
            if not isinstance(value, Numbers) or value.offsets is None:
                raise expression.error(
                    f"gives {value}, not a truth value for each object", 0, f"use a member of '{collection}'"
                )
            keep = truth(value.content)
            before = np.concatenate([np.zeros(1, np.int64), np.cumsum(keep, dtype=np.int64)])
            self._kept[collection] = (Numbers(keep, value.offsets), before[value.offsets])
        return self._kept[collection]


def _numbers_of(name: str) -> Callable[[Block], Numbers]:
    return lambda block: block.numbers(name)
