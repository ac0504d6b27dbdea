"""What must not get in: each file gives one clear line that names what is wrong, or the columns that can be used."""

from __future__ import annotations

import bz2
import decimal
import gzip
import tracemalloc
from contextlib import closing
from pathlib import Path
from typing import Any

import fastavro
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import SourceError, TreeNotFoundError
from mlaas4hep.streaming.formats import open_reader, text


def read(path: Path, tree: str = "Events") -> dict[str, Any]:
    """Return every column's type and values, lists as their content and lengths, and what was left out under ''."""
    with closing(open_reader(str(path), tree)) as reader:
        columns = reader.read(0, reader.entries, list(reader.columns))
        found: dict[str, Any] = {
            name: (str(reader.columns[name]), column.content.tolist())
            + (() if column.offsets is None else (np.diff(column.offsets).tolist(),))
            for name, column in columns.items()
        }
        return found | {"": dict(reader.skipped)}


def nan_as_text(values: Any) -> str:
    return str(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n", "holds no event: a CSV file tells the types of its columns by its rows"),
        ("\n\n", "line 1: is empty; it should hold the names of the columns"),
        ("1,2\n3,4\n", "line 1: holds numbers; it should hold the names of the columns"),
        ("a,b\n1,2\n3\n", "line 3: holds 1 values; the header names 2 columns"),
        ("a,b\n1,2\n\n1,2,3\n", "line 4: holds 3 values; the header names 2 columns"),
        ("a,b\n1,2\n\n3,x\n", "line 4: column 'b' holds 'x', not a number"),
        ("a,b\ntrue,1\n1,2\n", "line 3: column 'a' holds '1', not true or false"),
        ('a,b\n1,"x\ny"\n2,3\n', "line 2: a value in quotes holds a line break"),
        (b"a,b\n1,2\n1,\xff\n", "line 3: is not UTF-8: byte 0xff"),
        ("a,b\n1,2\n".encode("utf-16"), "line 1: is not UTF-8: byte 0xff"),
        ("a,b\n1,2\x00\n", "line 2: holds a zero byte"),
        (gzip.compress(b"a,b\n1,2\n" * 9, mtime=0)[:-9], "the gzip data are damaged"),
        (b"\x1f\x8bnot gzip at all", "the gzip data are damaged"),
        ("a,b\r1,2\r3,4\r", "line 1: holds line ends of old Macintosh files (CR alone)"),
        ("a,b\n1,2,\n3,4,\n", "line 2: holds 3 values; the header names 2 columns"),
        ("a,b\n1,2\n# a comment\n", "line 3: holds 1 values; the header names 2 columns"),
        ("a,b\n1,2\n1_000,3\n", "line 3: column 'a' holds '1_000', not a number"),
    ],
)
def test_a_csv_file_that_is_not_as_it_should_be_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n\n", "holds no event"),
        ('[{"x":1}]\n', "line 1: begins a list; the file should hold one object a line"),
        ("nonsense\n", "line 1: 'nonsense' is no JSON object"),
        ('{"x":1}\n5\n', "line 2: '5' is no JSON object"),
        ('{"x":1}\n{"x":1', "line 2: '{\"x\":1' is no JSON object"),
        ('{"x":1}{"x":2}\n', "line 1: holds more or less than one object"),
        ('{"x":1,"x":1}\n', "line 1: column 'x' was specified twice"),
        ('{"x":1}\n\n{"x":"a"}\n', "line 3: column 'x' changed from number to string"),
        ('{"x":1}\n{"x":[1]}\n', "line 2: column 'x' changed from number to array"),
        (b'{"x":1,"s":"\xff"}\n', "line 1: is not UTF-8"),
        ('{"x":' + "[" * 100_000, "line 1: "),
    ],
)
def test_a_json_file_that_is_not_as_it_should_be_is_named_with_its_line(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SourceError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e400", np.inf),
        ("-1e400", -np.inf),
        ("inf", np.inf),
        ("nan", np.nan),
        ("NULL", np.nan),
        ("", np.nan),
        ('"3"', 3),
        ("1e5", 1e5),
        ("0x10", 16),
        (" 2 ", 2),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_a_word_of_csv_is_the_number_that_it_says(tmp_path: Path, word: str, value: float) -> None:
    path = tmp_path / "f.csv"
    path.write_text(f"\ufeffa,b\r\n1,5\r\n\r\n{word},6\r\n")
    found = read(path)["a"][1]
    assert found == pytest.approx([1, value], rel=0, abs=0, nan_ok=True)


def test_five_thousand_columns_and_lines_of_ten_megabytes_are_read(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text(
        ",".join(f"c{i}" for i in range(5000)) + "\n" + (",".join(["1.5"] * 5000) + "\n") * 30
    )
    wide = read(tmp_path / "wide.csv")
    assert len(wide) == 5001
    assert wide["c4999"] == ("float64", [1.5] * 30)
    for name, lines in {
        "long.csv": "a,s\n1,{}\n2,y\n",
        "long.json": '{{"a": 1, "s": "{}"}}\n{{"a": 2, "s": ""}}\n',
    }.items():
        (tmp_path / name).write_text(lines.format("x" * 10_000_000))
        assert read(tmp_path / name)["a"] == ("int64", [1, 2])


@pytest.mark.parametrize("extension", [".csv", ".json", ".csv.gz"])
def test_one_line_of_100_mb_is_refused_in_little_memory(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"f{extension}"
    with gzip.open(path, "wb", 1) if extension.endswith("gz") else path.open("wb") as file:
        for _ in range(100):
            file.write(b"1" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(SourceError, match="line 1 is longer than 16 MiB"):
        read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_types_of_text_follow_from_the_whole_file_and_hold_in_every_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", 16)
    rows = [f"{i},{i},{i},{'' if i == 7 else i},true,a{i}" for i in range(20)]
    rows[15] = "15,0.5,18446744073709551615,15,false,a"
    (tmp_path / "f.csv").write_text("\n".join(["i,f,u,n,b,s", *rows]))
    with closing(open_reader(str(tmp_path / "f.csv"), "Events")) as reader:
        kinds = {name: str(kind) for name, kind in reader.columns.items()}
        assert kinds == {"i": "int64", "f": "float64", "u": "uint64", "n": "float64", "b": "bool"}
        assert reader.skipped == {"s": "holds text, not numbers"}
        assert len(reader.clusters([])) > 10
        assert reader.read(2, 4, ["f", "u", "n"])["n"].content.dtype == np.float64
        values = reader.read(0, 20, list(kinds))
    assert values["u"].content.tolist() == [*range(15), 18446744073709551615, *range(16, 20)]
    assert np.isnan(values["n"].content).nonzero()[0].tolist() == [7]


@given(
    values=st.lists(
        st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.just(0)), min_size=1
    ).filter(lambda values: any(value is not None for value in values)),
    block=st.sampled_from([8, 64, 1 << 18]),
)
def test_numbers_of_json_and_csv_come_back_with_the_narrowest_type_that_holds_all(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], block: int
) -> None:
    present = [value for value in values if value is not None]
    whole = all(isinstance(value, int) for value in present) and len(present) == len(values)
    if whole and max(present) < 2**63:
        expected = "int64"
    elif whole and min(present) >= 0:
        expected = "uint64"
    else:
        expected = "float64"
    folder = tmp_path_factory.mktemp("numbers")
    words = ["null" if value is None else repr(value) for value in values]
    csv, json = folder / "f.csv", folder / "f.json"
    csv.write_text("".join(f"{line}\n" for line in ["x,y", *(f"{word},1" for word in words)]))
    json.write_text("".join(f'{{"x": {word}}}\n' for word in words).replace("inf", "Infinity"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "BLOCK_BYTES", block)
        for path in (csv, json):
            kind, found = read(path)["x"]
            assert kind == expected, path
            assert found == pytest.approx([np.nan if v is None else v for v in values], rel=0, abs=0, nan_ok=True)


def test_reading_compressed_text_backwards_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BLOCK_BYTES", 64)
    path = tmp_path / "f.csv.bz2"
    path.write_bytes(bz2.compress(b"x\n" + b"".join(b"%d\n" % i for i in range(1000))))
    with closing(open_reader(str(path), "Events")) as reader:
        for start in (900, 500, 0, 500, 10):
            assert reader.read(start, start + 50, ["x"])["x"].content.tolist() == list(range(start, start + 50))


def test_text_that_changed_since_it_was_opened_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("x,y\n1,2\n3,4\n")
    with closing(open_reader(str(path), "Events")) as reader:
        path.write_text("x,y\n1,2\n3,a\n")
        with pytest.raises(SourceError, match="has changed since it was opened"):
            reader.read(0, 2, ["y"])


def unusual_table() -> pa.Table:
    return pa.table(
        {
            "half": pa.array(np.array([1, 2.5, -1], np.float16)),
            "big": pa.array([2**64 - 1, 0, 2**53 + 1], pa.uint64()),
            "gaps": pa.array([1, None, 3], pa.int32()),
            "maybe": pa.array([True, None, False]),
            "sparse": pa.array([1.5, None, 2.5], pa.float32()),
            "lists": pa.array([[1, None], None, []], pa.list_(pa.int16())),
            "fixed": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float64(), 2)),
            "money": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal("-3.50")]),
            "coded": pa.array([7, 8, 7]).dictionary_encode(),
            "words": pa.array(["a", "b", "a"]).dictionary_encode(),
            "when": pa.array([0, 1, 2], pa.timestamp("us")),
            "nested": pa.array([[[1.0]], [], None]),
            "object": pa.array([{"a": 1}, None, {"a": 2}]),
            "nothing": pa.nulls(3),
        }
    )


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_unusual_types_are_numbers_or_left_out_with_a_reason(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"f.{kind}"
    (pyarrow.parquet.write_table if kind == "parquet" else pyarrow.feather.write_feather)(unusual_table(), path)
    nan = float("nan")
    expected = {
        "half": ("float32", [1.0, 2.5, -1.0]),
        "big": ("uint64", [2**64 - 1, 0, 2**53 + 1]),
        "gaps": ("float64", [1.0, nan, 3.0]),
        "maybe": ("float64", [1.0, nan, 0.0]),
        "sparse": ("float32", [1.5, nan, 2.5]),
        "lists": ("float64[]", [1.0, nan], [2, 0, 0]),
        "fixed": ("float64[]", [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 2, 2]),
        "money": ("float64", [1.25, nan, -3.5]),
        "coded": ("int64", [7, 8, 7]),
        "": {
            "words": "holds dictionary<values=string, indices=int32, ordered=0>, not numbers",
            "when": "holds timestamp[us], not numbers",
            "nested": "holds lists of lists",
            "object": "holds objects with 1 members, not numbers",
            "nothing": "holds no value in any event",
        },
    }
    assert nan_as_text(read(path)) == nan_as_text(expected)


def test_parquet_without_row_groups_or_with_names_that_come_twice(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pyarrow.parquet.write_table(pa.table({"x": pa.array([], pa.float32())}), path)
    assert read(path) == {"x": ("float32", []), "": {}}
    schema = pa.schema([("x", pa.int64()), ("x", pa.int64()), ("y", pa.int64())])
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], schema=schema)
    pyarrow.parquet.write_table(table, path)
    assert read(path) == {"y": ("int64", [3]), "": {"x": "two columns of this name"}}


