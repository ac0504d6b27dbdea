"""Files of settings: what is read, with which lines, and what is refused."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import SettingError, SourceError
from mlaas4hep.settings_file import WrittenSettings, read_setting_texts, read_settings_file

CONTENT = {"data": {"files": ["a.root", "b.root"], "labels": [1, 0]}, "training": {"epochs": 3, "shuffle": True}}


def test_every_setting_has_its_line(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("# a comment\ndata:\n  files:\n    - a.root\n    - b.root\n\ntraining: {epochs: ten}\n")
    written = read_settings_file(file)
    assert written.values == {"data": {"files": ["a.root", "b.root"]}, "training": {"epochs": "ten"}}
    assert written.where("data.files") == f"{file}, line 3"
    assert written.where("data.files.1") == f"{file}, line 5"
    assert written.where("training.epochs") == f"{file}, line 7"
    assert written.where("training.patience") == f"{file}, line 7"  # its group
    assert written.where("model.name") == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", yaml.safe_dump(CONTENT)),
        ("c.json", json.dumps(CONTENT, indent=2)),
        ("c.toml", '[data]\nfiles = ["a.root", "b.root"]\nlabels = [1, 0]\n[training]\nepochs = 3\nshuffle = true\n'),
    ],
)
def test_yaml_json_and_toml_say_the_same(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    written = read_settings_file(file)
    assert written.values == CONTENT
    line = next(number for number, line in enumerate(text.splitlines(), 1) if "epochs" in line)
    assert written.where("training.epochs") == f"{file}, line {line}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1, 2", "line 1, column .*expected"),
        ("a: 1\nb: {c: 1}\na: 2\n", "line 3: 'a' is set twice"),
        ("a: &x [1]\nb: *x\n", "line 1: anchors and aliases"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1: '.*python/object.*' is not a plain value|line 1"),
        ("a: !!python/name:os.system x\n", "line 1: .*is not a plain value"),
        ("a: !mine 3\n", "line 1: '!mine' is not a plain value"),
        ("? [1, 2]\n: 3\n", "line 1: the name of a setting must be a text"),
        ("- 1\n- 2\n", "must hold settings by name"),
        ("just text", "must hold settings by name"),
        ("[" * 20_000, "not YAML|nested|line 1"),
        ("a: " + "x" * 5_000_000, "has 5000003 bytes"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: but found another document"),
    ],
)
def test_what_is_not_plain_values_by_name_is_refused(tmp_path, text, said):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(SourceError, match=said):
        read_settings_file(file)


def test_what_cannot_be_read_is_said_in_one_line(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.toml").write_text("[data\n")
    for name, said in (
        ("nowhere.yaml", "No such file"),
        ("binary.yaml", "not text in UTF-8"),
        ("broken.toml", "is not TOML"),
    ):
        with pytest.raises(SourceError, match=said) as caught:
            read_settings_file(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_an_empty_file_sets_nothing(tmp_path):
    (tmp_path / "config.yaml").write_text("# nothing\n")
    assert read_settings_file(tmp_path / "config.yaml") == WrittenSettings()


def test_words_of_yaml_are_what_they_look_like(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 2026-11-22\nb: null\nc: 'null'\nd: 1.5\ne: 0x10\nf: yes\n")
    assert read_settings_file(tmp_path / "c.yaml").values == {
        "a": "2026-11-22",
        "b": None,
        "c": "null",
        "d": 1.5,
        "e": 16,
        "f": True,
    }


def test_settings_of_a_command_line_win_and_say_where_they_are_from(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("data:\n  files:\n    - a.root\ntraining:\n  epochs: 3\n")
    given_there = read_setting_texts(["data.files=b.root", "training.seed=7", "training.seed=8"])
    together = read_settings_file(file).updated(given_there)
    assert together.values == {"data": {"files": "b.root"}, "training": {"epochs": 3, "seed": 8}}
    assert together.where("training.seed") == together.where("data.files") == "on the command line"
    assert together.where("training.epochs") == f"{file}, line 5"


@pytest.mark.parametrize("text", ["training.epochs", "=3", ".epochs=3", "training..epochs=3", ""])
def test_a_text_that_sets_nothing_is_refused(text):
    with pytest.raises(SettingError, match="NAME=VALUE"):
        read_setting_texts([text])


def test_a_value_that_is_not_yaml_names_its_setting():
    with pytest.raises(
        SettingError, match=r"'training.epochs' must be a value in YAML; got '\[3' \(on the command line"
    ):
        read_setting_texts(["training.epochs=[3"])


names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("on", "off", "y", "n", "yes", "no")
)
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x85\u2028\u2029")  # line breaks to YAML
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(characters)
nested = st.recursive(
    plain, lambda part: st.lists(part, max_size=3) | st.dictionaries(names, part, max_size=3), max_leaves=8
)


@given(st.dictionaries(names, nested, max_size=4))
def test_whatever_is_dumped_is_read_back(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("dumped") / "c.yaml"
    file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8", newline="")
    assert read_settings_file(file).values == values
