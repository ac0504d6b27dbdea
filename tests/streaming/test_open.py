"""What mlaas4hep.open wires together, from selections to files that vary, against plain uproot and numpy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow.parquet
import pytest
import uproot
from tests.conftest import make_events, write_tree_file

import mlaas4hep
from mlaas4hep.errors import BranchesDifferError, ExpressionError, LabelError, SettingError
from mlaas4hep.streaming.selecting.selection import EventSelection

SMALL = {"run_bytes": 4000, "pool_bytes": 40_000, "batch_size": 64}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("open")
    paths = []
    for run, (name, events) in enumerate([("one", 800), ("two", 1700)], start=1):
        columns = make_events(events, seed=run, run=run)
        columns["nJet"] = ak.to_numpy(ak.num(columns["Jet_pt"])).astype(np.int32)
        paths.append(str(write_tree_file(folder / f"{name}.root", columns, range(50, events, 50))))
    return paths


def plain(files: list[str], *names: str) -> list[ak.Array]:
    """Read columns of all files with uproot alone, one after the other."""
    trees = [uproot.open(file)["Events"] for file in files]
    return [ak.concatenate([tree[name].array() for tree in trees]) for name in names]


def delivered(dataset: mlaas4hep.Dataset, fold: str | None = None, **settings: object) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for batch in dataset.stream(fold, **SMALL | settings):
        found.update(zip(batch.id["file"].tolist(), batch.id["entry"].tolist(), strict=True))
    return found


def numbered(files: list[str], mask: np.ndarray) -> Counter[tuple[int, int]]:
    entries = [uproot.open(file)["Events"].num_entries for file in files]
    places = [(file, entry) for file, count in enumerate(entries) for entry in range(count)]
    return Counter(place for place, keep in zip(places, mask.tolist(), strict=True) if keep)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_just_the_events_that_pass_are_delivered(files: list[str], workers: int, shuffle: bool) -> None:
    met, counts = plain(files, "MET_pt", "nJet")
    dataset = mlaas4hep.open(files, labels=[0, 1], selection="nJet >= 2 and MET_pt > 20")
    mask = np.asarray((counts >= 2) & (met > 20))
    expected = numbered(files, mask)
    assert 0 < len(expected) < len(mask)
    assert delivered(dataset, workers=workers, shuffle=shuffle) == expected
    assert sum((delivered(dataset, fold) for fold in ("train", "validation", "test")), Counter()) == expected
    assert sum(dataset.class_counts().values()) == sum(dataset.specs.file_events.values()) == len(expected)


def test_a_cut_that_nothing_passes_gives_no_batch_and_says_so_when_one_is_wanted(files: list[str]) -> None:
    dataset = mlaas4hep.open(files, labels=[0, 1], selection="MET_pt < 0")
    assert sum(dataset.class_counts().values()) == 0
    with pytest.raises(mlaas4hep.errors.SourceError, match="no event is left for training"):
        _ = dataset.encoding


def test_a_rare_event_is_found_again_when_an_epoch_goes_on(files: list[str]) -> None:
    dataset = mlaas4hep.open(files, labels=[0, 1], selection="event % 40 == 0")
    whole = [batch.id["event"].tolist() for batch in dataset.stream(seed=3, **SMALL | {"batch_size": 7})]
    assert len(whole) > 5
    for taken in range(1, len(whole)):
        first = dataset.stream(seed=3, **SMALL | {"batch_size": 7})
        batches = iter(first)
        for _ in range(taken):
            next(batches)
        second = dataset.stream(seed=3, **SMALL | {"batch_size": 7})
        second.load_state_dict(first.state_dict())
        assert [batch.id["event"].tolist() for batch in second] == whole[taken:]


def test_specs_and_vector_are_of_the_events_and_objects_that_are_taken(files: list[str]) -> None:
    (jets, met) = plain(files, "Jet_pt", "MET_pt")
    dataset = mlaas4hep.open(
        files, selection="MET_pt > 20", object_cuts={"Jet": "pt > 40"}, new_columns={"HT": "sum(Jet_pt)"}
    )
    kept = jets[jets > 40][met > 20]
    assert dataset.specs.ranges.minimum["Jet_pt"] == ak.min(kept)
    assert dataset.specs.ranges.widest["Jet_pt"] == ak.max(ak.num(kept))
    assert dataset.specs.ranges.maximum["HT"] == pytest.approx(ak.max(ak.sum(kept, axis=1)), rel=1e-6)
    place = dataset.encoding.first_places["HT"]
    raw = np.concatenate([block[:, place] for block, _, _ in dataset.raw_blocks()])
    np.testing.assert_allclose(raw, ak.sum(kept, axis=1), rtol=1e-5)


def test_a_selection_is_the_same_for_another_format(files: list[str], tmp_path: Path) -> None:
    table = {name: uproot.open(files[0])["Events"][name].array() for name in ("MET_pt", "nJet", "Jet_pt")}
    pyarrow.parquet.write_table(
        ak.to_arrow_table(ak.Array(table), extensionarray=False), tmp_path / "one.parquet", row_group_size=100
    )
    settings = {"selection": "any(Jet_pt > 50)", "new_columns": {"HT": "sum(Jet_pt)"}, "branches": ["MET_pt", "HT"]}
    root, parquet = (
        np.concatenate([block for block, _, _ in mlaas4hep.open(path, **settings).raw_blocks()])
        for path in (files[0], tmp_path / "one.parquet")
    )
    np.testing.assert_allclose(root, parquet, rtol=1e-6)


def test_branches_that_vary_are_an_error_or_filled_or_left_out(files: list[str], tmp_path: Path) -> None:
    columns = make_events(100, seed=5, run=3) | {"HLT_Mu50": np.ones(100, np.bool_)}
    more = [str(write_tree_file(tmp_path / "new.root", columns)), files[0]]
    with pytest.raises(BranchesDifferError, match=r"no branch 'HLT_Mu50'.*missing_branch to 'fill' or 'intersect'"):
        mlaas4hep.open(more)
    filled = mlaas4hep.open(more, missing_branch="fill")
    assert filled.notes == ("branch 'HLT_Mu50' is absent in 1 of 2 files, its values there are filled in as absent",)
    place = filled.encoding.first_places["HLT_Mu50"]
    raw = np.concatenate([block[:, place] for block, _, _ in filled.raw_blocks()])
    assert (raw[:100] == 1).all()
    assert np.isnan(raw[100:]).all()
    without = mlaas4hep.open(more, missing_branch="intersect")
    assert "HLT_Mu50" not in without.features
    assert "not in" in without.excluded["HLT_Mu50"]
    with pytest.raises(BranchesDifferError, match="must be in all files"):
        mlaas4hep.open(more, selection="HLT_Mu50 == 1", missing_branch="fill")


def test_a_label_may_be_an_expression(files: list[str]) -> None:
    (counts,) = plain(files, "nJet")
    dataset = mlaas4hep.open(files, labels="nJet >= 3")
    assert dataset.classes == ("0", "1")
    assert dataset.class_counts() == {"0": int(ak.sum(counts < 3)), "1": int(ak.sum(counts >= 3))}
    assert "nJet >= 3" not in dataset.features
    for batch in dataset.stream(**SMALL):
        place = dataset.encoding.first_places["nJet"]
        jets = dataset.encoding.unscale(batch.x)[:, place]
        np.testing.assert_array_equal(batch.y, jets.round() >= 3)


def test_values_to_predict_come_with_each_event(files: list[str]) -> None:
    jets, met = plain(files, "Jet_pt", "MET_pt")
    dataset = mlaas4hep.open(files, target=["sum(Jet_pt)", "MET_pt"])
    assert "MET_pt" not in dataset.features
    y = np.concatenate([batch.y for batch in dataset.stream(shuffle=False, **SMALL)])
    assert (y.dtype, y.shape) == (np.float32, (len(met), 2))
    np.testing.assert_allclose(y, np.stack([ak.sum(jets, axis=1), met], axis=1), rtol=1e-5)
    with pytest.raises(SettingError, match="setting 'target' must be left out where there are labels"):
        mlaas4hep.open(files, labels=[0, 1], target="MET_pt")


def test_luminosity_sections_that_are_not_certified_are_left_out(files: list[str], tmp_path: Path) -> None:
    run, block = plain(files, "run", "luminosityBlock")
    first = int(block[0])
    mask = tmp_path / "golden.json"
    mask.write_text(json.dumps({"1": [[first, first]]}))
    expected = numbered(files, np.asarray((run == 1) & (block == first)))
    assert expected
    assert delivered(mlaas4hep.open(files, lumi_mask=mask)) == expected
    both = mlaas4hep.open(files, lumi_mask=mask, selection="MET_pt > 20")
    assert delivered(both) == expected & numbered(files, np.asarray(plain(files, "MET_pt")[0] > 20))


def test_balanced_batches_hold_as_many_events_of_each_class(files: list[str]) -> None:
    stream = mlaas4hep.open(files, labels=[0, 1]).stream(mixing="balanced", **SMALL | {"batch_size": 100})
    found: Counter[int] = Counter()
    events: Counter[tuple[int, int]] = Counter()
    for batch in stream:
        found.update(batch.y.tolist())
        events.update(zip(batch.id["file"].tolist(), batch.id["entry"].tolist(), strict=True))
    assert abs(found[0] - found[1]) <= 2
    assert len(events) == 2500  # each event at least once
    larger = [count for (file, _), count in events.items() if file == 1]
    assert max(larger) == 1
    with pytest.raises(SettingError, match="'proportional' where there are no classes"):
        mlaas4hep.open(files).stream(mixing="balanced")


def test_objects_that_are_cut_off_are_counted(files: list[str]) -> None:
    (jets,) = plain(files, "Jet_pt")
    for workers in (0, 2):
        stream = mlaas4hep.open(files, max_objects={"Jet": 2}).stream(workers=workers, **SMALL)
        for _ in stream:
            pass
        assert stream.cut_objects == {"Jet": int(ak.sum(np.maximum(ak.num(jets) - 2, 0)))}


def test_an_epoch_reports_where_its_time_went(files: list[str]) -> None:
    stream = mlaas4hep.open(files, labels=[0, 1], selection="MET_pt > 20").stream(**SMALL)
    events = sum(len(batch.x) for batch in stream)
    report = stream.report.to_dict()
    assert report["events"] == events
    assert all(report["seconds"][stage] > 0 for stage in ("fetch", "decompress", "select", "encode", "wait_for_data"))
    assert sum(report["seconds"].values()) < 4 * report["wall"]
    assert report["bytes"]["fetched"] > 0
    assert report["bytes"]["read"] > 2500 * 20  # of 2500 events the flat branches alone take more
    assert "events/s" in str(stream.report)


def test_what_a_dataset_is_described_by_tells_selections_apart(files: list[str]) -> None:
    specs = mlaas4hep.open(files, selection="MET_pt > 20").specs
    mlaas4hep.open(files, selection="MET_pt > 20", specs=specs)
    for other in ({}, {"selection": "MET_pt > 21"}, {"selection": "MET_pt > 20", "object_cuts": {"Jet": "pt > 1"}}):
        with pytest.raises(SettingError, match="setting 'specs' must be of these files and branches"):
            mlaas4hep.open(files, specs=specs, **other)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"selection": "METpt > 3"}, "no branch 'METpt' at character 0; nearest: 'MET_pt'"),
        ({"new_columns": {"MET_pt": "2 * MET_pt"}}, "the files have a branch of this name already"),
        ({"labels": "nJet >="}, "label"),
        ({"target": "sum(Jet_p)"}, "no branch 'Jet_p'"),
        ({"weights": "genWeight * 2"}, "no branch 'genWeight'"),
    ],
)
def test_an_expression_that_does_not_fit_says_where(files: list[str], settings: dict[str, object], said: str) -> None:
    with pytest.raises(ExpressionError) as error:
        mlaas4hep.open(files, **settings)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_and_selections_that_contradict_each_other_are_noticed(files: list[str]) -> None:
    with pytest.raises(LabelError, match="holds only"):
        mlaas4hep.open(files, labels="nJet >= 3", selection="nJet >= 3")
    with pytest.raises(SettingError, match="setting 'object_cuts' must be part of the EventSelection"):
        mlaas4hep.open(files, selection=EventSelection("nJet > 1"), object_cuts={"Jet": "pt > 1"})


def test_names_may_come_from_a_text_or_a_file(files: list[str], tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# features\nMET_pt\nJet_*\n")
    assert (
        mlaas4hep.open(files, branches=str(names)).features == mlaas4hep.open(files, branches="MET_pt, Jet_*").features
    )
    assert "MET_pt" not in mlaas4hep.open(files, exclude="MET_*").features


def test_branches_without_numbers_are_named_in_one_line(files: list[str], tmp_path: Path) -> None:
    import pyarrow as pa

    pyarrow.parquet.write_table(pa.table({"x": [1.0, 2.0], "note": ["a", "b"]}), tmp_path / "f.parquet")
    assert mlaas4hep.open(tmp_path / "f.parquet").notes == ("1 branch is left out: 'note' holds string, not numbers",)
    assert mlaas4hep.open(files).notes == ()


def test_specs_are_kept_beside_the_files_and_reused_while_they_fit(files: list[str], tmp_path: Path) -> None:
    copies = [tmp_path / Path(file).name for file in files]
    for copy, file in zip(copies, files, strict=True):
        copy.write_bytes(Path(file).read_bytes())
    first = mlaas4hep.open(copies, specs="beside")
    assert not list(tmp_path.glob("*.json"))
    expected = first.specs.to_dict()
    (kept,) = tmp_path.glob("mlaas4hep-specs-*.json")
    again = mlaas4hep.open(copies, specs="beside")
    copies[1].write_bytes(b"")  # nothing is read of it
    assert again.specs.to_dict()["minv"] == expected["minv"]
    copies[1].write_bytes(Path(files[1]).read_bytes())
    mlaas4hep.open(copies, specs="beside", selection="MET_pt > 20").compute_specs()
    assert len(list(tmp_path.glob("mlaas4hep-specs-*.json"))) == 2
    kept.write_text("{")
    assert mlaas4hep.open(copies, specs="beside").specs.to_dict()["minv"] == expected["minv"]
    with pytest.raises(SettingError, match="the name of a file where the first input file is not local"):
        mlaas4hep.open(copies).__class__.with_specs_beside(_remote(mlaas4hep.open(copies)))


def _remote(dataset: mlaas4hep.Dataset) -> mlaas4hep.Dataset:
    from dataclasses import replace

    first = replace(dataset.catalog.files[0], path="root://host//f.root")
    dataset.catalog = replace(dataset.catalog, files=(first, *dataset.catalog.files[1:]))
    return dataset
