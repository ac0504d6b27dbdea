"""The formats of files of scores: each takes columns block by block, and says in the file what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["SCORE_FORMATS", "Columns", "ScoreWriter", "Types"]

Columns = Mapping[str, npt.NDArray[Any]]
Types = Mapping[str, np.dtype[Any]]


class ScoreWriter(Protocol):
    """Takes columns block by block; all blocks have the same columns.

    Parameters
    ----------
    path : Path
        Where to; nothing else is written.
    types : mapping of str to dtype
        Name and type of each column.
    """

    def __init__(self, path: Path, types: Types) -> None: ...

    def write(self, columns: Columns) -> None:
        """Append the rows of a block."""

    def close(self, about: Mapping[str, Any]) -> None:
        """Complete the file; ``about`` says what it is, and goes where the format has a place for it."""

    def abandon(self) -> None:
        """Let go of a file that will not be completed."""


class RootScores:
    """A TTree ``Events`` with one branch a column; ``about`` as a string of that name, and the names of the input files as ``files``, one a line."""

    def __init__(self, path: Path, types: Types) -> None:
        import uproot

        # Scores hardly become smaller; identifiers and flags do, and this is the fastest of the algorithms that all versions of ROOT read.
        self._file = uproot.recreate(path, compression=uproot.LZ4(1))
        self._tree = self._file.mktree("Events", dict(types))

    def write(self, columns: Columns) -> None:
        """See :class:`ScoreWriter`."""
        self._tree.extend(dict(columns))

    def close(self, about: Mapping[str, Any]) -> None:
        """See :class:`ScoreWriter`."""
        self._file["files"] = "\n".join(file["name"] for file in about.get("inputs", ()))
        self._file["about"] = json.dumps(about)
        self._file.close()

    def abandon(self) -> None:
        """See :class:`ScoreWriter`."""
        self._file.close()


class ParquetScores:
    """A Parquet file with one column a column; ``about`` in the file's metadata, and the names of the input files as ``files``, one a line."""

    def __init__(self, path: Path, types: Types) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name, dtype in types.items()])
        # Scores, entries and event numbers hardly repeat: a dictionary of them makes the file larger and writing three times as slow.
        repeated = [name for name, dtype in types.items() if dtype.kind in "iu" and dtype.itemsize < 8]
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeated)

    def write(self, columns: Columns) -> None:
        """See :class:`ScoreWriter`."""
        import pyarrow as pa

        self._writer.write_table(pa.table({name: pa.array(values) for name, values in columns.items()}))

    def close(self, about: Mapping[str, Any]) -> None:
        """See :class:`ScoreWriter`."""
        names = "\n".join(file["name"] for file in about.get("inputs", ()))
        self._writer.add_key_value_metadata({"files": names, "about": json.dumps(about)})
        self._writer.close()

    def abandon(self) -> None:
        """See :class:`ScoreWriter`."""
        self._writer.close()


class CsvScores:
    """A CSV file with a line of names first; scores of events that have none are empty. What it is stands in a JSON file beside it."""

    def __init__(self, path: Path, types: Types) -> None:
        import pyarrow as pa
        from pyarrow import csv

        self._types = dict(types)
        schema = pa.schema([(name, pa.from_numpy_dtype(dtype)) for name, dtype in types.items()])
        self._writer = csv.CSVWriter(path, schema, write_options=csv.WriteOptions(quoting_style="needed"))

    def write(self, columns: Columns) -> None:
        """See :class:`ScoreWriter`."""
        import pyarrow as pa

        self._writer.write(
            pa.table({name: pa.array(values, from_pandas=values.dtype.kind == "f") for name, values in columns.items()})
        )

    def close(self, about: Mapping[str, Any]) -> None:
        """See :class:`ScoreWriter`."""
        self._writer.close()

    def abandon(self) -> None:
        """See :class:`ScoreWriter`."""
        self._writer.close()


SCORE_FORMATS: dict[str, type[ScoreWriter]] = {".root": RootScores, ".parquet": ParquetScores, ".csv": CsvScores}
"""File extension → writer; a new format is one class and one line here."""
