"""Choose events and objects, and make new columns, from any file that a Reader reads.

The order is always the same: cuts on objects see the file as it is; new columns see the objects that are left, and the new columns before them; the
cut on events sees everything. A cut is evaluated from its own columns first, and the others are read only where an event is left.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import ExpressionError
from mlaas4hep.streaming.expressions import Expression, parse
from mlaas4hep.streaming.expressions.plan import Block, SelectionPlan
from mlaas4hep.streaming.formats.base import Column, ColumnType, Reader
from mlaas4hep.streaming.stream.timing import stage

if TYPE_CHECKING:
    from mlaas4hep.streaming.selecting.lumi_mask import LumiMask

__all__ = ["LUMINOSITY_COLUMNS", "EventSelection", "SelectedReader"]

LUMINOSITY_COLUMNS = ("run", "luminosityBlock")
"""Branches that say in which luminosity section an event was taken."""

Result = TypeVar("Result")


class EventSelection:
    """Which events and objects are taken, and which columns are made of them; the language is in docs/selection.md.

    Parameters
    ----------
    cut : str, optional
        Condition that an event must fulfil: ``"nJet >= 2 and MET_pt > 30"``.
    new_columns : mapping of str to str, optional
        Name → expression: ``{"HT": "sum(Jet_pt)"}``. One may use those before it.
    object_cuts : mapping of str to str, optional
        Collection → condition on its members: ``{"Jet": "pt > 30 and abs(eta) < 2.5"}``.
    lumi_mask : LumiMask, optional
        Luminosity sections that are certified; events of others are left out.

    Raises
    ------
    ExpressionError
        If an expression cannot be read, or a new column has a name that no expression could use.

    Examples
    --------
    >>> from mlaas4hep.streaming.formats import open_reader
    >>> selection = EventSelection("nJet >= 2", {"HT": "sum(Jet_pt)"}, {"Jet": "pt > 30"})
    >>> reader = SelectedReader(open_reader("examples/data/VBF_HToTauTau.root", "Events"), selection)
    >>> mask, columns = reader.read_selected(0, 4, ["HT", "nJet"])
    >>> mask.tolist(), columns["nJet"].content.tolist(), columns["HT"].content.round(1).tolist()
    ([True, False, True, True], [3, 1, 3, 3], [231.9, 46.2, 282.5, 370.4])
    """

    def __init__(
        self,
        cut: str | None = None,
        new_columns: Mapping[str, str] | None = None,
        object_cuts: Mapping[str, str] | None = None,
        lumi_mask: LumiMask | None = None,
    ) -> None:
        self.cut = parse(cut, "selection") if cut is not None else None
        self.new_columns: dict[str, Expression] = {}
        for name, text in (new_columns or {}).items():
            expression = parse(text, f"new column '{name}'")
            if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("__"):
                raise expression.error(
                    "its name cannot be used", 0, "a name has letters, digits and '_', and does not begin with a digit"
                )
            self.new_columns[name] = expression
        self.object_cuts = {name: parse(text, f"object cut of '{name}'") for name, text in (object_cuts or {}).items()}
        self.derived: dict[str, Expression] = {}
        self.lumi_mask = lumi_mask

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return self.cuts_events or bool(self.new_columns) or bool(self.object_cuts) or bool(self.derived)

    @property
    def chooses(self) -> bool:
        """Whether events or objects may be left out."""
        return self.cuts_events or bool(self.object_cuts)

    def __str__(self) -> str:
        parts = [self.cut.text] if self.cut else []
        parts += [f"{name}: {expression.text}" for name, expression in self.object_cuts.items()]
        return "; ".join([*parts, *(["certified luminosity sections"] if self.lumi_mask is not None else [])])

    @property
    def cuts_events(self) -> bool:
        """Whether events may be left out."""
        return self.cut is not None or self.lumi_mask is not None

    def deriving(self, expressions: Mapping[str, str]) -> EventSelection:
        """Return the selection with further columns, each named by its own text: labels, weights and targets that are expressions.

        Parameters
        ----------
        expressions : mapping of str to str
            Text of an expression → what it is for, for the messages.

        Raises
        ------
        ExpressionError
            If one cannot be read.
        """
        selection = copy(self)
        selection.derived = self.derived | {text: parse(text, purpose) for text, purpose in expressions.items()}
        return selection

    def to_dict(self) -> dict[str, Any]:
        """Return the texts and the luminosity mask as plain values for JSON."""
        return {
            "cut": self.cut.text if self.cut else None,
            "new_columns": {name: expression.text for name, expression in self.new_columns.items()},
            "object_cuts": {name: expression.text for name, expression in self.object_cuts.items()},
            "lumi_mask": None if self.lumi_mask is None else self.lumi_mask.to_dict(),
        }

    def bind(self, columns: Mapping[str, ColumnType], skipped: Mapping[str, str] | None = None) -> SelectionPlan:
        """Check the expressions against the columns of a file; reads no data.

        Parameters
        ----------
        columns : mapping of str to ColumnType
            What the file has.
        skipped : mapping of str to str, optional
            What it has besides, and why that cannot be used; for the messages.

        Raises
        ------
        ExpressionError
            If a name is not there or an operation does not fit its values.
        """
        return SelectionPlan(self.cut, self.new_columns | self.derived, self.object_cuts, columns, skipped or {})

    def columns_needed(self, available: Mapping[str, ColumnType]) -> tuple[str, ...]:
        """Return the columns of a file that cuts and new columns read, in the file's order."""
        plan = self.bind(available)
        return plan.sources([*self.new_columns, *plan.cut_objects], cut=True)


