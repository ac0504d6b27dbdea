"""A user's preprocessing function, in real files, against what it does event by event."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_events, write_tree_file

from mlaas4hep.streaming.formats import Column, Reader, open_reader
from mlaas4hep.streaming.selecting.lazy_record import LazyRecord
from mlaas4hep.streaming.selecting.preprocessing import PreprocessedReader, Preprocessing, PreprocessingError

Make = Callable[..., PreprocessedReader]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree_file(tmp_path_factory.mktemp("tree") / "f.root", make_events(1000, seed=1), [100, 400])


@pytest.fixture
def make(tmp_path: Path, tree: Path) -> Iterator[Make]:
    opened: list[Reader] = []

    def make(body: str, file: Path = tree) -> PreprocessedReader:
        path = tmp_path / "prep.py"
        path.write_text(f"import math\nimport numpy as np\nimport awkward as ak\n\ndef preprocessing(rec):\n{body}\n")
        opened.append(open_reader(str(file), "Events"))
        return PreprocessedReader(opened[-1], Preprocessing.load(path))

    yield make
    for reader in opened:
        reader.close()


def values(column: Column) -> list[Any]:
    if column.offsets is None:
        return column.content.tolist()
    return ak.to_list(ak.unflatten(column.content, np.diff(column.offsets)))


def test_columns_are_changed_added_and_taken_out_and_the_others_stay(make: Make, tree: Path) -> None:
    reader = make(
        """
    rec['MET_pt'] = rec['MET_pt'] / 1000
    rec['HT'] = ak.sum(rec['Jet_pt'], axis=1)
    rec['Jet_pt'] = rec['Jet_pt'][rec['Jet_pt'] > 30]
    del rec['trigger']
    return rec"""
    )
    plain = open_reader(str(tree), "Events")
    names = ["MET_pt", "HT", "Jet_pt", "Jet_charge", "event"]
    assert set(reader.columns) == {*plain.columns, "HT"} - {"trigger"}
    read, truth = reader.read(50, 700, names), plain.read(50, 700, list(plain.columns))
    assert list(read) == names
    np.testing.assert_array_equal(read["MET_pt"].content, truth["MET_pt"].content / 1000)
    jets = values(truth["Jet_pt"])
    np.testing.assert_allclose(values(read["HT"]), [sum(event) for event in jets], rtol=1e-5)
    assert values(read["Jet_pt"]) == [[pt for pt in event if pt > 30] for event in jets]
    for name in ("event", "Jet_charge"):
        np.testing.assert_array_equal(read[name].content, truth[name].content)
        assert read[name].content.dtype == truth[name].content.dtype
    assert reader.size == tree.stat().st_size


RECORDS = [
    "    if rec['MET_pt'] > 30:\n        rec['MET_pt'] = 30.0\n    rec['n'] = len(rec['Jet_pt'])\n    return rec",
    "    rec['n'] = math.sqrt(rec['MET_pt'])\n    return rec",
    "    return {'n': max(rec['Jet_pt'], default=0.0), 'event': rec['event'], 'trigger': rec['trigger']}",
    "    rec['Jet_pt'] = [pt for pt in rec['Jet_pt'] if pt > 40 and rec['trigger']]\n    return rec",
    "    if rec['trigger']:\n        rec['MET_pt'] *= 2\n    return rec",
    "    return {key: 0 if key == 'run' and rec['trigger'] else value for key, value in rec.items() if key != 'Jet_pt'}",
]


@pytest.mark.parametrize("body", RECORDS)
def test_a_function_for_single_records_gives_what_it_gives_record_by_record(make: Make, tree: Path, body: str) -> None:
    reader = make(body)
    plain = open_reader(str(tree), "Events")
    truth = plain.read(0, 1000, list(plain.columns))
    listed = {name: values(column) for name, column in truth.items()}
    expected = [
        reader._preprocessing.function._function({name: column[entry] for name, column in listed.items()})
        for entry in range(1000)
    ]
    assert set(reader.columns) == set(expected[0])
    read = reader.read(300, 900, list(reader.columns))
    for name, column in read.items():
        assert values(column) == [record[name] for record in expected[300:900]]
        if name == "event":
            assert column.content.dtype == np.uint64
    (note,) = reader._preprocessing.notes
    assert "is called for each of them, which is slow" in note
    assert "\n" not in note


@given(st.integers(0, 999), st.integers(0, 1000))
def test_where_blocks_begin_and_end_does_not_matter(start: int, length: int) -> None:
    stop = min(1000, start + length)
    both = shared_reader()
    names = ["x", "Jet_pt", "y"]
    whole, part = both.read(0, 1000, names), both.read(start, stop, names)
    for name in names:
        assert values(part[name]) == values(whole[name])[start:stop]


def shared_reader() -> PreprocessedReader:
    if not _SHARED:
        import tempfile

        folder = Path(tempfile.mkdtemp(prefix="mlaas4hep-prep-"))
        file = write_tree_file(folder / "f.root", make_events(1000, seed=1), [100, 400])
        text = """
