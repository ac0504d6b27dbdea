"""The same events written in every format; a new format is tested by adding its name and its writer here."""

from __future__ import annotations

import bz2
import gzip
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import fastavro
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import uproot
from tests.conftest import write_tree_file

Columns = Mapping[str, Any]
Write = Callable[[Path, Columns], None]

PIECE = 150
"""Events of a cluster, row group, record batch, block or chunk."""


def as_table(columns: Columns) -> pa.Table:
    return pa.table(
        {
            name: pa.array(values)
            if isinstance(values, np.ndarray)
            else ak.to_arrow(ak.Array(values), extensionarray=False)
            for name, values in columns.items()
        }
    )


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    return as_table(columns).to_pylist()


def bounds_of(columns: Columns) -> list[int]:
    events = len(next(iter(columns.values())))
    return [*range(0, events, PIECE), events]


def ttree(path: Path, columns: Columns) -> None:
    write_tree_file(path, columns, bounds_of(columns)[1:-1])


def rntuple(path: Path, columns: Columns) -> None:
    bounds = bounds_of(columns)
    table = ak.Array({name: ak.Array(values) for name, values in columns.items()})
    with uproot.recreate(path) as file:
        writable = file.mkrntuple("Events", table[: bounds[1]])
        for start, stop in itertools.pairwise(bounds[1:]):
            writable.extend(table[start:stop])


def parquet(path: Path, columns: Columns) -> None:
    pyarrow.parquet.write_table(as_table(columns), path, row_group_size=PIECE, write_page_checksum=True)


def arrow(path: Path, columns: Columns) -> None:
    table = as_table(columns)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=PIECE)


def feather(path: Path, columns: Columns) -> None:
    pyarrow.feather.write_feather(as_table(columns), path, compression="zstd", chunksize=PIECE)


def csv_text(columns: Columns) -> bytes:
    flat = {name: values.tolist() for name, values in columns.items() if isinstance(values, np.ndarray)}
    rows = [",".join(map(str, row)) for row in zip(*flat.values(), strict=True)]
    return "\n".join([",".join(flat), *rows, ""]).encode()


def json_text(columns: Columns) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows_of(columns))


def zstd(text: bytes) -> bytes:
    # A frame with a checksum, which is not what the library writes by itself.
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(text)
    return sink.getvalue().to_pybytes()


def avro(path: Path, columns: Columns) -> None:
    plain = {"b": "boolean", "i4": "int", "f4": "float", "f8": "double"}

    def kind(values: Any) -> Any:
        flat = values if isinstance(values, np.ndarray) else ak.flatten(values).to_numpy()
        name = plain.get(flat.dtype.str.lstrip("<|")[: 1 if flat.dtype == bool else 2], "long")
        return name if isinstance(values, np.ndarray) else {"type": "array", "items": name}

    fields = [{"name": name, "type": kind(values)} for name, values in columns.items()]
    with path.open("wb") as file:
        fastavro.writer(
            file, {"type": "record", "name": "Event", "fields": fields}, rows_of(columns), "deflate", sync_interval=4000
        )


def hdf5(path: Path, columns: Columns) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group("Events", track_order=True)
        chunk = min(PIECE, bounds_of(columns)[-1])
        for name, values in columns.items():
            if isinstance(values, np.ndarray):
                group.create_dataset(name, data=values, chunks=(chunk,), compression="gzip", fletcher32=True)
            else:
                dtype = h5py.vlen_dtype(ak.flatten(values).to_numpy().dtype)
                dataset = group.create_dataset(name, (len(values),), dtype, chunks=(chunk,))
                for event, list_ in enumerate(values):
                    dataset[event] = list_.to_numpy()


WRITERS: dict[str, tuple[str, str, Write]] = {
    "TTree": ("root", ".root", ttree),
    "RNTuple": ("root", ".root", rntuple),
    "Parquet": ("parquet", ".parquet", parquet),
    "Arrow": ("arrow", ".arrow", arrow),
    "Feather, compressed": ("arrow", ".feather", feather),
    "CSV": ("csv", ".csv", lambda path, columns: path.write_bytes(csv_text(columns))),
    "CSV in gzip": ("csv", ".csv.gz", lambda path, columns: path.write_bytes(gzip.compress(csv_text(columns)))),
    "JSON": ("json", ".json", lambda path, columns: path.write_bytes(json_text(columns))),
    "JSON in bzip2": ("json", ".jsonl.bz2", lambda path, columns: path.write_bytes(bz2.compress(json_text(columns)))),
    "JSON in zstd": ("json", ".ndjson.zst", lambda path, columns: path.write_bytes(zstd(json_text(columns)))),
    "Avro": ("avro", ".avro", avro),
    "HDF5": ("hdf5", ".h5", hdf5),
}
"""What is tested → the format's name, the extension, and what writes such a file."""


def write(kind: str, folder: Path, columns: Columns, stem: str = "events") -> str:
    """Write the events as one kind of file and return its path."""
    _, extension, writer = WRITERS[kind]
    path = folder / (stem + extension)
    writer(path, columns)
    return str(path)


def expected_columns(kind: str, columns: Columns) -> dict[str, Any]:
    """What a file of this kind can hold: CSV has no lists, and those of HDF5 are left out."""
    without_lists = "CSV" in kind or kind == "HDF5"
    return {name: values for name, values in columns.items() if not without_lists or isinstance(values, np.ndarray)}
