"""Pictures of histograms: real files, names that are safe, and nothing left changed."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.streaming.inspection import inspect_files
from mlaas4hep.streaming.inspection.plots import draw_histograms, file_names


@pytest.mark.parametrize(("extension", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_each_branch_is_a_picture(higgs_files, tmp_path, extension, magic):
    before = dict(mpl.rcParams)
    found = inspect_files(higgs_files, branches=["MET_pt", "nJet", "Jet_eta"], max_events=2000)
    calls = []
    written = draw_histograms(found, tmp_path / "plots", extension, progress=lambda *call: calls.append(call))
    assert [path.name for path in written] == [f"{name}.{extension}" for name in ("MET_pt", "nJet", "Jet_eta")]
    assert all(path.read_bytes().startswith(magic) for path in written)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert dict(mpl.rcParams) == before


def test_odd_names_and_values_are_drawn_too(tmp_path):
    columns = {
        "$\\frac{": np.full(3, np.nan, np.float32),
        "../../x": np.full(3, 7.0, np.float32),
        "<script>": np.array([0.0, 1e30, -1e30], np.float32),
    }
    with uproot.recreate(tmp_path / "odd.root") as file:
        file.mktree("Events", dict.fromkeys(columns, np.float32))
        file["Events"].extend(columns)
    written = draw_histograms(inspect_files(tmp_path / "odd.root"), tmp_path / "plots")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {path.name for path in written}
    assert len(written) == 3


@given(st.lists(st.text(max_size=150), unique=True, max_size=20))
def test_names_of_files_are_plain_and_no_two_alike(branches):
    names = file_names(branches)
    assert list(names) == branches
    assert len({name.lower() for name in names.values()}) == len(branches)
    for name in names.values():
        assert name.isascii()
        assert not set(name) & set("/\\. ")
        assert 0 < len(name) < 110
