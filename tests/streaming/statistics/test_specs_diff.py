"""What changed between specs: everything that did, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import make_events

import mlaas4hep
from mlaas4hep.streaming.splitting import Split
from mlaas4hep.streaming.statistics.specs import BranchRanges, Specs
from mlaas4hep.streaming.statistics.specs_diff import compare_specs


@pytest.fixture
def specs(write_tree):
    return mlaas4hep.open(write_tree("a.root", make_events(200, 3))).specs


def summary(changes):
    return {(change.part, change.name, change.what): (change.before, change.after) for change in changes}


def test_specs_that_were_written_and_read_are_equal(specs, tmp_path):
    specs.write(tmp_path / "s.json")
    assert compare_specs(specs, Specs.read(tmp_path / "s.json")) == ()


def test_kind_width_and_values_that_are_not_finite_are_compared(specs, write_tree):
    events = make_events(200, 3)
    events["MET_pt"][7] = np.nan
    events["trigger"], events["Jet_charge"] = events["Jet_charge"], events["trigger"]
    other = mlaas4hep.open(write_tree("b.root", events)).specs
    found = summary(compare_specs(specs, other))
    assert found["branch", "MET_pt", "not finite"] == (0, 1)
    assert found["branch", "MET_pt", "values"] == (200, 199)
    assert found["branch", "trigger", "kind"] == ("flat", "jagged")


def test_files_and_settings_are_compared(specs, write_tree):
    path = write_tree("c.root", make_events(150, 3))
    fewer = mlaas4hep.open(path, split=Split(test=0.5)).specs
    found = summary(compare_specs(specs, fewer))
    assert found["all", "", "events"] == (200, 150)
    assert found["file", str(path), "events"] == (None, 150)
    assert found["setting", "split", "value"][1]["test"] == 0.5
    source = dict(specs.source) | {"files": [dict(specs.source["files"][0]) | {"uuid": "another"}]}
    assert [change.what for change in compare_specs(specs, replace(specs, source=source))] == ["uuid"]


NUMBERS = st.floats(-1e6, 1e6)
RANGES = st.dictionaries(st.sampled_from("abcdef"), st.tuples(NUMBERS, NUMBERS))


@given(RANGES, RANGES)
def test_forth_and_back_are_the_same_changes(one, two):
    def make(ranges):
        known = BranchRanges({n: r[0] for n, r in ranges.items()}, {n: r[1] for n, r in ranges.items()}, {}, 1)
        return Specs(tuple(sorted(ranges)), (), known, known, {"f": 1})

    before, after = make(one), make(two)
    forth, back = summary(compare_specs(before, after)), summary(compare_specs(after, before))
    assert back == {key: (new, old) for key, (old, new) in forth.items()}
    assert compare_specs(before, before) == ()
    changed = {name for _, name, _ in forth}
    assert {n for n in {*one, *two} if (n in one) != (n in two)} <= changed
