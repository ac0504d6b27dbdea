from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import make_events

import mlaas4hep
from mlaas4hep.errors import (
    BranchesDifferError,
    BranchNotFoundError,
    BranchTypeError,
    LabelError,
    MLaaS4HEPError,
    SettingError,
    SourceError,
    TreeNotFoundError,
)
from mlaas4hep.streaming.access.sources import expand_files, read_list
from mlaas4hep.streaming.labels import Labels, parse_labels
from mlaas4hep.streaming.splitting import Split


def test_the_representation_tells_what_is_there(higgs_files: list[str]) -> None:
    text = repr(mlaas4hep.open(higgs_files, labels=[1, 0]))
    for part in ("2 files", "48000 events", "'Events'", "10 flat and 23 jagged", "run, luminosityBlock, event", "0, 1"):
        assert part in text


def test_identifiers_are_never_features(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files)
    assert not {"run", "luminosityBlock", "event"} & set(dataset.features)
    assert {name: dataset.excluded[name] for name in ("run", "event")} == {"run": "identifier", "event": "identifier"}


def test_generator_level_branches_can_be_left_out_and_are_named(higgs_files: list[str]) -> None:
    assert "genWeight" in mlaas4hep.open(higgs_files).features
    dataset = mlaas4hep.open(higgs_files, generator_level="drop")
    assert "genWeight" not in dataset.features
    assert dataset.excluded["genWeight"] == "generator level"
    assert dataset.encoding.width == 124


def test_other_naming_and_no_identifiers_are_read_too() -> None:
    dataset = mlaas4hep.open(Path(__file__).parent.parent / "data" / "uproot-HZZ.root", tree="events")
    assert dataset.roles.identifiers == ()
    assert dataset.events == 2421
    seen = [int(entry) for batch in dataset.stream("test") for entry in batch.id["entry"]]
    again = [int(entry) for batch in dataset.stream("test", shuffle=False) for entry in batch.id["entry"]]
    assert sorted(seen) == again
    assert 0.15 < len(again) / 2421 < 0.25


