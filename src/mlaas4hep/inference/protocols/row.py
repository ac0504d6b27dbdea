"""The body of a TFaaS prediction request: ``{"keys": […], "values": […], "model": "name"}``.

Field names match without regard to case, as they do in the original. A field that is there twice is refused: two programs that read the same
request must not see two different ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from mlaas4hep.errors import RequestError

__all__ = ["RowRequest", "parse_object", "parse_row"]

FIELDS = ("keys", "values", "rows", "model", "name", "normalised")


@dataclass(slots=True)
class RowRequest:
    """What a client asks for.

    Parameters
    ----------
    model : str or None
        Name of the model; None for the default one.
    keys : list or None
        Names of the values.
    rows : list of lists
        One list a row.
    many : bool
        Whether the answer is a list of rows rather than one row.
    normalised : bool
        Whether the values are scaled already.
    """

    model: str | None
    keys: list[Any] | None
    rows: Sequence[list[Any]]
    many: bool
    normalised: bool


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object, in which every field is there once.

    Raises
    ------
    RequestError
        If it is anything else.
    """
    if not body:
        raise RequestError("the request has no body; a JSON object is needed")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise RequestError(f"the body must be a JSON object; got {_kind(document)}")
    # Each field has one colon. Only where there are more, in names or because a field is repeated, is the body read again and slowly.
    if body.count(b":") != len(document):
        _refuse_repeated(body)
    return document


def _refuse_repeated(body: bytes) -> None:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        if len(set(names)) != len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise RequestError(f"field {repeated[:100]!r} is there twice")
        return {}

    try:
        json.loads(body, object_pairs_hook=pairs)
    except RecursionError:
        raise RequestError("the body is nested too deeply") from None


def parse_row(body: bytes) -> RowRequest:
    """Read the body of a prediction request.

    Raises
    ------
    RequestError
        If it is not such a request; unknown fields are passed over.
    """
    document = parse_object(body)
    fields = {name: document[name] for name in FIELDS if name in document}
    if len(fields) != len(document):
        fields = _without_case(document)
    model = fields.get("model") or fields.get("name")
    keys, values, rows = fields.get("keys"), fields.get("values"), fields.get("rows")
    if model is not None and not isinstance(model, str):
        raise RequestError(f"'model' must be a string; got {_kind(model)}")
    if keys is not None and not isinstance(keys, list):
        raise RequestError(f"'keys' must be a list of names; got {_kind(keys)}")
    normalised = fields.get("normalised", False)
    if not isinstance(normalised, bool):
        raise RequestError(f"'normalised' must be true or false; got {_kind(normalised)}")
    if (values is None) == (rows is None):
        raise RequestError(
            "the request needs 'values' for one row, or 'rows' for many" + ("" if rows is None else ", not both")
        )
    if rows is None:
        if not isinstance(values, list):
            raise RequestError(f"'values' must be a list of numbers; got {_kind(values)}")
        return RowRequest(model, keys, (values,), False, normalised)
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise RequestError("'rows' must be a list of lists of numbers")
    return RowRequest(model, keys, rows, True, normalised)


def _without_case(document: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in document.items():
        folded = name.lower()
        if folded in fields:
            raise RequestError(f"field '{folded[:100]}' is there twice")
        fields[folded] = value
    return fields


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
