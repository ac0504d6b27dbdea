"""Settings of the right and the wrong kind."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from mlaas4hep.errors import SettingError, SourceError, UnknownSettingError
from mlaas4hep.settings import (
    choice,
    flag,
    integer,
    names,
    number,
    read_json_settings,
    read_settings,
    setting,
    text,
)


@dataclass(frozen=True)
class Example:
    """All kinds of settings."""

    epochs: int = setting(integer(1), 10, "passes over the training events")
    events: int = setting(integer(1, also=[-1]), -1, "events to read")
    split: float = setting(number(0, 1), 0.2, "held-out part")
    shuffle: bool = setting(flag(), True, "random order")
    tree: str = setting(text(), "Events", "name of the tree")
    generator: str = setting(choice("keep", "drop"), "keep", "generator-level branches")
    branches: tuple[str, ...] = setting(names(), (), "features")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"epochs": "", "tree": "  ", "branches": None}, {}),
        ({"epochs": 3, "split": 0}, {"epochs": 3, "split": 0.0}),
        ({"epochs": "3", "events": -1, "split": "0.5"}, {"epochs": 3, "events": -1, "split": 0.5}),
        ({"epochs": 3.0, "shuffle": "False"}, {"epochs": 3, "shuffle": False}),
        ({"branches": "Jet_pt, MET_pt,"}, {"branches": ("Jet_pt", "MET_pt")}),
        ({"branches": ["Jet_pt"], "generator": "drop"}, {"branches": ("Jet_pt",), "generator": "drop"}),
        ({"branches": []}, {"branches": ()}),
    ],
)
def test_values_are_taken_as_people_write_them(given, expected):
    assert read_settings(Example, given) == dataclasses.replace(Example(), **expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "setting 'epochs' must be an integer ≥ 1; got 0"),
        ({"epochs": "ten"}, "setting 'epochs' must be an integer ≥ 1; got 'ten'"),
        ({"epochs": 2.5}, "setting 'epochs' must be an integer ≥ 1; got 2.5"),
        ({"epochs": True}, "setting 'epochs' must be an integer ≥ 1; got True"),
        ({"epochs": float("inf")}, "setting 'epochs' must be an integer ≥ 1; got inf"),
        ({"events": 0}, "setting 'events' must be an integer ≥ 1, or -1; got 0"),
        ({"split": 1}, "setting 'split' must be a number in [0, 1); got 1"),
        ({"split": float("nan")}, "setting 'split' must be a number in [0, 1); got nan"),
        ({"shuffle": "perhaps"}, "setting 'shuffle' must be true or false; got 'perhaps'"),
        ({"tree": 7}, "setting 'tree' must be a text; got 7"),
        ({"generator": "maybe"}, "setting 'generator' must be 'keep' or 'drop'; got 'maybe'"),
        (
            {"branches": [1]},
            "setting 'branches' must be a list of names, a comma-separated text, or a file with one name a line; got [1]",
        ),
    ],
)
def test_a_wrong_value_is_said_with_its_name_and_rule(given, message):
    with pytest.raises(SettingError) as caught:
        read_settings(Example, given)
    assert str(caught.value) == message
    assert caught.value.setting == next(iter(given))


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(UnknownSettingError, match=r"^no setting 'epoch'; nearest: 'epochs'$"):
        read_settings(Example, {"epoch": 3})
    with pytest.raises(UnknownSettingError, match=r"^no setting 'xyz'; there are 'epochs', 'events'"):
        read_settings(Example, {"xyz": 3})


def test_names_may_stand_in_a_file_with_comments(tmp_path):
    listed = tmp_path / "branches.txt"
    listed.write_text("# what we need\nJet_pt\n\nMET_pt  # missing energy\n")
    assert read_settings(Example, {"branches": str(listed)}).branches == ("Jet_pt", "MET_pt")


def test_a_wrong_value_in_a_file_is_said_with_file_and_line(tmp_path):
    params = tmp_path / "params.json"
    params.write_text('{\n  "tree": "Events",\n  "epochs": "ten"\n}\n')
    with pytest.raises(SettingError, match=r"got 'ten' \(.*params\.json, line 3\)$"):
        read_json_settings(Example, params)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1, column 1"),
        (b'{"epochs": 3,\n}', "line [12], column"),
        (b"[1, 2]", "must hold a JSON object"),
        (b"\xff\xfe", "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_object_is_refused(tmp_path, content, said):
    params = tmp_path / "params.json"
    params.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        read_json_settings(Example, params)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        read_json_settings(Example, tmp_path / "nowhere.json")