class SelectedReader:
    """A file seen through a selection; a Reader itself, whatever the format.

    Parameters
    ----------
    reader : Reader
        The file.
    selection : EventSelection

    Raises
    ------
    ExpressionError
        If the selection does not fit the columns of the file.
    """

    def __init__(self, reader: Reader, selection: EventSelection) -> None:
        self._reader = reader
        self._plan = selection.bind(reader.columns, reader.skipped)
        self.path = reader.path
        self.uuid = reader.uuid
        self.entries = reader.entries
        self.size: int | None = getattr(reader, "size", None)
        self.columns: Mapping[str, ColumnType] = self._plan.columns
        self.skipped = reader.skipped
        self.cuts_events = selection.cuts_events
        self.derived = tuple(selection.derived)
        self._lumi_mask = selection.lumi_mask
        if self._lumi_mask is not None:
            self._plan.sources(LUMINOSITY_COLUMNS)  # says so where they are missing
        self._selects = self.sources((), cut=True)

    def sources(self, columns: Sequence[str], *, cut: bool = False) -> tuple[str, ...]:
        """Return the branches of the file that some columns are made of, and with ``cut`` those that the choice of events reads."""
        asked = (*columns, *LUMINOSITY_COLUMNS) if cut and self._lumi_mask is not None else columns
        return self._plan.sources(asked, cut=cut)

    def clusters(self, columns: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the entries at which reading can begin without reading anything twice, the cut's own columns included."""
        return self._reader.clusters(self.sources(columns, cut=True))

    def prefetch(self, start: int, stop: int, columns: Sequence[str]) -> None:
        """Ask for what is read first, if the format can do so: with a cut, only what it reads, since the rest may not be wanted."""
        prefetch = getattr(self._reader, "prefetch", None)
        if prefetch is not None:
            prefetch(start, stop, self._selects if self.cuts_events else self.sources(columns))

    def read(self, start: int, stop: int, columns: Sequence[str]) -> dict[str, Column]:
        """Read the events ``start … stop - 1`` of some columns after the cuts on objects; events that fail the cut are in it.

        Raises
        ------
        SourceError
            If the file is damaged or out of reach.
        ExpressionError
            If lists that an expression combines have different lengths.
        """
        raw = self._reader.read(start, stop, self._plan.sources(columns))
        return self._located(lambda block: {name: block.column(name) for name in columns}, start, stop, raw)

    def passes(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Return which of the events ``start … stop - 1`` pass the cut, bool ``[stop - start]``; reads its columns only."""
        raw = self._reader.read(start, stop, self._selects)
        return self._located(self._passes, start, stop, raw)

    def read_selected(
        self, start: int, stop: int, columns: Sequence[str]
    ) -> tuple[npt.NDArray[np.bool_], dict[str, Column] | None]:
        """Read the events ``start … stop - 1`` and say which pass the cut; raises as :meth:`read` does.

        Returns
        -------
        mask : bool array of shape ``[stop - start]``
            Which events pass.
        columns : dict of str to Column, or None
            The columns for all events of the range; None, and not read, where no event passes.
        """
        raw = self._reader.read(start, stop, self._selects)

        def work(block: Block) -> tuple[npt.NDArray[np.bool_], dict[str, Column] | None]:
            mask = self._passes(block)
            if not mask.any():
                return mask, None
            with stage("fetch"):
                others = [name for name in self._plan.sources(columns) if name not in raw]
                raw.update(self._reader.read(start, stop, others))
            return mask, {name: block.column(name) for name in columns}

        return self._located(work, start, stop, raw)

    def close(self) -> None:
        """Give the file back."""
        self._reader.close()

    def _passes(self, block: Block) -> npt.NDArray[np.bool_]:
        if self._lumi_mask is None:
            return block.passes()
        run, luminosity_block = (block.raw(name).content for name in LUMINOSITY_COLUMNS)
        certified = self._lumi_mask.accepts(run, luminosity_block)
        return certified & block.passes() if certified.any() else certified

    def _located(self, work: Callable[[Block], Result], start: int, stop: int, raw: Mapping[str, Column]) -> Result:
        """Do something with a block of events; what is wrong with their values is said with the place in the file."""
        try:
            with stage("select"):
                return work(self._plan.block(stop - start, raw))
        except ExpressionError as error:
            place = f"{self.path}, entries {start}–{stop - 1}"
            hint = f"{error.hint} ({place})" if error.hint else place
            raise ExpressionError(error.what, error.text, error.problem, error.at, hint) from error