def test_avro_fields_that_may_be_null_are_floating_and_others_are_left_out(tmp_path: Path) -> None:
    types: dict[str, Any] = {
        "i": "int",
        "maybe": ["null", "long"],
        "list": {"type": "array", "items": ["null", "float"]},
        "either": ["int", "float"],
        "word": "string",
        "day": {"type": "int", "logicalType": "date"},
        "nested": {"type": "array", "items": {"type": "array", "items": "int"}},
    }
    fields = [{"name": name, "type": kind} for name, kind in types.items()]
    row = {"i": 1, "maybe": None, "list": [1.5, None], "either": 1, "word": "a", "day": 3, "nested": [[1]]}
    path = tmp_path / "f.avro"
    with path.open("wb") as file:
        fastavro.writer(file, {"type": "record", "name": "E", "fields": fields}, [row, row | {"maybe": 5, "list": []}])
    nan = float("nan")
    expected = {
        "i": ("int32", [1, 1]),
        "maybe": ("float64", [nan, 5.0]),
        "list": ("float32[]", [1.5, nan], [2, 0]),
        "": {
            "either": "holds one of several types, not numbers",
            "word": "holds string, not numbers",
            "day": "holds date, not numbers",
            "nested": "holds lists of lists",
        },
    }
    assert nan_as_text(read(path)) == nan_as_text(expected)


