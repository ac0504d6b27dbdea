"""Files that scores are written to: one row an event, the identifiers beside the score; whole or not there."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from mlaas4hep.errors import SettingError

__all__ = ["SCORE_FORMATS", "ScoreWriter", "open_score_file", "score_columns"]

Columns = Mapping[str, npt.NDArray[Any]]


class ScoreWriter(Protocol):
    """Takes columns block by block; all blocks have the same columns."""

    def __init__(self, path: Path, files: Sequence[str]) -> None: ...

    def write(self, columns: Columns) -> None:
        """Append the rows of a block."""

    def close(self) -> None:
        """Complete the file."""


class RootScores:
    """A TTree ``Events`` with one branch a column, and the names of the input files as the string ``files``, one a line."""

    def __init__(self, path: Path, files: Sequence[str]) -> None:
        import uproot

        self._file = uproot.recreate(path)
        self._file["files"] = "\n".join(files)
        self._tree: Any = None

    def write(self, columns: Columns) -> None:
        """Append the rows of a block."""
        if self._tree is None:
            self._tree = self._file.mktree("Events", {name: values.dtype for name, values in columns.items()})
        self._tree.extend(dict(columns))

    def close(self) -> None:
        """Complete the file."""
        self._file.close()


class ParquetScores:
    """A Parquet file with one column a column, and the names of the input files in the schema's metadata under ``files``, one a line."""

    def __init__(self, path: Path, files: Sequence[str]) -> None:
        self._path = path
        self._metadata = {"files": "\n".join(files)}
        self._writer: Any = None

    def write(self, columns: Columns) -> None:
        """Append the rows of a block."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema.with_metadata(self._metadata), compression="zstd")
        self._writer.write_table(table.replace_schema_metadata(self._metadata))

    def close(self) -> None:
        """Complete the file."""
        if self._writer is not None:
            self._writer.close()


SCORE_FORMATS: dict[str, type[ScoreWriter]] = {".root": RootScores, ".parquet": ParquetScores}
"""File extension → writer; a new format is one class and one line here."""


class open_score_file:  # noqa: N801 - reads as the function that it is
    """Open a file for scores; it takes its name when the ``with`` block ends well, and is removed when it does not.

    Parameters
    ----------
    path : Path
        Its extension says the format. A file of that name is replaced.
    files : sequence of str
        Names of the input files, in the order of the column ``file``.

    Raises
    ------
    SettingError
        If there is no such format, or the folder cannot be written to.
    """

    def __init__(self, path: Path, files: Sequence[str]) -> None:
        if path.suffix not in SCORE_FORMATS:
            raise SettingError("out", f"a file name that ends in {' or '.join(SCORE_FORMATS)}", str(path))
        self._path = path
        try:
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        except OSError as error:
            raise SettingError("out", f"in a folder that can be written to ({error.strerror})", str(path)) from error
        os.close(handle)
        self._temporary = Path(temporary)
        self._temporary.unlink()  # the writer makes it anew, with the permissions of any other file
        self._writer = SCORE_FORMATS[path.suffix](self._temporary, files)

    def __enter__(self) -> ScoreWriter:
        return self._writer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
            if kind is None:
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)


def score_columns(
    identity: npt.NDArray[np.void], scores: npt.NDArray[np.float32], labels: Sequence[str], output: str
) -> Columns:
    """Return the columns of some events: ``file``, ``entry``, the identifiers, then the scores.

    Parameters
    ----------
    identity : structured array of shape ``[n]``
        As in a batch.
    scores : float32 array of shape ``[n, len(labels)]``
    labels : sequence of str
        Name of each column of the scores.
    output : str
        ``probabilities`` gives columns ``probability_LABEL``; ``values`` gives a column named by each label.

    Examples
    --------
    >>> identity = np.array([(0, 5)], [("file", "i4"), ("entry", "i8")])
    >>> list(score_columns(identity, np.array([[0.1, 0.9]], np.float32), ["ggH", "t t"], "probabilities"))
    ['file', 'entry', 'probability_ggH', 'probability_t_t']
    """
    assert identity.dtype.names is not None  # noqa: S101 - a batch's identity is structured
    columns: dict[str, npt.NDArray[Any]] = {name: np.ascontiguousarray(identity[name]) for name in identity.dtype.names}
    for index, label in enumerate(labels):
        name = re.sub(r"\W", "_", label)
        columns[f"probability_{name}" if output == "probabilities" else name] = np.ascontiguousarray(scores[:, index])
    return columns
