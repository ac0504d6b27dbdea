"""One shard of a cache: the encoded events of a run as an uncompressed Arrow IPC file, which is read by mapping it into memory.

A shard appears under its name whole, by renaming, or not at all. Its name says how many events it holds and the checksum of all its bytes, so that
nothing in the file has to be believed before it has been compared. No Python object is made for an event.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mlaas4hep.streaming.cache.cache_names import PART, ShardName
from mlaas4hep.streaming.catalog import Run
from mlaas4hep.streaming.encoding.row_kernels import checksum
from mlaas4hep.streaming.stream.encoded import EncodedEvents, EncodedRun

__all__ = ["DamagedShardError", "ShardFormat", "is_mapped", "map_shard", "read_shard", "write_shard"]

SMALL = 64 * 2**10
"""Bytes up to which a shard is read rather than mapped: a mapping costs more than so few bytes, and a process may have only so many."""


class DamagedShardError(Exception):
    """A file is not the shard that its name says."""


@dataclass(frozen=True)
class ShardFormat:
    """Shapes and types of the events of a stream.

    Parameters
    ----------
    width : int
        Places of the event vector.
    y_dtype : numpy.dtype
    y_shape : tuple of int
        Of one event's ``y``; no or one dimension.
    id_dtype : numpy.dtype
        Of a batch's ``id``. Its field ``file`` is not stored: the same file may have another place in another catalogue.
    """

    width: int
    y_dtype: np.dtype[Any]
    y_shape: tuple[int, ...]
    id_dtype: np.dtype[Any]

    @property
    def stored(self) -> tuple[str, ...]:
        """Fields of ``id`` that are stored: ``entry`` and the identifiers."""
        return tuple(name for name in self.id_dtype.names or () if name != "file")

    def columns(self, x: Any, y: Any, weight: Any, records: Any) -> dict[str, npt.NDArray[Any]]:
        """Return name → array as it is stored; without copying the vectors."""
        identity = {f"id.{name}": np.ascontiguousarray(records[name]) for name in self.stored}
        return {"x": x, "y": np.ascontiguousarray(y), "weight": np.ascontiguousarray(weight), **identity}

    def layout(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Return name → type of the values and shape of one event."""
        identity = {f"id.{name}": (self.id_dtype[name], ()) for name in self.stored}
        floats = np.dtype(np.float32)
        return {"x": (floats, (self.width,)), "y": (self.y_dtype, self.y_shape), "weight": (floats, ()), **identity}


def write_shard(
    folder: Path, key: str, encoded: EncodedRun, shape: ShardFormat, description: Mapping[str, Any]
) -> ShardName:
    """Write the events of a run as a shard; whoever looks meanwhile sees no shard, or all of it.

    Parameters
    ----------
    folder : Path
    key : str
        Key of the run.
    encoded : EncodedRun
    shape : ShardFormat
    description : mapping
        Plain values that tell a person what this is.

    Returns
    -------
    ShardName

    Raises
    ------
    OSError
        If it cannot be written; nothing of it is left then.
    """
    events = encoded.events
    columns = shape.columns(np.ascontiguousarray(events.x), events.y, events.weight, events.id)
    about = {
        **description,
        "events": len(events.x),
        "cut_counts": None if encoded.cut_counts is None else encoded.cut_counts.tolist(),
    }
    arrays = [_arrow(values) for values in columns.values()]
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    batch = batch.replace_schema_metadata({"mlaas4hep": json.dumps(about)})
    # Two processes may write the same shard: each has a file of its own, and the later one takes the other's place.
    part = folder / f"{key}-{os.getpid()}-{secrets.token_hex(4)}{PART}"
    try:
        with part.open("xb") as file:
            with pa.ipc.new_file(file, batch.schema) as writer:
                writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        name = ShardName(key, len(events.x), _checksum_of(_mapped(part)))
        part.rename(folder / str(name))
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, pa.ArrowException) and not isinstance(error, OSError):
            raise OSError(str(error)) from error
        raise
    return name


