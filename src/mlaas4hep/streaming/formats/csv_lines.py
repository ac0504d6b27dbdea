"""CSV files: a header with the names, then one event a line, parsed with pyarrow.

The type of a column follows from all its values: int64, uint64 where that is needed, float64 where one of them is no integer, and bool for
``true`` and ``false``. A column whose first value is none of these is text and is left out; in a column of numbers, text is an error that names
its line. Nothing, ``NaN``, ``NA`` and ``null`` are nulls: integers and bools with nulls are float64 with NaN. Values must not hold line breaks.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from mlaas4hep.streaming.formats.arrow_columns import describe_types, with_nulls
from mlaas4hep.streaming.formats.base import ColumnType
from mlaas4hep.streaming.formats.lines import LinesReader
from mlaas4hep.streaming.formats.text import LineError, first_bad_line

__all__ = ["CsvReader"]

TRUE, FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
NULLS = ["", "NaN", "nan", "-nan", "-NaN", "NA", "N/A", "null", "NULL", "None"]
NUMBERS = (pa.int64(), pa.uint64(), pa.float64())


class CsvReader(LinesReader):
    """One open CSV file.

    Parameters
    ----------
    path : str
        Local path or URL, plain or compressed with gzip, bzip2 or zstd.
    tree : str
        Not used: the file is one table.

    Raises
    ------
    SourceError
        If the file is missing, empty, damaged, out of reach, not UTF-8, or a line is not as the others; the error names line and column.
    """

    def __init__(self, path: str, tree: str) -> None:
        super().__init__(path, _CsvParser, "CSV")


class _Found(NamedTuple):
    """What is known of a column so far: its type (None: no value yet; string: text), and whether it has nulls and negative values."""

    type: pa.DataType | None = None
    nulls: bool = False
    negative: bool = False


class _CsvParser:
    def __init__(self) -> None:
        self._names: list[str] = []
        self._found: list[_Found] = []

    def header(self, line: bytes) -> bool:
        if b"\r" in line.rstrip(b"\r\n"):
            raise LineError(1, "holds line ends of old Macintosh files (CR alone), which cannot be read")
        self._names = [name.strip() for name in _split(line.removeprefix(b"\xef\xbb\xbf"))]
        if not any(self._names):
            raise LineError(1, "is empty; it should hold the names of the columns")
        if all(_is_number(name) for name in self._names):
            raise LineError(1, "holds numbers; it should hold the names of the columns")
        self._found = [_Found() for _ in self._names]
        return True

    def learn(self, block: bytes) -> int:
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if not block.strip():
            return 0
        try:
            table = self._table(block, self._types())
        except pa.ArrowInvalid:
            self._widen(block)
            try:
                table = self._table(block, self._types())
            except pa.ArrowInvalid as error:
                line, text = first_bad_line(block, lambda part: self._table(part, self._types()))
                raise LineError(line, f"{text[:60]!r} cannot be read: {error}") from None
        if table.num_rows != lines and table.num_rows != sum(bool(line.strip(b"\r\n")) for line in block.split(b"\n")):
            raise LineError(_line_of_open_quote(block), "a value in quotes holds a line break, which cannot be read")
        # By place and not by name, which pyarrow looks for among all names: there may be thousands of columns.
        for place, column in zip(table.column_names, table.columns, strict=True):
            index = int(place)
            found = self._found[index]
            if found.type == pa.string():
                continue
            negative = found.negative
            if found.type == pa.int64() and not negative and column.null_count < len(column):
                negative = pc.min(column).as_py() < 0
            self._found[index] = found._replace(nulls=found.nulls or column.null_count > 0, negative=negative)
        return int(table.num_rows)

    def described(self) -> tuple[dict[str, ColumnType], dict[str, str]]:
        fields = [(name, found.type or pa.null()) for name, found in zip(self._names, self._found, strict=True)]
        columns, skipped = describe_types(fields)
        for name, found in zip(self._names, self._found, strict=True):
            if name in columns and found.nulls:
                columns[name] = with_nulls(columns[name])
            elif name in skipped and found.type == pa.string():
                skipped[name] = "holds text, not numbers"
        return columns, skipped

    def parse(self, block: bytes, columns: Sequence[str]) -> Mapping[str, pa.ChunkedArray]:
        known = {name: index for index, name in enumerate(self._names)}
        places = {name: known[name] for name in columns}
        table = self._table(block, {index: self._found[index].type for index in places.values()})
        return dict(zip(places, table.columns, strict=True))

    def _types(self) -> dict[int, pa.DataType]:
        """Types with which the next block is tried; text is not converted, unless there is nothing else."""
        types = {index: found.type or pa.null() for index, found in enumerate(self._found)}
        return {index: kind for index, kind in types.items() if kind != pa.string()} or {0: pa.binary()}

    def _table(self, block: bytes, types: Mapping[int, Any]) -> pa.Table:
        return pyarrow.csv.read_csv(
            pa.BufferReader(block),
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False,
                block_size=len(block) + 1,
                column_names=[str(index) for index in range(len(self._names))],
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=[str(index) for index in types],
                column_types={str(index): kind for index, kind in types.items()},
                null_values=NULLS,
                true_values=TRUE,
                false_values=FALSE,
                strings_can_be_null=True,
                check_utf8=False,
            ),
        )

    def _widen(self, block: bytes) -> None:
        """Settle the types anew so that they hold a block that did not fit."""
        strings = {index: pa.string() for index in self._types()}
        try:
            table = self._table(block, strings)
        except pa.ArrowInvalid:
            line, text = first_bad_line(block, lambda part: self._table(part, strings))
            raise LineError(
                line, f"holds {len(_split(text))} values; the header names {len(self._names)} columns"
            ) from None
        for index, column in zip(strings, table.columns, strict=True):
            values = pc.utf8_trim_whitespace(column)
            found = self._found[index]
            present = values.drop_null()
            if len(present) == 0:
                continue
            expected = found.type or _type_by_first(present[0].as_py())
            kind = _widest(expected, present, negative=found.negative)
            if kind is None:
                row, value = _first_misfit(values, expected)
                what = "true or false" if expected == pa.bool_() else "a number"
                raise LineError(
                    _line_of_row(block, row), f"column '{self._names[index]}' holds {value[:40]!r}, not {what}"
                )
            self._found[index] = found._replace(type=kind)


def _type_by_first(value: str) -> pa.DataType:
    """Return what the first value of a column says of the others: bool, int64 for numbers of any type, or string."""
    if value in TRUE + FALSE:
        return pa.bool_()
    return pa.int64() if _casts(pa.array([value]), pa.float64()) else pa.string()


def _widest(expected: pa.DataType, present: pa.ChunkedArray, *, negative: bool) -> pa.DataType | None:
    """Return the narrowest type from the expected one on that holds some texts as well; None where there is none."""
    if expected == pa.string():
        return expected
    if expected == pa.bool_():
        return expected if pc.all(pc.is_in(present, pa.array(TRUE + FALSE))).as_py() else None
    for kind in NUMBERS[NUMBERS.index(expected) :]:
        if not (kind == pa.uint64() and negative) and _casts(present, kind):
            return kind
    return None


def _first_misfit(values: pa.ChunkedArray, expected: pa.DataType) -> tuple[int, str]:
    for row, value in enumerate(values.to_pylist()):
        if value is None or (_type_by_first(value) == pa.bool_() if expected == pa.bool_() else _is_number(value)):
            continue
        return row, value
    raise AssertionError("all values fit")


def _casts(values: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> bool:
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _is_number(value: str) -> bool:
    return _casts(pa.array([value]), pa.float64())


def _split(line: bytes) -> list[str]:
    return next(csv.reader([line.decode("utf-8", "replace").rstrip("\r\n")]), [])


def _line_of_row(block: bytes, row: int) -> int:
    """Return the line, counted from 1, of a row, counted from 0: empty lines are no rows."""
    full = (number for number, line in enumerate(block.split(b"\n"), start=1) if line.strip(b"\r"))
    return next(number for index, number in enumerate(full) if index == row)


def _line_of_open_quote(block: bytes) -> int:
    return next((number for number, line in enumerate(block.split(b"\n"), start=1) if line.count(b'"') % 2), 1)
