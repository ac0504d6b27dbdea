from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlaas4hep
from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.streaming.formats.base import Column
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.streaming.statistics.specs import BranchRanges, Specs, merge_specs
from mlaas4hep.streaming.statistics.statistics import BranchStatistics, summarise_column

LISTS = st.lists(
    st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=4), max_size=8
)


def column_of(lists: list[list[float]]) -> Column:
    offsets = np.cumsum([0, *(len(values) for values in lists)], dtype=np.int64)
    return Column(np.array([value for values in lists for value in values], np.float32), offsets)


def statistics_of(lists: list[list[float]], chosen: list[bool]) -> tuple[BranchStatistics, BranchStatistics]:
    return summarise_column(column_of(lists), len(lists), np.array(chosen, bool), np.arange(len(lists) + 1))


def slow_statistics(lists: list[list[float]]) -> dict[str, Any]:
    """The obvious version."""
    finite = [value for values in lists for value in values if math.isfinite(value)]
    mean = sum(finite) / len(finite) if finite else 0.0
    return {
        "count": len(finite),
        "minimum": min(finite, default=math.inf),
        "maximum": max(finite, default=-math.inf),
        "mean": mean,
        "squares": sum((value - mean) ** 2 for value in finite),
        "not_finite": sum(len(values) for values in lists) - len(finite),
        "widest": max((len(values) for values in lists), default=0),
    }


def assert_same(found: BranchStatistics, expected: dict[str, Any]) -> None:
    for name in ("count", "minimum", "maximum", "not_finite", "widest"):
        assert getattr(found, name) == expected[name], name
    scale = max(abs(expected["minimum"]), abs(expected["maximum"])) if expected["count"] else 1.0
    assert found.mean == pytest.approx(expected["mean"], rel=1e-9, abs=1e-9 * scale)
    assert found.squares == pytest.approx(expected["squares"], rel=1e-6, abs=1e-9 * scale**2)


@given(LISTS, st.data())
def test_statistics_equal_the_obvious_version_over_all_and_over_chosen_events(
    lists: list[list[float]], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.booleans(), min_size=len(lists), max_size=len(lists)))
    everything, selected = statistics_of(lists, chosen)
    assert_same(everything, slow_statistics(lists))
    assert_same(selected, slow_statistics([values for values, take in zip(lists, chosen, strict=True) if take]))


@given(st.lists(LISTS, max_size=4))
def test_merging_pieces_equals_the_whole(pieces: list[list[list[float]]]) -> None:
    merged = BranchStatistics()
    for piece in pieces:
        merged += statistics_of(piece, [True] * len(piece))[0]
    assert_same(merged, slow_statistics([values for piece in pieces for values in piece]))


def test_specs_of_two_files_merge_to_those_of_both(higgs_files: list[str]) -> None:
    parts = [mlaas4hep.open(path).specs for path in higgs_files]
    merged, whole = merge_specs(parts).to_dict(), mlaas4hep.open(higgs_files).specs.to_dict()
    for key in ("jdim", "minv", "maxv", "nans", "fkeys", "jkeys", "events", "source"):
        assert merged[key] == whole[key], key
    for key in ("jdim", "minv", "maxv", "nans", "events"):
        assert merged["train"][key] == whole["train"][key], key


def test_the_key_train_is_over_training_events_only(write_tree: Any) -> None:
    events = np.arange(1000, dtype=np.uint64)
    ids = {"run": np.ones(1000, np.uint32), "luminosityBlock": np.ones(1000, np.uint32), "event": events}
    path = write_tree("f.root", {**ids, "x": events.astype(np.float64), "l": [[1.0] * (int(e) % 7) for e in events]})
    dataset = mlaas4hep.open(path, split=Split(test=0.3, validation=0.3))
    training = np.concatenate([batch.id["event"] for batch in dataset.stream("train")])
    specs = dataset.specs
    assert specs.train.events == len(training) < 500
    assert (specs.train.minimum["x"], specs.train.maximum["x"]) == (training.min(), training.max())
    assert specs.train.widest["l"] == (training % 7).max()
    assert (specs.ranges.minimum["x"], specs.ranges.maximum["x"]) == (0, 999)
    assert specs.train_statistics["x"].mean == pytest.approx(training.mean())


