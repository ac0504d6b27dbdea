"""The stream as Arrow record batches, and as a Parquet file.

For tools that read neither ROOT nor our batches. What a value means stays with the data: the schema's metadata hold the encoding, the names of the
classes and the files, as JSON under the key ``mlaas4hep``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlaas4hep.atomic import atomic_file
from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.stream.stream import Batch, EventStream

__all__ = ["Layout", "to_arrow", "to_parquet"]

Layout = Literal["columns", "vector"]

COMPRESSIONS = ("zstd", "lz4", "snappy", "gzip", "brotli", "none")
ROW_GROUP_BYTES = 64 * 2**20


def to_arrow(stream: EventStream, *, layout: Layout = "columns") -> pa.RecordBatchReader:
    """Return one epoch of a stream as Arrow record batches, made while they are read.

    Parameters
    ----------
    stream : EventStream
        Its batches become the record batches, in its order.
    layout : {"columns", "vector"}
        One column for each place of the event vector (``MET_pt``, ``Jet_pt_0``, …), or one column ``x`` of lists that are as long as the vector.

    Returns
    -------
    pyarrow.RecordBatchReader
        Values are float32 as the encoding scales them, null where absent; then ``y``, ``weight`` and the fields of the batches' ``id``.

    Raises
    ------
    SettingError
        If the layout is not one of these, or a feature has the name of another column.
    SourceError
        While reading, if a file cannot be read.

    Examples
    --------
    >>> import mlaas4hep
    >>> dataset = mlaas4hep.open("examples/data/VBF_HToTauTau.root", branches=["MET_pt"])
    >>> batch = to_arrow(dataset.stream("train", batch_size=100)).read_next_batch()
    >>> batch.num_rows, batch.schema.names
    (100, ['MET_pt', 'y', 'weight', 'file', 'entry', 'run', 'luminosityBlock', 'event'])
    """
    if layout not in get_args(Layout):
        raise SettingError("layout", f"one of {', '.join(get_args(Layout))}", layout)
    schema = _schema(stream, layout)
    batches = (pa.RecordBatch.from_arrays(_arrays(batch, layout), schema=schema) for batch in stream)
    return pa.RecordBatchReader.from_batches(schema, batches)


def to_parquet(
    stream: EventStream,
    path: str | Path,
    *,
    layout: Layout = "columns",
    compression: str = "zstd",
    row_group_bytes: int = ROW_GROUP_BYTES,
) -> int:
    """Write one epoch of a stream to a Parquet file, which is there when it is whole.

    Parameters
    ----------
    stream : EventStream
    path : str or Path
        The file; one of that name is replaced. Its folder must exist.
    layout : {"columns", "vector"}
        As in :func:`to_arrow`.
    compression : str
        ``zstd``, ``lz4``, ``snappy``, ``gzip``, ``brotli`` or ``none``.
    row_group_bytes : int
        About how many uncompressed bytes a row group holds; so many wait in memory.

    Returns
    -------
    int
        Number of events written.

    Raises
    ------
    SettingError
        As :func:`to_arrow`, or if another argument has a value that it must not have.
    SourceError
        If a file cannot be read, or this one not be written; then nothing of it is left.
    """
    if isinstance(row_group_bytes, bool) or not isinstance(row_group_bytes, int) or row_group_bytes < 1:
        raise SettingError("row_group_bytes", "an integer ≥ 1", row_group_bytes)
    if compression not in COMPRESSIONS:
        raise SettingError("compression", f"one of {', '.join(COMPRESSIONS)}", compression)
    path = Path(path)
    reader = to_arrow(stream, layout=layout)
    try:
        with atomic_file(path) as file:
            return _write(reader, file, compression, row_group_bytes)
    except OSError as error:
        raise SourceError(str(path), f"cannot be written: {error.strerror or error}") from error


def _write(reader: pa.RecordBatchReader, file: Any, compression: str, row_group_bytes: int) -> int:
    """Write record batches, gathered to row groups; return the number of events."""
    import pyarrow.parquet as pq

    events = 0
    waiting: list[pa.RecordBatch] = []
    with pq.ParquetWriter(file, reader.schema, compression=compression, write_page_checksum=True) as writer:

        def write_row_group() -> None:
            table = pa.Table.from_batches(waiting, reader.schema)
            writer.write_table(table, row_group_size=max(1, len(table)))
            waiting.clear()

        for batch in reader:
            events += batch.num_rows
            waiting.append(batch)
            if sum(one.nbytes for one in waiting) >= row_group_bytes:
                write_row_group()
        if waiting or not events:
            write_row_group()
    return events


def _schema(stream: EventStream, layout: Layout) -> pa.Schema:
    encoding = stream.encoding
    if layout == "vector":
        fields = [pa.field("x", pa.list_(pa.float32(), encoding.width))]
    else:
        fields = [pa.field(name, pa.float32()) for name in encoding.columns]
    labels, identity = stream.rules.labels, stream.rules.identity
    y = pa.from_numpy_dtype(labels.dtype)
    fields += [
        pa.field("y", pa.list_(y, *labels.shape) if labels.shape else y, nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        *(
            pa.field(name, pa.from_numpy_dtype(dtype), nullable=False)
            for name, (dtype, *_) in (identity.dtype.fields or {}).items()
        ),
    ]
    names = [field.name for field in fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingError("layout", f"'vector' where a feature is called '{twice}', as another column is", layout)
    about = {
        "version": 1,
        "layout": layout,
        "fold": stream.settings.fold,
        "classes": list(labels.classes),
        "split": identity.split.to_dict(),
        "encoding": encoding.to_dict(),
        "files": [{"path": file.path, "uuid": file.uuid, "entries": file.entries} for file in stream.catalog.files],
    }
    return pa.schema(fields, metadata={"mlaas4hep": json.dumps(about)})


def _arrays(batch: Batch, layout: Layout) -> list[pa.Array]:
    if layout == "vector":
        features = [_lists(batch.x, batch.mask)]
    else:
        # Transposed once, so that each column is read in one piece.
        values, absent = np.ascontiguousarray(batch.x.T), np.ascontiguousarray(batch.mask.T)
        features = [pa.array(column, mask=missing) for column, missing in zip(values, absent, strict=True)]
    labels = pa.array(batch.y) if batch.y.ndim == 1 else _lists(batch.y, None)
    names = batch.id.dtype.names or ()
    identity = [pa.array(np.ascontiguousarray(batch.id[name])) for name in names]
    return [*features, labels, pa.array(batch.weight), *identity]


def _lists(values: npt.NDArray[Any], absent: npt.NDArray[np.bool_] | None) -> pa.Array:
    """Return the rows of an array of shape ``[n, width]`` as lists of that length."""
    flat = pa.array(values.reshape(-1), mask=None if absent is None else absent.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