def test_branches_are_chosen_by_names_and_patterns(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files, branches=["Jet_*", "MET_pt"], exclude=["Jet_nConst*"])
    assert dataset.features == ("MET_pt", "Jet_pt", "Jet_eta", "Jet_phi", "Jet_mass")
    assert dataset.excluded["nJet"] == "not among the branches asked for"
    assert dataset.excluded["Jet_nConstituents"] == "excluded by name"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tree": "events"}, TreeNotFoundError, "no tree 'events' in .*; it holds 'Events'"),
        ({"branches": ["Jet_Pt"]}, BranchNotFoundError, "no branch 'Jet_Pt' in tree 'Events' of .*; nearest: 'Jet_pt'"),
        ({"exclude": ["Jet_Pt"]}, BranchNotFoundError, "nearest: 'Jet_pt'"),
        ({"branches": ["Fatjet_*"]}, BranchNotFoundError, r"no branch 'Fatjet_\*'"),
        ({"identifiers": ["Event"]}, BranchNotFoundError, "no branch 'Event' .*; nearest: 'event'"),
        ({"identifiers": ["MET_pt"]}, BranchTypeError, "an identifier is one integer an event; it holds float32"),
        ({"labels": "isSignal"}, BranchNotFoundError, "no branch 'isSignal'"),
        ({"labels": "Jet_pt"}, BranchTypeError, "a label is one value an event"),
        ({"labels": "MET_pt"}, LabelError, "no whole numbers"),
        ({"labels": [1, 0, 1]}, LabelError, "3 labels for 2 files; there must be one label for each input file"),
        ({"labels": "1"}, LabelError, "1 labels for 2 files; there must be one label for each input file"),
        ({"labels": [1, 1]}, LabelError, "all files have the label '1'; a classification needs at least two classes"),
        ({"exclude": ["*"]}, SettingError, "leaves at least one feature"),
        ({"max_events": 0}, SettingError, "setting 'max_events' must be an integer ≥ 1, or -1 for all; got 0"),
        ({"generator_level": "no"}, SettingError, "setting 'generator_level' must be 'keep' or 'drop'"),
    ],
)
def test_bad_input_gets_one_clear_line(
    higgs_files: list[str], arguments: dict[str, Any], error: type[MLaaS4HEPError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        mlaas4hep.open(higgs_files, **arguments)
    assert "\n" not in str(caught.value)


def test_files_whose_branches_differ_are_named_with_the_branch(write_tree: Any) -> None:
    first = write_tree("first.root", {"x": np.arange(5.0), "y": np.arange(5.0)})
    missing = write_tree("missing.root", {"x": np.arange(5.0)})
    other = write_tree("other.root", {"x": np.arange(5), "y": np.arange(5.0)})
    with pytest.raises(BranchesDifferError, match=r"missing\.root does not match .*first\.root: it has no branch 'y'"):
        mlaas4hep.open([first, missing])
    with pytest.raises(
        BranchesDifferError, match=r"other\.root .*: branch 'x' holds int64 there and float64 in the first"
    ):
        mlaas4hep.open([first, other])
    assert mlaas4hep.open([first, missing], branches=["x"]).events == 10


def test_max_events_takes_each_files_share(higgs_files: list[str]) -> None:
    dataset = mlaas4hep.open(higgs_files, max_events=1001)
    assert [file.entries for file in dataset.catalog.files] == [500, 501]
    assert sum(len(batch.x) for batch in dataset.stream()) == 1001


def test_a_tree_without_events_is_refused_and_one_event_is_read(write_tree: Any) -> None:
    empty = write_tree("empty.root", {name: values[:0] for name, values in make_events(3, 1).items()})
    with pytest.raises(SourceError, match="tree 'Events' holds no event"):
        mlaas4hep.open(empty)
    one = mlaas4hep.open(write_tree("one.root", {"x": np.array([3.0])}), split=Split(test=0, validation=0))
    assert [batch.x.tolist() for batch in one.stream()] == [[[3.0]]]


def test_an_empty_file_among_others_does_no_harm(write_tree: Any) -> None:
    full = write_tree("full.root", make_events(50, 1))
    empty = write_tree("empty.root", {name: values[:0] for name, values in make_events(3, 1).items()})
    assert sum(len(batch.x) for batch in mlaas4hep.open([empty, full]).stream()) == 50


def test_lists_come_from_text_and_from_files_with_comments(tmp_path: Path) -> None:
    assert read_list("a, b,,c ") == ["a", "b", "c"]
    listing = tmp_path / "files.txt"
    listing.write_text("# dasgoclient says\n/store/a.root\n\n/store/b.root  # the second\n")
    assert read_list(str(listing)) == ["/store/a.root", "/store/b.root"]
    assert expand_files(str(listing), "root://host/") == ["root://host//store/a.root", "root://host//store/b.root"]


def test_folders_and_patterns_give_their_files_in_order(write_tree: Any, tmp_path: Path) -> None:
    for name in ("b.root", "a.root"):
        write_tree(name, {"x": np.arange(3.0)})
    expected = [str(tmp_path / "a.root"), str(tmp_path / "b.root")]
    assert expand_files(tmp_path) == expand_files(str(tmp_path / "*.root")) == expected
    with pytest.raises(SourceError, match="no file matches"):
        expand_files(str(tmp_path / "c*.root"))
    with pytest.raises(SourceError, match="is listed twice"):
        expand_files([expected[0], expected[0]])
    with pytest.raises(SourceError, match="names no file"):
        expand_files("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="the folder holds no file that can be read"):
        expand_files(tmp_path / "empty")


def test_classes_are_ordered_by_value_or_by_name() -> None:
    assert Labels.of_files(["10", "9", "10"], ["a", "b", "c"]) == Labels(("9", "10"), (1, 0, 1))
    assert Labels.of_files(["qcd", "higgs"], ["a", "b"]).classes == ("higgs", "qcd")
    assert Labels.of_files([True, False], ["a", "b"]).classes == ("0", "1")
    assert Labels.of_files([1.0, 0], ["a", "b"]).classes == ("0", "1")


def test_labels_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("1\n# the background\n0\n")
    assert parse_labels(str(tmp_path / "labels.txt")) == (["1", "0"], None)
    assert parse_labels("") == parse_labels(None) == (None, None)