def test_changing_a_held_out_event_changes_nothing_that_training_reads(write_tree: Any) -> None:
    columns = {
        "run": np.ones(300, np.uint32),
        "luminosityBlock": np.ones(300, np.uint32),
        "event": np.arange(300, dtype=np.uint64),
    }
    x = np.linspace(0, 1, 300, dtype=np.float32)
    first = mlaas4hep.open(write_tree("a.root", {**columns, "x": x}))
    held_out = {int(e) for fold in ("test", "validation") for batch in first.stream(fold) for e in batch.id["event"]}
    changed = x.copy()
    changed[sorted(held_out)] = 1e6
    second = mlaas4hep.open(write_tree("b.root", {**columns, "x": changed}))
    assert held_out
    assert second.encoding == first.encoding
    assert second.specs.ranges.maximum["x"] == 1e6


def test_specs_survive_their_file(higgs_files: list[str], tmp_path: Path) -> None:
    dataset = mlaas4hep.open(higgs_files, labels=[1, 0])
    dataset.specs.write(tmp_path / "specs.json")
    again = mlaas4hep.open(higgs_files, labels=[1, 0], specs=tmp_path / "specs.json")
    assert again.encoding == dataset.encoding
    assert again.specs.to_dict().keys() == dataset.specs.to_dict().keys()


def test_a_specs_file_of_the_original_is_accepted_without_our_keys(higgs_files: list[str], tmp_path: Path) -> None:
    dataset = mlaas4hep.open(higgs_files)
    description = {
        key: dataset.specs.to_dict()[key] for key in ("jdim", "minv", "maxv", "fkeys", "jkeys", "nans", "events")
    }
    (tmp_path / "specs.json").write_text(json.dumps(description))
    again = mlaas4hep.open(higgs_files, specs=tmp_path / "specs.json")
    assert again.encoding == dataset.specs.ranges.encoding(dataset.specs.flat, dataset.specs.jagged)


def test_specs_of_other_files_are_refused_with_the_reason(higgs_files: list[str]) -> None:
    specs = mlaas4hep.open(higgs_files[0]).specs
    with pytest.raises(SettingError, match="its files or their numbers of events are others"):
        mlaas4hep.open(higgs_files[1], specs=specs)
    with pytest.raises(SettingError, match="its features are another"):
        mlaas4hep.open(higgs_files[0], specs=specs, exclude=["MET_pt"])
    with pytest.raises(SettingError, match="its split is another"):
        mlaas4hep.open(higgs_files[0], specs=specs, split=Split(test=0.5))


