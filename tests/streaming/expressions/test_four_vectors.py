"""Sums of four-vectors, angles between objects, against the package vector for one object at a time, and against what physics says."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import vector
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import ExpressionError
from mlaas4hep.streaming.formats.base import Column, ColumnType
from mlaas4hep.streaming.selecting.selection import EventSelection

MEMBERS = ("pt", "eta", "phi", "mass")
Object = tuple[float, float, float, float]

objects = st.tuples(st.floats(0.5, 500), st.floats(-4, 4), st.floats(-math.pi, math.pi), st.floats(0, 200))
events_of_objects = st.lists(st.lists(objects, max_size=4), max_size=5)


def evaluated(text: str, columns: dict[str, Any]) -> list[Any]:
    """The new column of an expression; lists make a jagged branch, numbers a flat one."""
    raw = {}
    for name, values in columns.items():
        if values and isinstance(values[0], list):
            offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
            raw[name] = Column(np.array(list(itertools.chain(*values)), np.float64), offsets)
        else:
            raw[name] = Column(np.array(values, np.float64), None)
    types = {name: ColumnType(column.content.dtype, column.offsets is not None) for name, column in raw.items()}
    events = len(next(iter(columns.values())))
    column = EventSelection(new_columns={"x": text}).bind(types).block(events, raw).column("x")
    if column.offsets is None:
        return column.content.tolist()
    return [column.content[a:b].tolist() for a, b in itertools.pairwise(column.offsets)]


def jets(events: list[list[Object]]) -> dict[str, Any]:
    return {f"Jet_{name}": [[jet[place] for jet in event] for event in events] for place, name in enumerate(MEMBERS)}


def four_vector(jet: Object) -> Any:
    return vector.obj(pt=jet[0], eta=jet[1], phi=jet[2], mass=jet[3])


def two_jets(first: Object, second: Object) -> dict[str, Any]:
    return jets([[first, second]])


@given(events_of_objects.filter(bool))
def test_the_mass_of_two_jets_is_that_of_vector_and_nan_where_there_are_fewer(events: list[list[Object]]) -> None:
    found = evaluated("mass(Jet[0] + Jet[1])", jets(events))
    for event, mass in zip(events, found, strict=True):
        if len(event) < 2:
            assert math.isnan(mass)
        else:
            summed = four_vector(event[0]) + four_vector(event[1])
            # What cancels is of the size of E², so the mass is as precise as that allows.
            assert mass**2 == pytest.approx(summed.mass**2, abs=1e-12 * summed.E**2)


@given(events_of_objects.filter(bool))
def test_the_sum_of_all_jets_is_that_of_vector(events: list[list[Object]]) -> None:
    columns = jets(events)
    masses, momenta = evaluated("mass(sum(Jet))", columns), evaluated("pt(sum(Jet))", columns)
    for event, mass, pt in zip(events, masses, momenta, strict=True):
        summed = vector.obj(px=0.0, py=0.0, pz=0.0, E=0.0)
        for jet in event:
            summed = summed + four_vector(jet)
        assert mass**2 == pytest.approx(summed.mass**2, abs=1e-12 * max(summed.E**2, 1))
        assert pt == pytest.approx(summed.pt, abs=1e-9)


@given(events_of_objects.filter(bool))
def test_distances_of_every_jet_from_the_first_are_those_of_vector(events: list[list[Object]]) -> None:
    columns = jets(events)
    distances, angles = evaluated("delta_r(Jet, Jet[0])", columns), evaluated("delta_phi(Jet, Jet[0])", columns)
    for event, along, across in zip(events, distances, angles, strict=True):
        expected = [four_vector(jet).deltaR(four_vector(event[0])) for jet in event]
        assert along == pytest.approx(expected, abs=1e-9)
        assert across == pytest.approx([four_vector(jet).deltaphi(four_vector(event[0])) for jet in event], abs=1e-9)


def test_two_massless_jets_back_to_back_have_twice_their_energy_as_mass() -> None:
    assert evaluated("mass(Jet[0] + Jet[1])", two_jets((50, 0, 0, 0), (50, 0, math.pi, 0))) == pytest.approx([100])
    assert evaluated("pt(Jet[0] + Jet[1])", two_jets((50, 0, 0, 0), (50, 0, math.pi, 0))) == pytest.approx(
        [0], abs=1e-12
    )


def test_two_collinear_massless_jets_have_no_mass() -> None:
    assert evaluated("mass(Jet[0] + Jet[1])", two_jets((50, 1, 2, 0), (30, 1, 2, 0))) == pytest.approx([0], abs=1e-5)


def test_a_z_at_rest_gives_its_mass_from_two_muons() -> None:
    columns = {
        f"Muon_{name}": [[value, other]]
        for name, value, other in zip(
            MEMBERS, (45.6, 0.0, 0.3, 0.10566), (45.6, 0.0, 0.3 - math.pi, 0.10566), strict=True
        )
    }
    assert evaluated("mass(Muon[0] + Muon[1])", columns) == pytest.approx([2 * math.hypot(45.6, 0.10566)])


def test_the_mass_of_one_object_is_its_mass() -> None:
    assert evaluated("mass(Jet)", two_jets((50, 1, 2, 7), (30, -1, 0, 4.8))) == [pytest.approx([7, 4.8])]


def test_an_object_may_be_added_to_each_object_of_another_collection() -> None:
    columns = two_jets((50, 0, 0, 0), (20, 0, math.pi, 0)) | {
        f"Tau_{name}": [[value]] for name, value in zip(MEMBERS, (50, 0, math.pi, 0), strict=True)
    }
    assert evaluated("mass(Jet + Tau[0])", columns) == [pytest.approx([100, 0], abs=1e-5)]


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        (3.1, -3.1, 6.2 - 2 * math.pi),
        (-3.1, 3.1, 2 * math.pi - 6.2),
        (1.0, 0.5, 0.5),
        (0.0, 0.0, 0.0),
        (3 * math.pi, 0.0, -math.pi),
    ],
)
def test_delta_phi_goes_the_short_way_around(first: float, second: float, difference: float) -> None:
    assert evaluated("delta_phi(a, b)", {"a": [first], "b": [second]}) == pytest.approx([difference])


def test_delta_r_takes_the_short_way_around_too() -> None:
    assert evaluated("delta_r(Jet[0], Jet[1])", two_jets((50, 0.3, 3.1, 0), (30, 0, -3.1, 0))) == pytest.approx(
        [math.hypot(0.3, 2 * math.pi - 6.2)]
    )


def test_objects_with_cartesian_members_are_four_vectors_too() -> None:
    """The names of uproot-HZZ.root."""
    values = {"Px": [3.0, -3.0], "Py": [0.0, 4.0], "Pz": [4.0, 0.0], "E": [5.0, 5.0]}
    columns = {f"Muon_{name}": [pair] for name, pair in values.items()}
    assert evaluated("mass(Muon[0] + Muon[1])", columns) == pytest.approx([math.sqrt(100 - 16 - 16)])
    assert evaluated("delta_phi(Muon[0], Muon[1])", columns) == pytest.approx([-math.atan2(4, -3)])
    assert evaluated("pt(Muon)", columns) == [pytest.approx([3, 5])]


def test_a_collection_with_one_object_an_event_needs_no_index() -> None:
    columns = two_jets((50, 0, 1, 0), (30, 0, -1, 0)) | {"MET_pt": [30.0], "MET_phi": [-3.0]}
    assert evaluated("delta_phi(Jet, MET)", columns) == [pytest.approx([4 - 2 * math.pi, 2])]
    with pytest.raises(ExpressionError, match="'MET' holds one object an event, which has no index at character 10"):
        evaluated("delta_phi(MET[0], Jet)", columns)
    with pytest.raises(ExpressionError, match="'MET' has no four-vectors at character 5"):
        evaluated("mass(MET + Jet[0])", columns)


def test_a_member_that_is_not_finite_gives_nan_and_not_a_number_that_looks_right() -> None:
    events: list[list[Object]] = [[(50, 0, 0, 0), (math.inf, 0, 1, 0)], [(50, math.nan, 0, 0), (30, 0, 1, 0)]]
    for function in ("mass", "pt", "eta", "phi"):
        assert all(map(math.isnan, evaluated(f"{function}(Jet[0] + Jet[1])", jets(events)))), function


def test_a_new_member_is_made_of_the_members_before_it_and_not_of_itself() -> None:
    """Once Jet_mass is there, it would be the member that the mass is made of."""
    names = ("pt", "eta", "phi", "energy")
    raw = {
        f"Jet_{name}": Column(np.array([value]), np.array([0, 1]))
        for name, value in zip(names, (3.0, 0.0, 1.0, 5.0), strict=True)
    }
    types = {name: ColumnType(column.content.dtype, True) for name, column in raw.items()}
    block = EventSelection(new_columns={"Jet_mass": "mass(Jet)", "again": "mass(Jet[0])"}).bind(types).block(1, raw)
    assert block.column("again").content == pytest.approx([4])
    assert block.column("Jet_mass").content == pytest.approx([4])