def test_hdf5_datasets_are_found_in_the_group_in_the_root_or_in_records(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(3, dtype=">f4")
        file["pairs"] = np.arange(6).reshape(3, 2)
        file["cubes"] = np.zeros((3, 2, 2))
        file["one"] = 5
        file["words"] = np.array([b"a", b"b", b"c"])
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")
        file["jets/pt"] = np.arange(4.0)
        file["jets/tracks"] = np.array([(1, (2, 3))] * 4, [("a", "i4"), ("b", "f2", (2,))])
    found = read(path)
    assert found["x"] == ("float32", [0.0, 1.0, 2.0])
    assert found["pairs"] == ("int64[]", [0, 1, 2, 3, 4, 5], [2, 2, 2])
    assert found[""] == {
        "cubes": "holds lists of lists",
        "elsewhere": "is a link to elsewhere",
        "jets": "is a group",
        "one": "holds one value, not one an event",
        "words": "holds strings or objects, not numbers",
    }
    assert read(path, "jets")["pt"] == ("float64", [0.0, 1.0, 2.0, 3.0])
    assert read(path, "jets/tracks") == {
        "a": ("int32", [1] * 4),
        "b": ("float32[]", [2.0, 3.0] * 4, [2] * 4),
        "": {},
    }
    with pytest.raises(TreeNotFoundError, match=r"no tree 'muons' in .*f\.h5; it holds 'jets'"):
        read(path, "muons")


def test_hdf5_datasets_of_other_lengths_and_gaps_are_named(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = np.arange(3), np.arange(4)
    with pytest.raises(SourceError, match="different lengths: 'x' holds 3 events, 'y' 4"):
        read(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (2**50,), "f4", chunks=(1000,))[:10] = 1
    with pytest.raises(SourceError, match=f"dataset 'x' is not wholly written: {2**50} events are due"):
        read(path)


def test_a_url_is_read_as_a_file_is(tmp_path: Path) -> None:
    table = pa.table({"x": np.arange(5.0)})
    pyarrow.parquet.write_table(table, tmp_path / "f.parquet")
    pyarrow.feather.write_feather(table, tmp_path / "f.feather")
    (tmp_path / "f.csv").write_text("x,y\n" + "".join(f"{x},1\n" for x in range(5)))
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.arange(5.0)
    for name in ("f.parquet", "f.feather", "f.csv", "f.h5"):
        with closing(open_reader(f"file://{tmp_path / name}", "Events")) as reader:
            assert reader.read(1, 3, ["x"])["x"].content.tolist() == [1, 2]
    with pytest.raises(SourceError, match="no such file"):
        open_reader(f"file://{tmp_path / 'missing.parquet'}", "Events")
