"""File formats: a Reader for each, found by the file's extension and imported on first use."""

from __future__ import annotations

import importlib
from pathlib import PurePosixPath

from mlaas4hep.errors import SettingError, SourceError, quoted
from mlaas4hep.streaming.formats.base import Column, ColumnType, Reader

__all__ = ["EXTENSIONS", "FORMATS", "Column", "ColumnType", "Reader", "format_of", "open_reader"]

FORMATS: dict[str, str] = {
    "root": "mlaas4hep.streaming.formats.root:RootReader",
    "parquet": "mlaas4hep.streaming.formats.parquet:ParquetReader",
    "arrow": "mlaas4hep.streaming.formats.arrow:ArrowReader",
    "csv": "mlaas4hep.streaming.formats.csv_lines:CsvReader",
    "json": "mlaas4hep.streaming.formats.json_lines:JsonReader",
    "avro": "mlaas4hep.streaming.formats.avro:AvroReader",
    "hdf5": "mlaas4hep.streaming.formats.hdf5:Hdf5Reader",
}
"""Name of a format → ``module:class``; a new format is one file and one line here."""

EXTENSIONS: dict[str, str] = {
    ".root": "root",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".avro": "avro",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}
"""File extension → name of the format."""

COMPRESSED = (".gz", ".bz2", ".zst")
"""Extensions that may follow one of text."""

NEVER_EVENTS = {
    ".txt",
    ".dat",
    ".xml",
    ".yaml",
    ".yml",
    ".xlsx",
    ".zip",
    ".tar",
    ".npy",
    ".npz",
    ".pkl",
    ".orc",
    ".hepmc",
    ".lhe",
}
"""Extensions of files that are certainly of another kind: said so, rather than that they are no ROOT files."""


def format_of(path: str, dtype: str | None = None) -> str:
    """Return the name of a file's format, a key of :data:`FORMATS`.

    Parameters
    ----------
    path : str
        Local path or URL; what follows a ``?`` does not count. A name without a known extension is taken for ROOT, which checks its first bytes.
    dtype : str, optional
        The format whatever the extension is.

    Raises
    ------
    SettingError
        If there is no format of the name ``dtype``.
    SourceError
        If the extension is of something that cannot be read.

    Examples
    --------
    >>> format_of("root://host//store/data/f.parquet?x=1"), format_of("events", "parquet")
    ('parquet', 'parquet')
    """
    if dtype:
        if dtype not in FORMATS:
            raise SettingError("dtype", f"one of {quoted(FORMATS, len(FORMATS))}", dtype)
        return dtype
    name = PurePosixPath(path.partition("?")[0] if "://" in path else path)
    extension = name.suffix.lower()
    if extension in COMPRESSED:
        extension = PurePosixPath(name.stem).suffix.lower() or extension
    if extension in EXTENSIONS:
        return EXTENSIONS[extension]
    if extension in NEVER_EVENTS or extension in COMPRESSED:
        raise SourceError(
            path,
            f"files of type '{extension}' cannot be read; what can be: {', '.join(EXTENSIONS)}, or name it with dtype",
        )
    return "root"


def open_reader(path: str, tree: str, dtype: str | None = None) -> Reader:
    """Open a file with the Reader of its format.

    Parameters
    ----------
    path : str
        Local path or URL.
    tree : str
        Name of the tree, where the format has such.
    dtype : str, optional
        Name of the format, a key of :data:`FORMATS`; by the file's extension when not given.

    Raises
    ------
    SettingError
        If there is no format of the name ``dtype``.
    SourceError
        If the file is missing or is not what its name says.
    TreeNotFoundError
        If it holds no such tree.
    MissingExtraError
        If the format needs a package that is not installed.
    """
    module, _, name = FORMATS[format_of(path, dtype)].partition(":")
    reader: Reader = getattr(importlib.import_module(module), name)(path, tree)
    return reader
