"""File formats: a Reader for each, found by the file's extension and imported on first use."""

from __future__ import annotations

import importlib
from pathlib import PurePosixPath

from mlaas4hep.errors import SourceError
from mlaas4hep.streaming.formats.base import Column, ColumnType, Reader

__all__ = ["FORMATS", "Column", "ColumnType", "Reader", "open_reader"]

FORMATS: dict[str, str] = {
    ".root": "mlaas4hep.streaming.formats.root:RootReader",
}
"""File extension → ``module:class``; a new format is one file and one line here."""


def open_reader(path: str, tree: str) -> Reader:
    """Open a file with the Reader of its format.

    Parameters
    ----------
    path : str
        Local path or URL. A name without a known extension is taken for ROOT, which checks its first bytes.
    tree : str
        Name of the tree, where the format has such.

    Raises
    ------
    SourceError
        If the file is missing or is not what its name says.
    TreeNotFoundError
        If it holds no such tree.
    """
    extension = PurePosixPath(path.partition("?")[0]).suffix.lower()
    if extension in {".csv", ".json", ".parquet", ".avro", ".h5", ".txt"}:
        raise SourceError(path, f"files of type '{extension}' cannot be read; what can be: {', '.join(FORMATS)}")
    module, _, name = FORMATS.get(extension, FORMATS[".root"]).partition(":")
    reader: Reader = getattr(importlib.import_module(module), name)(path, tree)
    return reader