import numpy as np
import awkward as ak
def preprocessing(rec):
    rec['x'] = np.log1p(rec['MET_pt'])
    rec['y'] = ak.num(rec['Jet_pt'])
    rec['Jet_pt'] = rec['Jet_pt'] * 2
    return rec
"""
        _SHARED.append(PreprocessedReader(open_reader(str(file), "Events"), Preprocessing("p.py", text)))
    return _SHARED[0]


_SHARED: list[PreprocessedReader] = []


def test_a_value_that_depends_on_the_other_events_of_the_block_is_not_taken(make: Make) -> None:
    with pytest.raises(PreprocessingError, match=r"column 'MET_pt' of an event depends on the other events"):
        make("    rec['MET_pt'] = np.sort(rec['MET_pt'])\n    return rec")
    reader = make("    rec['MET_pt'] = rec['MET_pt'] - np.mean(rec['MET_pt'])\n    return rec")
    assert set(values(reader.read(0, 10, ["MET_pt"])["MET_pt"])) == {0.0}
    assert len(reader._preprocessing.notes) == 1


def test_only_what_the_function_asks_for_is_read(make: Make) -> None:
    reader = make("    rec['HT'] = ak.sum(rec['Jet_pt'], axis=1)\n    return rec")
    assert reader.sources(["HT", "event"]) == ("Jet_pt", "event")
    assert reader.sources(["event"]) == ("event",)
    assert reader.sources(["Jet_pt"]) == ("Jet_pt",)
    everything = make("    return {key: value for key, value in rec.items()}")
    assert set(everything.sources(["event"])) == set(everything._reader.columns)


def test_a_column_that_is_asked_for_only_sometimes_is_read_then(make: Make) -> None:
    name = "'_'.join(['Jet', 'charge'])"
    reader = make(
        f"    rec['x'] = rec['MET_pt'] * 1.0\n    if rec['event'].max() > 1000500:\n        rec['x'] = ak.num(rec[{name}]) * 1.0\n    return rec"
    )
    assert "Jet_charge" not in reader.sources(["x"])
    plain = open_reader(reader.path, "Events").read(600, 700, ["Jet_charge"])["Jet_charge"]
    assert values(reader.read(600, 700, ["x"])["x"]) == [len(event) for event in values(plain)]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    return rec['MET']", r"f\.root, entries 0–255: line 6: no column 'MET'; nearest: 'MET_pt'"),
        ("    rec['MET_pt'] = 1 / 0", "line 6: ZeroDivisionError: division by zero"),
        ("    pass", r"preprocessing\(rec\) must return the dict of columns; it returned nothing"),
        ("    return 3", "it returned int"),
        ("    return {}", "it leaves no column of numbers"),
        ("    return {'a': 'text'}", "it leaves no column of numbers"),
        ("    rec['x'] = undefined\n    return rec", "line 6: NameError: name 'undefined' is not defined"),
        ("    raise SystemExit(3)", "line 6: SystemExit: 3"),
        ("    rec['x'] = [[[1]]] if rec['MET_pt'] > 0 else 0\n    return rec", "column 'x'"),
        ("    if rec['MET_pt'] > 9:\n        rec['x'] = 1\n    return rec", "column 'x' is lacking in some events; with a block"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_function_is_said_in_one_line(make: Make, body: str, message: str) -> None:
    with pytest.raises(PreprocessingError, match=message) as error:
        make(body)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("preprocessing /")
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def preprocessing(rec)\n    return rec\n", "line 1: expected ':'"),
        ("\nimport not_there\n", "line 2: ModuleNotFoundError: No module named 'not_there'"),
        ("def preprocesing(rec):\n    return rec\n", "no function 'preprocessing'.*; nearest: 'preprocesing'"),
        ("", "it defines no function 'preprocessing'; it must have def preprocessing"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "prep.py"
    path.write_text(text)
    with pytest.raises(PreprocessingError, match=message):
        Preprocessing.load(path)
    path.unlink()
    with pytest.raises(PreprocessingError, match=r"prep\.py: there is no such file"):
        Preprocessing.load(path)


@pytest.mark.parametrize(
    ("late", "message"),
    [
        ("del rec['x']", r"f\.root, entries 600–699: column 'x' is lacking; of the first events it held float32"),
        ("rec['x'] = rec['Jet_pt']", r"column 'x' holds float32\[\]; of the first events it held float32"),
        ("rec['x'] = rec['x'][1:]", "column 'x' has 99 values for 100 events"),
        ("rec['z'] = rec['x']", "it makes or changes 'z', which it did not do for the first events"),
        ("1 / 0", r"line 8: ZeroDivisionError"),
    ],
)
def test_a_block_that_comes_out_otherwise_than_the_first_is_named(make: Make, late: str, message: str) -> None:
    reader = make(
        f"    rec['x'] = rec['MET_pt'] * 2\n    if rec['event'][0] >= 1000500:\n        {late}\n    return rec"
    )
    assert len(reader.read(0, 100, ["x"])["x"].content) == 100
    with pytest.raises(PreprocessingError, match=message):
        reader.read(600, 700, ["x"])


def test_files_of_none_and_one_event_have_the_same_columns(make: Make, tmp_path: Path) -> None:
    body = "    rec['HT'] = ak.sum(rec['Jet_pt'], axis=1)\n    rec['cut'] = np.where(rec['MET_pt'] > 9, 1.0, 0.0)\n    return rec"
    readers = []
    for events in (0, 1, 2):
        columns = {name: data[:events] for name, data in make_events(5, seed=1).items()}
        readers.append(make(body, write_tree_file(tmp_path / f"{events}.root", columns)))
    assert len({json.dumps({n: str(k) for n, k in reader.columns.items()}) for reader in readers}) == 1
    assert [len(reader.read(0, reader.entries, ["HT"])["HT"].content) for reader in readers] == [0, 1, 2]


def test_text_columns_are_named_where_they_are_asked_for_and_where_they_are_made(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("pt,note\n1.5,a\n2.5,b\n")
    with pytest.raises(PreprocessingError, match="column 'note' cannot be used: holds text, not numbers"):
        make("    rec['x'] = rec['note']\n    return rec", path)
    reader = make("    rec['x'] = ['a'] * len(rec['pt'])\n    return rec", path)
    assert reader.skipped == {"note": "holds text, not numbers", "x": "made by prep.py: holds <U1, not numbers"}
    assert list(reader.columns) == ["pt"]


def test_it_works_for_json_records_as_the_original_had_them(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text("".join(json.dumps({"pt": i / 2, "n": i, "hits": list(range(i % 3))}) + "\n" for i in range(9)))
    reader = make(
        "    if rec['n'] % 2 == 0:\n        rec['pt'] = 0\n    rec['sum'] = sum(rec['hits'])\n    return rec", path
    )
    read = reader.read(0, 9, ["pt", "sum", "n", "hits"])
    assert values(read["pt"]) == [0 if i % 2 == 0 else i / 2 for i in range(9)]
    assert values(read["sum"]) == [sum(range(i % 3)) for i in range(9)]
    assert read["n"].content.dtype == np.int64


def test_a_worker_process_gets_the_same_function_although_the_file_has_changed(make: Make, tree: Path) -> None:
    reader = make("    rec['x'] = rec['MET_pt'] * 2\n    return rec")
    preprocessing = reader._preprocessing
    Path(preprocessing.path).write_text("nonsense")
    again = pickle.loads(pickle.dumps(preprocessing))
    other = PreprocessedReader(open_reader(str(tree), "Events"), again)
    np.testing.assert_array_equal(other.read(0, 9, ["x"])["x"].content, reader.read(0, 9, ["x"])["x"].content)
    assert again.to_dict() == preprocessing.to_dict() == {"file": "prep.py", "sha256": preprocessing.digest}


operations = st.lists(
    st.tuples(
        st.sampled_from(["get", "set", "del", "pop", "in", "setdefault", "update", "len", "keys", "copy", "or"]),
        st.sampled_from("abcd"),
    ),
    max_size=12,
)


@given(operations)
def test_the_lazy_record_is_a_dict(steps: list[tuple[str, str]]) -> None:
    plain: dict[str, Any] = {"a": 1, "b": 2, "c": 3}
    lazy = LazyRecord("abc", {"a": 1, "b": 2, "c": 3}.__getitem__)
    for step, key in steps:
        outcomes = []
        for record in (plain, lazy):
            try:
                outcomes.append(_do(record, step, key))
            except KeyError:
                outcomes.append("KeyError")
        assert outcomes[0] == outcomes[1]
    assert len(plain) == len(lazy)
    assert sorted(plain) == sorted(lazy)
    assert dict(lazy) == {**lazy} == plain


def _do(record: dict[str, Any], step: str, key: str) -> Any:
    if step == "set":
        record[key] = 9
        return None
    if step == "del":
        del record[key]
        return None
    if step == "update":
        record.update({key: 7})
        return None
    if step == "keys":
        return sorted(record.keys())
    if step == "copy":
        return record.copy()
    if step == "or":
        return {**(record | {key: 5}), **({key: 4} | record)}
    return {
        "get": lambda: (record.get(key), record[key]),
        "pop": lambda: record.pop(key),
        "in": lambda: key in record,
        "setdefault": lambda: record.setdefault(key, 5),
        "len": lambda: len(record),
    }[step]()
