"""The body of a prediction request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlaas4hep.errors import RequestError
from mlaas4hep.inference.protocols.row import parse_object, parse_row

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def test_a_request_is_read() -> None:
    request = parse_row(b'{"keys": ["a"], "values": [1.5], "model": "higgs"}')
    assert (request.model, request.keys, request.rows, request.many, request.normalised) == (
        "higgs",
        ["a"],
        ([1.5],),
        False,
        False,
    )


def test_many_rows_and_scaled_values_are_read() -> None:
    request = parse_row(b'{"rows": [[1], [2]], "normalised": true}')
    assert (request.model, request.keys, list(request.rows), request.many, request.normalised) == (
        None,
        None,
        [[1], [2]],
        True,
        True,
    )


@pytest.mark.parametrize(
    "body",
    [
        b'{"Values": [1], "MODEL": "m"}',
        b'{"vAlUeS": [1], "Name": "m"}',
        b'{"values": [1], "name": "m", "else": {"a": 1}}',
    ],
)
def test_fields_match_without_case_name_is_model_and_others_are_passed_over(body: bytes) -> None:
    request = parse_row(body)
    assert (request.model, list(request.rows)) == ("m", [[1]])


def test_model_wins_over_name() -> None:
    assert parse_row(b'{"values": [1], "name": "a", "model": "b"}').model == "b"


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"", "no body"),
        (b"not json", "not JSON"),
        (b'{"values": [NaN]}', "not JSON"),
        (b'{"values": [Infinity]}', "not JSON"),
        (b'{"values": [-Infinity]}', "not JSON"),
        (b'{"values": [1,]}', "not JSON"),
        (b'{"values": [1]} trailing', "not JSON"),
        (b'{"values": [1], "model": "\xff"}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"values":' * 5000, "not JSON"),
        (b"[]", "must be a JSON object; got a list"),
        (b'"text"', "must be a JSON object; got a string"),
        (b"null", "must be a JSON object; got null"),
        (b"1", "must be a JSON object; got a number"),
        (b"true", "must be a JSON object; got true or false"),
        (b"{}", "needs 'values' for one row, or 'rows'"),
        (b'{"values": [1], "rows": [[1]]}', "not both"),
        (b'{"values": null}', "needs 'values'"),
        (b'{"values": "1,2"}', "'values' must be a list of numbers; got a string"),
        (b'{"values": {"a": 1}}', "'values' must be a list of numbers; got an object"),
        (b'{"rows": [1, 2]}', "'rows' must be a list of lists"),
        (b'{"values": [1], "keys": "a"}', "'keys' must be a list of names; got a string"),
        (b'{"values": [1], "model": 7}', "'model' must be a string; got a number"),
        (b'{"values": [1], "normalised": "yes"}', "'normalised' must be true or false; got a string"),
        (b'{"values": [1], "values": [2]}', "field 'values' is there twice"),
        (b'{"values": [1], "Values": [2]}', "field 'values' is there twice"),
        (b'{"values": [1], "model": "a", "x": {"y": 1, "y": 2}}', "field 'y' is there twice"),
    ],
)
def test_anything_else_is_refused_with_the_reason(body: bytes, match: str) -> None:
    with pytest.raises(RequestError, match=match) as caught:
        parse_row(body)
    assert caught.value.status == 400


@pytest.mark.parametrize("depth", [10, 100, 300])
def test_nesting_of_what_is_passed_over_is_fine(depth: int) -> None:
    body = b'{"values": [1], "model": "a:b", "x": ' + b"[" * depth + b"]" * depth + b"}"
    assert list(parse_row(body).rows) == [[1]]


@pytest.mark.parametrize("depth", [1100, 50_000])
def test_deeper_nesting_is_refused(depth: int) -> None:
    body = b'{"values": [1], "model": "a:b", "x": ' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(RequestError, match=r"not JSON|nested too deeply"):
        parse_row(body)


def test_colons_in_names_do_not_make_a_field_double() -> None:
    assert parse_row(b'{"values": [1], "keys": ["a:b", "c::d"]}').keys == ["a:b", "c::d"]


@given(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=6))
def test_every_json_object_is_read_as_the_standard_library_reads_it(document: dict[str, Any]) -> None:
    assert parse_object(json.dumps(document).encode()) == json.loads(json.dumps(document))


@given(st.binary(max_size=60) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_request_or_one_clear_error(body: bytes) -> None:
    outcome: Any
    try:
        outcome = parse_row(body).rows
    except RequestError as error:
        outcome = error.status
    assert outcome == 400 or isinstance(outcome, (list, tuple))
