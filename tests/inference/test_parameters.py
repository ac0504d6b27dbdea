"""params.json in all its spellings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import BundleError
from mlaas4hep.inference.parameters import EMPTY, file_names, full_parameters, read_parameters

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


def test_new_names_win_over_old_ones() -> None:
    parameters = full_parameters({"input_node": "new", "inputNode": "old", "outputNode": "o", "imgChannels": 3})
    assert (parameters["input_node"], parameters["output_node"], parameters["img_channels"]) == ("new", "o", 3)
    assert (parameters["inputNode"], parameters["outputNode"]) == ("old", "o")


def test_files_are_named_without_the_empty_ones() -> None:
    assert file_names(full_parameters({"model": "m.onnx", "labels": ""})) == ("m.onnx",)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"name": 7}, "'name' must be a string; got 7"),
        ({"img_channels": "3"}, "'img_channels' must be an integer; got '3'"),
        ({"img_channels": True}, "'img_channels' must be an integer; got True"),
        ({"options": "a"}, "'options' must be a list of strings; got 'a'"),
        ({"options": [1]}, "'options' must be a list of strings; got [1]"),
        (
            {"model": "/etc/passwd"},
            "'model' must be the name of a file of the model, without a folder; got '/etc/passwd'",
        ),
        ({"labels": "../x"}, "'labels' must be the name of a file"),
        ({"op": "a\\b"}, "'op' must be the name of a file"),
        ({"model": ".hidden"}, "'model' must be the name of a file"),
        ({"model": "a\nb"}, "'model' must be the name of a file"),
        ({"model": "m" * 256}, "'model' must be the name of a file"),
    ],
)
def test_what_is_wrong_is_named(stored: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        full_parameters(stored)


@given(st.dictionaries(st.sampled_from([*EMPTY, "inputNode", "other"]), JSON_VALUES))
def test_any_object_is_read_with_every_key_or_refused(stored: dict[str, Any]) -> None:
    try:
        parameters = full_parameters(stored)
    except ValueError:
        return
    assert set(EMPTY) <= set(parameters)
    assert all(
        type(parameters[key]) is (list if isinstance(empty, tuple) else type(empty)) for key, empty in EMPTY.items()
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b" " * (1 << 20) + b"{}", "more than"),
        (b'{"name": 1}', "'name' must be"),
    ],
)
def test_a_file_that_is_not_right_is_one_clear_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "params.json").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_parameters(tmp_path)