def map_shard(path: Path, name: ShardName, *, verify: bool = True) -> Any:
    """Map a shard into memory, and compare it with its checksum.

    The file is closed again at once; the mapping lasts as long as something refers to the buffer or to what is in it.

    Parameters
    ----------
    path : Path
    name : ShardName
        The path's own.
    verify : bool
        Whether all bytes are compared; those that were before need not be again.

    Returns
    -------
    pyarrow.Buffer

    Raises
    ------
    DamagedShardError
        If it is not what its name says.
    OSError
        If there is no such file, or it cannot be read.
    """
    buffer = _mapped(path)
    if verify and _checksum_of(buffer) != name.checksum:
        raise DamagedShardError("its bytes do not have the checksum that its name says")
    return buffer


def is_mapped(buffer: Any) -> bool:
    """Whether the bytes of a shard are a mapping, which takes no memory of the process's own."""
    return bool(buffer.size > SMALL)


def read_shard(buffer: Any, name: ShardName, run: Run, shape: ShardFormat) -> EncodedRun:
    """Return the events of a shard; nothing is copied but who they are.

    Parameters
    ----------
    buffer : pyarrow.Buffer
        From :func:`map_shard`.
    name : ShardName
    run : Run
        Which run it holds.
    shape : ShardFormat

    Raises
    ------
    DamagedShardError
        If it does not hold the events of that run.
    """
    try:
        file = pa.ipc.open_file(pa.BufferReader(buffer))
        batch = file.get_batch(0)
        about = json.loads(batch.schema.metadata[b"mlaas4hep"])
        layout = shape.layout()
        if batch.schema.names != list(layout) or batch.num_rows != name.events:
            raise ValueError(f"it holds {batch.num_rows} events of {batch.schema.names}")
        columns = {
            column: _numpy(batch.column(column), name.events, dtype, form) for column, (dtype, form) in layout.items()
        }
        cut = None if about["cut_counts"] is None else np.array(about["cut_counts"], np.int64)
    except (pa.ArrowException, ValueError, KeyError, TypeError, IndexError, OSError) as error:
        raise DamagedShardError(" ".join(str(error).split())) from error
    entries = columns["id.entry"]
    chosen = None
    if name.events < run.events:
        chosen = np.zeros(run.events, np.bool_)
        if not _rising(entries, run.start, run.stop):
            raise DamagedShardError("its entries are not those of its run")
        chosen[entries - run.start] = True
    records = np.empty(name.events, shape.id_dtype)
    records["file"] = run.file
    for field in shape.stored:
        records[field] = columns[f"id.{field}"]
    return EncodedRun(run, chosen, EncodedEvents(columns["x"], columns["y"], columns["weight"], records), cut)


def _rising(entries: npt.NDArray[np.int64], start: int, stop: int) -> bool:
    if not len(entries):
        return True
    return bool(entries[0] >= start and entries[-1] < stop and (np.diff(entries) > 0).all())


def _mapped(path: Path) -> Any:
    """Return the bytes of a file; those of a larger one as a mapping, which lasts as long as the buffer and needs no open file."""
    if path.stat().st_size <= SMALL:
        return pa.py_buffer(path.read_bytes())
    with pa.memory_map(str(path)) as source:
        return source.read_buffer()


def _arrow(values: npt.NDArray[Any]) -> Any:
    """Return an array as Arrow's, without copying; of two dimensions as lists of fixed length."""
    flat = values.reshape(-1)
    array = pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), len(flat), [None, pa.py_buffer(flat)])
    if values.ndim == 1:
        return array
    return pa.FixedSizeListArray.from_arrays(array, values.shape[1])


def _numpy(array: Any, events: int, dtype: np.dtype[Any], form: Sequence[int]) -> npt.NDArray[Any]:
    """Return a column as numpy's, without copying.

    Raises
    ------
    ValueError
        If it is not of that type and length.
    """
    values = array
    if form:
        if not pa.types.is_fixed_size_list(array.type) or array.type.list_size != form[0]:
            raise ValueError(f"it holds {array.type}")
        values = array.values
    length = events * int(np.prod(form, dtype=np.int64))
    if values.type != pa.from_numpy_dtype(dtype) or len(values) != length or values.offset or values.null_count:
        raise ValueError(f"it holds {len(values)} values of type {values.type}")
    return np.frombuffer(values.buffers()[1] or b"", dtype, length).reshape(events, *form)


def _checksum_of(buffer: Any) -> int:
    data = np.frombuffer(buffer, np.uint8)
    whole = len(data) // 64 * 64
    rest = np.zeros(64, np.uint8)
    rest[: len(data) - whole] = data[whole:]
    return int(checksum(data[:whole].view(np.uint64), rest.view(np.uint64), len(data)))