def test_every_key_of_what_the_specs_are_of_must_agree(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files, exclude=["MET_pt"])
    here = dataset.describe()
    source = here | {"selection": None}
    specs = Specs((), (), *[BranchRanges({}, {}, {}, 0)] * 2, {}, source=json.loads(json.dumps(source)))
    assert specs.mismatch(source) is None
    assert specs.mismatch({key: value for key, value in source.items() if key != "selection"}) is None
    more = source | {"features": sorted([*source["features"], "MET_pt"])}
    assert specs.mismatch(more) == "its features are another: 'MET_pt' only here"
    fewer = source | {"features": [name for name in source["features"] if name != "nJet"]}
    assert specs.mismatch(fewer) == "its features are another: 'nJet' only there"
    cut = {"cut": "nJet >= 2", "new_columns": {}, "object_cuts": {}}
    assert specs.mismatch(source | {"selection": cut}) == f"its selection is another: None, here {cut!r}"
    assert specs.mismatch(source | {"weights": "genWeight"}) == "its weights are another: None, here 'genWeight'"
    first = "its files or their numbers of events are others"
    assert specs.mismatch(source | {"files": source["files"][:1]}) == f"{first}: 2 files, here 1"
    changed = [source["files"][0], source["files"][1] | {"entries": 7}]
    assert specs.mismatch(source | {"files": changed}) == f"{first}: {higgs_files[1]} has 7 events, there it had 24000"
    grown = source | {"files": [file | {"size": 10} for file in source["files"]]}
    assert replace(specs, source=grown).mismatch(source | {"files": [f | {"size": 11} for f in source["files"]]}) == (
        f"{first}: {higgs_files[0]} has 11 bytes, there it had 10"
    )
    unknown = [{key: value for key, value in file.items() if key != "size"} for file in source["files"]]
    assert specs.mismatch(source | {"files": unknown}) is None
    other = [source["files"][0] | {"uuid": "u"}, source["files"][1]]
    assert str(specs.mismatch(source | {"files": other})).startswith(f"{first}: {higgs_files[0]} has uuid u, there")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as specs"),
        ("[1]", "is no specs file"),
        ('{"fkeys": ["x"], "jkeys": []}', "it lacks 'minv'"),
        ("{", "cannot be read"),
    ],
)
def test_a_file_that_holds_no_specs_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "specs.json"
    path.write_text(content)
    with pytest.raises(SourceError, match=message):
        Specs.read(path)


def test_a_branch_without_any_finite_value_takes_the_range_zero(write_tree: Any) -> None:
    nothing: Any = np.full(50, np.nan, np.float32)
    empty = [[] for _ in range(49)] + [[np.nan]]
    specs = mlaas4hep.open(write_tree("f.root", {"x": nothing, "l": empty, "y": np.arange(50.0)})).specs
    assert (specs.ranges.minimum["x"], specs.ranges.maximum["x"]) == (0.0, 0.0)
    assert specs.statistics["x"].not_finite == 50
    assert specs.to_dict()["nans"]["x"] == 0.0
    json.loads(json.dumps(specs.to_dict(), allow_nan=False))


@given(st.lists(LISTS, min_size=1, max_size=4), st.floats(0, 1))
def test_a_quantile_from_merged_pieces_is_within_its_error_of_a_value_at_that_rank(
    pieces: list[list[list[float]]], level: float
) -> None:
    merged = BranchStatistics()
    for piece in pieces:
        merged += statistics_of(piece, [True] * len(piece))[0]
    finite = sorted(value for piece in pieces for values in piece for value in values if math.isfinite(value))
    found = merged.sketch.quantile(level)
    if not finite:
        assert found == 0
        return
    at_rank = finite[min(int(level * len(finite)), len(finite) - 1)]
    assert abs(found - at_rank) <= abs(at_rank) / 128 + 1e-38


def test_quantiles_of_whole_numbers_are_whole_and_survive_the_file(write_tree: Any, tmp_path: Path) -> None:
    numbers = np.repeat(np.array([0, 1, 2, 5], np.int32), [10, 30, 50, 10])
    dataset = mlaas4hep.open(write_tree("f.root", {"n": numbers, "x": numbers.astype(np.float32)}))
    found = dataset.specs.statistics["n"].quantiles
    assert [found[level] for level in (0.05, 0.25, 0.5, 0.84, 0.99)] == [0, 1, 2, 2, 5]
    dataset.specs.write(tmp_path / "specs.json")
    again = Specs.read(tmp_path / "specs.json")
    assert again.statistics["n"].quantiles == found
    assert again.train_statistics["x"].quantiles == dataset.specs.train_statistics["x"].quantiles


def test_quantiles_of_the_higgs_files_are_numpys_within_their_error(higgs_files: list[str]) -> None:
    import uproot

    specs = mlaas4hep.open(higgs_files).specs
    plain = np.concatenate([uproot.open(path)["Events"]["MET_pt"].array(library="np") for path in higgs_files])
    for level, value in specs.statistics["MET_pt"].quantiles.items():
        assert value == pytest.approx(np.quantile(plain, level), rel=1 / 128)
