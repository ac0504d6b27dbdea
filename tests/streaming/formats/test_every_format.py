"""The same events in every format are the same columns, specs and batches."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import make_events
from tests.streaming.formats.writers import WRITERS, expected_columns, write

import mlaas4hep
from mlaas4hep.errors import BranchNotFoundError, MissingExtraError, MLaaS4HEPError, SettingError, SourceError
from mlaas4hep.streaming.formats import EXTENSIONS, FORMATS, Column, Reader, open_reader, text

EVENTS = 700
COLUMNS = make_events(EVENTS, seed=9) | {"MET_phi": np.linspace(-3, 3, EVENTS)}


@pytest.fixture(scope="module")
def small_blocks() -> Iterator[None]:
    """Text in blocks of a few events, as other formats have clusters."""
    patch = pytest.MonkeyPatch()
    patch.setattr(text, "BLOCK_BYTES", 4096)
    yield
    patch.undo()


@pytest.fixture(scope="module", params=WRITERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def path(kind: str, small_blocks: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(kind, tmp_path_factory.mktemp("formats"), COLUMNS)


@pytest.fixture(scope="module")
def reader(path: str) -> Iterator[Reader]:
    opened = open_reader(path, "Events")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write("TTree", tmp_path_factory.mktemp("reference"), COLUMNS)


def as_list(column: Column) -> list[Any]:
    found = column.content if column.offsets is None else ak.unflatten(column.content, np.diff(column.offsets))
    return ak.to_list(found)


def test_every_format_that_is_registered_is_tested() -> None:
    assert {format_ for format_, _, _ in WRITERS.values()} == set(FORMATS)
    assert set(EXTENSIONS.values()) == set(FORMATS)


def test_it_has_the_columns_that_were_written(kind: str, reader: Reader) -> None:
    expected = expected_columns(kind, COLUMNS)
    counters = {"nJet_pt", "nJet_charge"} if kind == "TTree" else set()
    assert set(reader.columns) == set(expected) | counters
    left_out = {"Jet_pt", "Jet_charge"} if kind == "HDF5" else set()
    assert set(reader.skipped) == left_out
    assert all("variable-length" in reason for reason in reader.skipped.values())
    assert reader.entries == EVENTS
    for name, values in expected.items():
        flat = isinstance(values, np.ndarray)
        dtype = values.dtype if flat else ak.flatten(values).to_numpy().dtype
        found = reader.columns[name]
        assert found.jagged != flat
        assert found.bytes_per_event > 0
        assert found.dtype.kind.replace("u", "i") == dtype.kind.replace("u", "i"), name


@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_range_of_events_and_any_columns_are_what_was_written(kind: str, reader: Reader, data: Any) -> None:
    expected = expected_columns(kind, COLUMNS)
    start = data.draw(st.integers(0, EVENTS))
    stop = data.draw(st.integers(start, EVENTS))
    names = data.draw(st.lists(st.sampled_from(sorted(expected)), unique=True))
    read = reader.read(start, stop, names)
    assert set(read) == set(names)
    for name in names:
        assert as_list(read[name]) == ak.to_list(ak.Array(expected[name])[start:stop])
        assert read[name].content.dtype == reader.columns[name].dtype
        assert (read[name].offsets is not None) == reader.columns[name].jagged
        assert read[name].content.dtype.isnative


def test_the_clusters_cover_all_events_in_order(kind: str, reader: Reader) -> None:
    clusters = reader.clusters(["MET_pt", "event"])
    assert clusters[0] == 0
    assert clusters[-1] == EVENTS
    assert (np.diff(clusters) > 0).all()
    assert len(clusters) > 2 or kind == "HDF5"  # whose chunks are joined to pieces worth reading
    pieces = [
        reader.read(start, stop, ["event"])["event"].content
        for start, stop in zip(clusters[:-1].tolist(), clusters[1:].tolist(), strict=True)
    ]
    assert np.concatenate(pieces).tolist() == COLUMNS["event"].tolist()


def test_specs_are_those_of_the_same_events_in_root(kind: str, path: str, reference: str) -> None:
    names = [name for name in expected_columns(kind, COLUMNS) if name not in ("run", "luminosityBlock", "event")]
    found, expected = (mlaas4hep.open(file, branches=names).specs.to_dict() for file in (path, reference))
    assert set(found) == set(expected)
    for key in ("jdim", "minv", "maxv", "nans"):
        assert found[key] == expected[key]
        assert found["train"][key] == expected["train"][key]
    assert sorted(found["fkeys"]) == sorted(expected["fkeys"])
    assert sorted(found["jkeys"]) == sorted(expected["jkeys"])


@pytest.mark.parametrize("fold", ["train", "test"])
def test_batches_are_those_of_the_same_events_in_root(kind: str, path: str, reference: str, fold: Any) -> None:
    names = [name for name in expected_columns(kind, COLUMNS) if name not in ("run", "luminosityBlock", "event")]
    found, expected = (
        list(mlaas4hep.open(file, branches=names).stream(fold, batch_size=64, shuffle=False))
        for file in (path, reference)
    )
    assert len(found) == len(expected) > 1
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.x, other.x)
        assert np.array_equal(one.mask, other.mask)
        for field in ("entry", "run", "luminosityBlock", "event"):
            assert one.id[field].tolist() == other.id[field].tolist()


def test_every_event_comes_once_in_a_shuffled_epoch(path: str) -> None:
    stream = mlaas4hep.open(path).stream(batch_size=50, shuffle=True, run_bytes=2000, pool_bytes=20_000)
    for _ in range(2):
        assert Counter(int(entry) for batch in stream for entry in batch.id["entry"]) == Counter(range(EVENTS))


def uuid_of(path: str) -> str:
    with closing(open_reader(path, "Events")) as opened:
        return opened.uuid


def test_the_uuid_belongs_to_the_content_and_not_to_the_name(
    kind: str, path: str, reader: Reader, tmp_path: Path
) -> None:
    copy = shutil.copy(path, tmp_path / f"copy{WRITERS[kind][1]}")
    assert uuid_of(str(copy)) == reader.uuid
    changed = COLUMNS | {"MET_pt": COLUMNS["MET_pt"] + np.float32(1)}
    assert uuid_of(write(kind, tmp_path, changed)) != reader.uuid


def test_the_format_can_be_said_where_the_name_does_not(kind: str, path: str, tmp_path: Path) -> None:
    named_otherwise = shutil.copy(path, tmp_path / "events.of_some_kind")
    with closing(open_reader(str(named_otherwise), "Events", WRITERS[kind][0])) as opened:
        assert opened.entries == EVENTS
    named = list(mlaas4hep.open(str(named_otherwise), dtype=WRITERS[kind][0]).stream(shuffle=False))
    assert sum(len(batch.x) for batch in named) == EVENTS
    other = "parquet" if WRITERS[kind][0] != "parquet" else "hdf5"
    with pytest.raises(SourceError, match=r"events\.of_some_kind: is not an? (Parquet|HDF5) file: it begins with"):
        open_reader(str(named_otherwise), "Events", other)


def test_a_branch_that_is_not_there_is_answered_with_the_nearest(path: str) -> None:
    with pytest.raises(BranchNotFoundError, match=r"no branch 'MET_Pt' .*nearest: 'MET_pt'"):
        mlaas4hep.open(path, branches=["MET_Pt"])


@pytest.mark.parametrize("kind", WRITERS)
def test_missing_empty_and_foreign_files_are_named(kind: str, tmp_path: Path) -> None:
    extension = WRITERS[kind][1]
    with pytest.raises(SourceError, match="no such file"):
        open_reader(str(tmp_path / f"missing{extension}"), "Events")
    folder, empty, foreign = (tmp_path / f"{name}{extension}" for name in ("folder", "empty", "foreign"))
    folder.mkdir()
    with pytest.raises(SourceError, match="is a folder, not a file"):
        open_reader(str(folder), "Events")
    empty.write_bytes(b"")
    with pytest.raises(SourceError, match="the file is empty"):
        open_reader(str(empty), "Events")
    foreign.write_bytes(b"\x00\x01\x02 nothing that anybody knows")
    with pytest.raises(SourceError, match=r"foreign\.") as caught:
        open_reader(str(foreign), "Events")
    assert "\n" not in str(caught.value)


def values_of(path: str) -> dict[str, list[Any]]:
    """Read everything, as far as the file says that there is anything."""
    reader = open_reader(path, "Events")
    try:
        clusters = reader.clusters(list(reader.columns)).tolist()
        assert clusters == sorted(clusters)
        pieces = [reader.read(start, stop, list(reader.columns)) for start, stop in itertools.pairwise(clusters)]
        return {name: [v for piece in pieces for v in as_list(piece[name])] for name in reader.columns}
    finally:
        reader.close()


def values_or_error(path: str) -> tuple[dict[str, list[Any]] | None, str]:
    """Return all values, or the message of the one kind of error that a person may meet."""
    try:
        return values_of(path), ""
    except MLaaS4HEPError as error:
        return None, str(error)


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.8, 0.99, 0.9999])
def test_a_truncated_file_gives_one_clear_error_or_plain_text_its_first_events(
    kind: str, path: str, tmp_path: Path, fraction: float
) -> None:
    whole = Path(path).read_bytes()
    cut = tmp_path / f"cut{WRITERS[kind][1]}"
    cut.write_bytes(whole[: int(len(whole) * fraction)])
    values, message = values_or_error(str(cut))
    if values is None:
        assert "cut" in message
        assert "\n" not in message
    else:
        # A line of a text that is cut where it could end cannot be told from a whole one; a ROOT file ends with what nobody reads.
        lost = 1 if kind in ("CSV", "JSON") else 0
        assert lost or (kind in ("TTree", "RNTuple") and fraction > 0.999)
        for name, written in expected_columns(kind, COLUMNS).items():
            whole_events = len(values[name]) - lost
            assert values[name][:whole_events] == ak.to_list(ak.Array(written))[:whole_events]
            assert lost or whole_events == EVENTS


CHECKED = {"Parquet": 4, "CSV in gzip": 10, "JSON in bzip2": 0}
"""Kinds whose checksums cover all values, and how many bytes at the beginning stand before them."""


def test_a_flipped_byte_is_an_error_or_other_values_and_never_a_crash(kind: str, path: str, tmp_path: Path) -> None:
    whole = Path(path).read_bytes()
    expected = values_of(path)
    damaged = tmp_path / f"damaged{WRITERS[kind][1]}"
    random = np.random.default_rng(1)
    errors = silent = 0
    for position in random.integers(0, len(whole), 150 if kind in CHECKED else 10 if kind == "RNTuple" else 30):
        flipped = bytearray(whole)
        flipped[position] ^= int(random.integers(1, 256))
        damaged.write_bytes(flipped)
        found, message = values_or_error(str(damaged))
        assert "\n" not in message
        errors += found is None
        silent += found is not None and str(found) != str(expected)
    assert errors > 0
    if kind in CHECKED:
        assert silent == 0


def test_an_unknown_format_is_answered_with_those_that_there_are(reference: str) -> None:
    with pytest.raises(
        SettingError, match=r"setting 'dtype' must be one of 'root', 'parquet', 'arrow', 'csv'.*got 'xls'"
    ):
        open_reader(reference, "Events", "xls")


@pytest.mark.parametrize(("name", "package", "extra"), [("f.avro", "fastavro", "avro"), ("f.h5", "h5py", "hdf5")])
def test_a_missing_package_is_answered_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as caught:
        open_reader(str(tmp_path / name), "Events")
    assert str(caught.value) == f"{package} is not installed; pip install 'mlaas4hep[{extra}]'"


def test_files_of_several_formats_make_one_dataset(tmp_path: Path) -> None:
    kinds = ["TTree", "RNTuple", "Parquet", "Arrow", "Feather, compressed"]
    files = [write(kind, tmp_path, make_events(50, seed), f"{seed}") for seed, kind in enumerate(kinds)]
    dataset = mlaas4hep.open(files, labels=[0, 1, 0, 1, 0], branches=["MET_pt", "trigger", "Jet_*"])
    assert Counter(int(file) for batch in dataset.stream() for file in batch.id["file"]) == dict.fromkeys(range(5), 50)
