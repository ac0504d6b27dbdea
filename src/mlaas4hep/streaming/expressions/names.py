"""What the names in an expression mean: columns, members of a collection, and whole collections."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from mlaas4hep.streaming.expressions.values import Misuse, Numbers, Objects
from mlaas4hep.streaming.formats.base import ColumnType

if TYPE_CHECKING:
    from mlaas4hep.streaming.expressions.plan import Block

__all__ = ["ColumnNames", "MemberNames", "collection", "collections_of"]


class ColumnNames:
    """Names of the cut on events and of new columns: columns, then collections."""

    def __init__(self, block: Block, before: str | None = None) -> None:
        self._block = block
        new = list(block.plan.new_columns)
        self._later = set(new[new.index(before) :]) if before is not None else set()

    def get(self, name: str) -> Numbers | Objects | None:
        """Return the value of a name; None where there is none."""
        plan = self._block.plan
        if name in self._later:
            raise Misuse(f"'{name}' is not made yet", "a new column can use those before it")
        if name in plan.columns:
            return self._block.numbers(name)
        _refuse_skipped(name, plan.skipped)
        return collection(name, self._columns(), self._block.numbers)

    def names(self) -> Iterable[str]:
        """Return the names that there are."""
        columns = self._columns()
        return (*columns, *collections_of(columns))

    def _columns(self) -> dict[str, ColumnType]:
        """Return the columns that are there already: a collection has no members that are made of it."""
        return {name: kind for name, kind in self._block.plan.columns.items() if name not in self._later}


class MemberNames:
    """Names of a cut on objects, as the file holds them: members of the collection, then branches, then collections."""

    def __init__(self, block: Block, collection: str) -> None:
        self._block = block
        self._collection = collection
        self._file = block.plan.file

    def get(self, name: str) -> Numbers | Objects | None:
        """Return the value of a name; None where there is none."""
        member = f"{self._collection}_{name}"
        for candidate in (member, name):
            if candidate in self._file:
                return self._block.raw(candidate)
        if name in self._block.plan.new_columns:
            raise Misuse(f"'{name}' is not made yet", "cuts on objects come before new columns")
        for candidate in (member, name):
            _refuse_skipped(candidate, self._block.plan.skipped)
        return collection(name, self._file, self._block.raw)

    def names(self) -> Iterable[str]:
        """Return the names that there are."""
        prefix = f"{self._collection}_"
        members = [name.removeprefix(prefix) for name in self._file if name.startswith(prefix)]
        return (*members, *self._file)


def _refuse_skipped(name: str, skipped: Mapping[str, str]) -> None:
    if name in skipped:
        raise Misuse(f"branch '{name}' cannot be used: it {skipped[name]}")


def collection(name: str, columns: Mapping[str, ColumnType], numbers: Callable[[str], Numbers]) -> Objects | None:
    """Return the collection of all branches ``name_…``: those that hold lists, or else those that hold one value an event."""
    prefix = f"{name}_"
    members = [column.removeprefix(prefix) for column in columns if column.startswith(prefix)]
    lists = tuple(member for member in members if columns[prefix + member].jagged)
    if not members:
        return None
    return Objects(name, lists or tuple(members), lambda member: numbers(prefix + member), is_list=bool(lists))


def collections_of(columns: Mapping[str, ColumnType]) -> tuple[str, ...]:
    """Return the prefixes of the branches that hold lists."""
    return tuple(dict.fromkeys(name.partition("_")[0] for name, kind in columns.items() if kind.jagged and "_" in name))
