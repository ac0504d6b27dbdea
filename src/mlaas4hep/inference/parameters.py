"""The params.json of a model: what TFaaS writes, in all the spellings there are.

A file is kept as it came; this module reads it, judges it, and says what a listing shows: every key of today, the older spellings beside them where
the file has them, and whatever else the file holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlaas4hep.errors import BundleError
from mlaas4hep.inference.names import is_base_name

__all__ = ["FILE", "file_names", "full_parameters", "read_parameters"]

FILE = "params.json"
MAX_BYTES = 1 << 20

EMPTY: Mapping[str, Any] = {
    "name": "",
    "model": "",
    "labels": "",
    "op": "",
    "input_name": "",
    "output_name": "",
    "img_channels": 0,
    "options": (),
    "input_node": "",
    "output_node": "",
    "description": "",
    "timestamp": "",
}
OLD_SPELLINGS = {"inputNode": "input_node", "outputNode": "output_node", "imgChannels": "img_channels"}
FILE_KEYS = ("model", "labels", "op")


def full_parameters(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with every key of today; older spellings and unknown keys are kept.

    Raises
    ------
    ValueError
        If a value has a type that its key does not allow, or names a file outside the model's folder.

    Examples
    --------
    >>> full_parameters({"name": "higgs", "inputNode": "x"})["input_node"]
    'x'
    """
    parameters = {key: list(value) if isinstance(value, tuple) else value for key, value in EMPTY.items()}
    parameters.update({key: value for key, value in stored.items() if value is not None or key not in EMPTY})
    for old, new in OLD_SPELLINGS.items():
        if stored.get(new) is None and stored.get(old) is not None:
            parameters[new] = stored[old]
    for key, empty in EMPTY.items():
        value = parameters[key]
        if isinstance(empty, tuple):
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"'{key}' must be a list of strings; got {value!r}")
        elif isinstance(value, bool) or not isinstance(value, type(empty)):
            raise ValueError(f"'{key}' must be {'a string' if empty == '' else 'an integer'}; got {value!r}")
    for key in FILE_KEYS:
        if parameters[key] and not is_base_name(str(parameters[key])):
            raise ValueError(
                f"'{key}' must be the name of a file of the model, without a folder; got {parameters[key]!r}"
            )
    return parameters


def read_parameters(folder: Path) -> dict[str, Any]:
    """Read the params.json of a model's folder.

    Raises
    ------
    BundleError
        If there is none, or it is not what it should be.
    """
    import orjson

    try:
        with (folder / FILE).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BundleError(folder.name, f"{FILE} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise BundleError(folder.name, f"{FILE} has more than {MAX_BYTES} bytes")
    try:
        stored = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BundleError(folder.name, f"{FILE} is not JSON: {error}") from error
    if not isinstance(stored, dict):
        raise BundleError(folder.name, f"{FILE} must be a JSON object")
    try:
        return full_parameters(stored)
    except ValueError as error:
        raise BundleError(folder.name, f"{FILE}: {error}") from error


def file_names(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the files that the parameters name."""
    return tuple(parameters[key] for key in FILE_KEYS if parameters.get(key))
